//! A controller between channels that the test holds the other ends of.

use std::{path::Path, time::Duration};

use super::*;
use crate::{
    datapath::fake::FakeKernel,
    domain::{
        backend::{CatalogHealth, Instance, InstanceId},
        config_entry::{ConfigEntry, EntryKind},
        health::Observed,
        kernel::Attempts,
        sync::{KeyValue, Listed},
    },
};

pub(super) const CONFIG: &str = r#"
[node]
interfaces = ["eth0"]

[consul]
address = "http://127.0.0.1:8500"

[[service]]
name = "echo"
vip = ["198.51.100.10:80"]
subsets = { v1 = { tag = "v1" }, v2 = { tag = "v2" } }
consul = { service = "echo" }
health = { kind = "tcp", panic = 0 }

[[service]]
name = "fixed"
vip = ["198.51.100.11:80"]
backends = [{ address = "10.2.0.1:80" }, { address = "10.2.0.2:80", weight = 3 }]
"#;

/// A running controller and the other ends of its channels.
pub(super) struct Bench {
    pub(super) handle: Handle,
    pub(super) kernel: FakeKernel,
    pub(super) catalog: watch::Sender<Arc<CatalogState>>,
    health: mpsc::Sender<HealthEvent>,
    pub(super) state: watch::Receiver<PersistedState>,
    pub(super) census: watch::Sender<Arc<Census>>,
    /// The shifts on the disk, which the test is.
    pub(super) disk: watch::Sender<BTreeMap<String, Shift>>,
    _save_problem: watch::Sender<Option<String>>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Bench {
    pub(super) async fn start(kernel: FakeKernel, saved: PersistedState) -> Self {
        Self::configured(CONFIG, kernel, saved).await
    }

    pub(super) async fn configured(
        config: &str,
        kernel: FakeKernel,
        saved: PersistedState,
    ) -> Self {
        let config = crate::config::parse_in(config, Path::new("test.toml"), &|_| None).unwrap();
        let (commands, command_receiver) = mpsc::channel(8);
        let (snapshots, snapshot_receiver) = watch::channel(Arc::default());
        let (catalog, catalog_receiver) = watch::channel(Arc::default());
        let (topics, _) = watch::channel(BTreeSet::new());
        let (health, health_receiver) = mpsc::channel(8);
        let (census, census_receiver) = watch::channel(Arc::default());
        let (state, state_receiver) = watch::channel(saved.clone());
        let (save_problem, save_problem_receiver) = watch::channel(None);
        let (disk, saved_receiver) = watch::channel(saved.shifts.clone());
        let setup = Setup {
            config,
            config_path: "test.toml".into(),
            state: saved,
            problems: Vec::new(),
            interfaces: Vec::new(),
            local_clients: None,
            witnesses: vec![],
            vital: Box::new(|| crate::domain::block::Vital {
                addresses: vec![("192.0.2.1".parse().unwrap(), "the Consul server".into())],
            }),
        };
        let channels = Channels {
            commands: command_receiver,
            snapshots,
            catalog: catalog_receiver,
            topics,
            health: health_receiver,
            census: census_receiver,
            state,
            save_problem: save_problem_receiver,
            registrar: watch::channel(RegistrarStatus::default()).1,
            proxy: watch::channel(Default::default()).1,
            saved: saved_receiver,
        };
        let controller = Controller::start(kernel.clone(), setup, channels)
            .await
            .unwrap();
        let task = tokio::spawn(controller.run(std::future::pending()));
        Self {
            handle: Handle::new(commands, snapshot_receiver),
            kernel,
            catalog,
            health,
            state: state_receiver,
            census,
            disk,
            _save_problem: save_problem,
            task,
        }
    }

    pub(super) async fn new() -> Self {
        Self::start(FakeKernel::default(), PersistedState::default()).await
    }

    /// Consul lists these: number and tag, of which `maintenance` is one.
    pub(super) async fn list(&self, instances: &[(u8, &str)]) {
        let instances = instances
            .iter()
            .map(|(number, tag)| instance(*number, tag))
            .collect();
        self.change(|state| {
            state.services.insert("echo".into(), Arc::new(instances));
        })
        .await;
    }

    /// Consul has these keys of the fleet, without their prefix, at this index.
    pub(super) async fn keys(&self, index: u64, rows: &[(&str, &str)]) {
        let values = rows.iter().map(|(key, text)| {
            let text = (*text).to_owned();
            ((*key).to_owned(), KeyValue { text, index })
        });
        let values = Arc::new(values.collect());
        self.change(|state| state.keys = Some(Listed { index, values }))
            .await;
    }

    /// Consul has this entry of `echo` at this index, and no other of its kind.
    pub(super) async fn entry(&self, kind: EntryKind, index: u64, entry: Option<ConfigEntry>) {
        let values = entry.map(|entry| ("echo".to_owned(), entry));
        let values = Arc::new(values.into_iter().collect());
        self.change(|state| {
            state.entries.insert(kind, Listed { index, values });
        })
        .await;
    }

    /// Changes what Consul says; the rest stays.
    async fn change(&self, change: impl FnOnce(&mut CatalogState)) {
        let mut changed = CatalogState::clone(&self.catalog.borrow());
        change(&mut changed);
        self.catalog.send_replace(Arc::new(changed));
        self.settle().await;
    }

    pub(super) async fn probe(&self, number: u8, healthy: bool) {
        let since = SystemTime::now();
        let observed = if healthy {
            Observed::Healthy { since }
        } else {
            Observed::Unhealthy {
                since,
                reason: "connection refused".into(),
            }
        };
        let instance = instance(number, "");
        let event = HealthEvent {
            service: "echo".into(),
            id: instance.id,
            address: instance.address,
            observed,
            previous: Observed::Unknown,
            reason: "2 probes in a row said so".into(),
            answers: healthy,
            took: Duration::ZERO,
        };
        self.health.send(event).await.unwrap();
        self.settle().await;
    }

    /// The flow tables tell this of connections to the backends with these numbers.
    pub(super) async fn census(&self, attempts: &[(u8, Attempts)]) {
        let id_of = |number: u8| {
            let inside = self.kernel.inside();
            let mut backends = inside.view.backends.iter();
            let address = instance(number, "").address;
            backends
                .find(|(_, each)| each.address == address)
                .map(|(id, _)| *id)
                .unwrap()
        };
        let census = Census {
            attempts: attempts
                .iter()
                .map(|(number, found)| (id_of(*number), *found))
                .collect(),
            ..Census::default()
        };
        self.census.send_replace(Arc::new(census));
        self.settle().await;
    }

    /// Lets the controller handle what was sent.
    pub(super) async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.handle.status().await.unwrap();
    }

    /// Kernel weights of the backends of `echo`.
    pub(super) fn echo(&self) -> Vec<(String, u32)> {
        let weights = self.kernel.weights();
        weights
            .into_iter()
            .filter(|(address, _)| address.starts_with("10.1."))
            .collect()
    }
}

fn instance(number: u8, tag: &str) -> Instance {
    Instance {
        id: InstanceId(format!("node/echo-{number}").into()),
        address: ([10, 1, 0, number], 8080).into(),
        weight: 1,
        tags: vec![tag.to_owned()].into(),
        meta: Default::default(),
        subset: None,
        detail: None,
        health: match tag {
            "maintenance" => CatalogHealth::Maintenance("upgrade".into()),
            _ => CatalogHealth::Passing,
        },
    }
}
