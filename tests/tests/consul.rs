//! The Consul source against the real `consul`, in development mode on loopback.

use std::{
    collections::BTreeSet,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_agent::{
    domain::{
        backend::{CatalogHealth, Instance},
        sync::{CatalogState, Topic, WatchStatus},
    },
    source::consul::{ConsulOptions, run},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use server::{Consul, Tls};

#[path = "consul/filters.rs"]
mod filters;
#[path = "consul/many.rs"]
mod many;
#[path = "consul/registry.rs"]
mod registry;
#[path = "consul/server.rs"]
mod server;
#[path = "consul/topics.rs"]
mod topics;

/// How soon a change must be seen.
const SOON: Duration = Duration::from_secs(1);
/// How soon a source must recover that has failed a few times.
const LATER: Duration = Duration::from_secs(15);

fn watches<S: ToString>(services: &[S]) -> BTreeSet<Topic> {
    let services = services.iter().map(S::to_string);
    services
        .map(|service| Topic::instances(&service, None))
        .collect()
}

/// A running source.
struct Source {
    state: watch::Receiver<Arc<CatalogState>>,
    _services: watch::Sender<BTreeSet<Topic>>,
    task: JoinHandle<()>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source {
    fn start<S: ToString>(options: ConsulOptions, services: &[S]) -> Self {
        Self::follow(options, watches(services))
    }

    fn follow(options: ConsulOptions, topics: BTreeSet<Topic>) -> Self {
        let (services, names) = watch::channel(topics);
        let (out, state) = watch::channel(Arc::default());
        let task = tokio::spawn(async move {
            run(options, names, out, std::future::pending())
                .await
                .unwrap();
        });
        Self {
            state,
            _services: services,
            task,
        }
    }

    /// The state as soon as it is as described, and how long that took.
    async fn until(
        &mut self,
        limit: Duration,
        described: impl Fn(&CatalogState) -> bool,
    ) -> (Arc<CatalogState>, Duration) {
        let start = Instant::now();
        let found = timeout(limit, self.state.wait_for(|state| described(state)))
            .await
            .map(|state| state.expect("the source has ended").clone());
        let state =
            found.unwrap_or_else(|_| panic!("after {limit:?} still {:#?}", self.state.borrow()));
        (state, start.elapsed())
    }

    /// The only instance of `echo` as soon as it is as described.
    async fn until_echo(&mut self, described: impl Fn(&Instance) -> bool) -> Instance {
        let (state, _) = self
            .until(
                SOON,
                |state| matches!(echo(state), Some([one]) if described(one)),
            )
            .await;
        echo(&state).unwrap()[0].clone()
    }

    /// What is wrong with the watch on `echo`, as soon as something is.
    async fn until_error(&mut self) -> String {
        let (state, _) = self
            .until(LATER, |state| status(state).error.is_some())
            .await;
        status(&state).error.unwrap()
    }
}

fn echo(state: &CatalogState) -> Option<&[Instance]> {
    state.services.get("echo").map(|list| list.as_slice())
}

fn is_empty(state: &CatalogState) -> bool {
    echo(state).is_some_and(<[_]>::is_empty)
}

fn status(state: &CatalogState) -> WatchStatus {
    state
        .watches
        .get("health/echo")
        .cloned()
        .unwrap_or_default()
}

fn options(consul: &Consul) -> ConsulOptions {
    ConsulOptions {
        address: consul.address(),
        wait: Duration::from_secs(30),
        ..Default::default()
    }
}

const ECHO: &str = r#"{
    "ID": "e1", "Name": "echo", "Address": "10.0.0.1", "Port": 8080,
    "Tags": ["v1"], "Meta": {"version": "1"}, "Weights": {"Passing": 9, "Warning": 4},
    "Check": {"CheckID": "alive", "Name": "alive", "TTL": "10m", "Status": "passing"}
}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_are_seen_within_a_second() {
    let consul = Consul::start();
    let mut source = Source::start(options(&consul), &["echo"]);
    source.until(LATER, is_empty).await;

    consul.put("/v1/agent/service/register", ECHO);
    let one = source.until_echo(|_| true).await;
    assert!(one.id.0.ends_with("/e1"), "{}", one.id);
    assert_eq!(one.address.to_string(), "10.0.0.1:8080");
    assert_eq!(*one.tags, ["v1"]);
    assert_eq!(one.meta["version"], "1");

    consul.put("/v1/agent/service/deregister/e1", "");
    source.until(SOON, is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_and_maintenance_are_seen_within_a_second() {
    use CatalogHealth::{Critical, Maintenance, Passing, Warning};
    let consul = Consul::start();
    consul.put("/v1/agent/service/register", ECHO);
    let mut source = Source::start(options(&consul), &["echo"]);
    let rows = [
        ("/v1/agent/check/pass/alive", Passing, 9),
        (
            "/v1/agent/check/warn/alive?note=slow",
            Warning("alive: slow".into()),
            4,
        ),
        (
            "/v1/agent/check/fail/alive?note=dead",
            Critical("alive: dead".into()),
            9,
        ),
        (
            "/v1/agent/service/maintenance/e1?enable=true&reason=upgrade",
            Maintenance("upgrade".into()),
            9,
        ),
        (
            "/v1/agent/service/maintenance/e1?enable=false",
            Critical("alive: dead".into()),
            9,
        ),
        (
            "/v1/agent/maintenance?enable=true&reason=kernel",
            Maintenance("kernel".into()),
            9,
        ),
        (
            "/v1/agent/maintenance?enable=false",
            Critical("alive: dead".into()),
            9,
        ),
        ("/v1/agent/check/pass/alive", Passing, 9),
    ];
    source
        .until(LATER, |state| {
            echo(state).is_some_and(|list| list.len() == 1)
        })
        .await;
    for (path, health, weight) in rows {
        consul.put(path, "");
        let one = source.until_echo(|one| one.health == health).await;
        assert_eq!(one.weight, weight, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_and_comes_back_empty() {
    let mut consul = Consul::start();
    consul.put("/v1/agent/service/register", ECHO);
    let mut source = Source::start(options(&consul), &["echo"]);
    let one = source
        .until(LATER, |state| status(state).last_success.is_some())
        .await;
    let before = status(&one.0);

    consul.stop();
    let (state, _) = source.until(LATER, |state| status(state).errors >= 3).await;
    let dead = status(&state);
    let text = dead.error.unwrap();
    assert!(
        text.contains("connection refused; check that Consul runs"),
        "{text}"
    );
    assert_eq!(echo(&state).unwrap().len(), 1, "the last instances stay");
    assert_eq!(dead.index, before.index);

    consul.run();
    // A server without state is believed here; whether its emptiness is, is decided elsewhere.
    let (state, _) = source.until(LATER, is_empty).await;
    let back = status(&state);
    assert_eq!(back.error, None);
    assert!(back.errors >= dead.errors && back.last_success > before.last_success);
    consul.put("/v1/agent/service/register", ECHO);
    source.until_echo(|_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens() {
    const MASTER: &str = "6a1253d2-1785-24fd-91c2-f8e78c745511";
    let consul = Consul::with_acl(MASTER);
    consul.put("/v1/agent/service/register", ECHO);
    let dir = tempfile::tempdir().unwrap();
    let token_file = dir.path().join("token");
    fs::write(&token_file, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let mut source = Source::start(
        ConsulOptions {
            token_file: Some(token_file.clone()),
            ..options(&consul)
        },
        &["echo"],
    );
    let text = source.until_error().await;
    assert!(text.contains("permission denied (ACL not found)"), "{text}");
    assert!(!text.contains("11111111"), "{text}");

    fs::write(&token_file, MASTER).unwrap();
    let (state, _) = source
        .until(LATER, |state| {
            echo(state).is_some_and(|list| list.len() == 1)
        })
        .await;
    assert_eq!(status(&state).error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls() {
    let tls = Tls::create();
    let consul = Consul::with_tls(&tls);
    let good = ConsulOptions {
        address: consul.tls_address(),
        ca_cert: Some(tls.file("consul-agent-ca.pem")),
        client_cert: Some(tls.file("dc1-client-consul-0.pem")),
        client_key: Some(tls.file("dc1-client-consul-0-key.pem")),
        tls_server_name: Some("server.dc1.consul".into()),
        wait: Duration::from_secs(30),
        ..Default::default()
    };
    for tls_server_name in [None, good.tls_server_name.clone()] {
        let mut source = Source::start(
            ConsulOptions {
                tls_server_name,
                ..good.clone()
            },
            &["echo"],
        );
        let (state, _) = source
            .until(LATER, |state| status(state) != WatchStatus::default())
            .await;
        assert_eq!(status(&state).error, None);
    }

    let wrong = [
        (
            "wrong name",
            ConsulOptions {
                tls_server_name: Some("server.dc2.consul".into()),
                ..good.clone()
            },
            "no TLS (",
        ),
        (
            "authority unknown to the system",
            ConsulOptions {
                ca_cert: None,
                ..good.clone()
            },
            "no TLS (",
        ),
        (
            "no client certificate",
            ConsulOptions {
                client_cert: None,
                client_key: None,
                ..good.clone()
            },
            "no TLS (",
        ),
        (
            "TLS to a plain port",
            ConsulOptions {
                address: consul.address().replace("http:", "https:"),
                ..good.clone()
            },
            "no TLS (",
        ),
        (
            "plain to a TLS port",
            ConsulOptions {
                address: consul.tls_address().replace("https:", "http:"),
                ..good.clone()
            },
            "HTTP request to an HTTPS server",
        ),
    ];
    for (what, options, part) in wrong {
        let text = Source::start(options, &["echo"]).until_error().await;
        assert!(text.contains(part), "{what}: {text}");
        println!("{what}: {text}");
    }
}
