//! The composition root: makes every part, wires them with channels, and ends them in order.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use lb_common::flow::Lifetimes;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{error, info, warn};

use crate::{
    api,
    config::{Config, ConsulConfig, NatPorts, NewFlows, Token, XdpMode},
    controller::{Channels, Controller, Handle, InterfaceStatus, Setup},
    datapath::{Budget, Datapath, FlowTables, Mode, Options},
    domain::{kernel::Census, snapshot::Snapshot},
    metrics, probe,
    source::consul::{self, ConsulOptions},
    state::{self, StateDir},
    surroundings::{consul_addresses, free_port_range, vital},
};

/// Between two passes over the flow tables.
const SWEEP: Duration = Duration::from_secs(5);

/// Runs the agent by `config`, which was read from `config_path`, until SIGTERM or SIGINT. The
/// programs stay attached; traffic goes on.
///
/// # Errors
///
/// What keeps it from starting: the kernel's refusal, an address in use, another agent.
pub async fn run(config: Config, config_path: &Path) -> anyhow::Result<()> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %config_path.display(),
        services = config.services.len(),
        "starting"
    );
    // From the beginning, or a reload that comes too early would end the agent.
    let hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let (socket, _socket_guard) = api::socket::bind(&config.node.socket())?;
    let metrics_listener = TcpListener::bind(config.metrics.listen)
        .await
        .with_context(|| {
            format!(
                "cannot listen on {} for metrics; free it, or set `listen` under [metrics]",
                config.metrics.listen
            )
        })?;
    let mut problems = Vec::new();
    let state_dir = StateDir::open(&config.node.state_dir)?;
    let loaded = state_dir.load();
    problems.extend(loaded.problem);

    let options = datapath_options(&config)?;
    // Verification and calibration block; nothing else runs yet.
    let datapath = Datapath::open(&options)?;
    if datapath.flow_slots() != options.flow_slots {
        problems.push(format!(
            "flow_slots is {} but the tables in the kernel have {}; `lb-agent detach` and a start make new ones",
            options.flow_slots,
            datapath.flow_slots()
        ));
    }
    let interfaces: Vec<InterfaceStatus> = datapath
        .attached()
        .iter()
        .map(|attached| {
            info!(
                interface = attached.name,
                mode = attached.mode,
                adopted = attached.adopted,
                "programs in place"
            );
            InterfaceStatus {
                name: attached.name.clone(),
                mode: attached.mode,
                adopted: attached.adopted,
            }
        })
        .collect();
    let _resolver = datapath.start_resolver().await?;
    let flows = datapath.flows();

    let (stop, stopped) = watch::channel(false);
    let mut tasks = Tasks {
        set: JoinSet::new(),
        stopped,
    };
    let (commands, command_receiver) = mpsc::channel(64);
    let (snapshots, snapshot_receiver) = watch::channel(Arc::new(Snapshot::default()));
    let (catalog, catalog_receiver) = watch::channel(Arc::default());
    let (consul_services, consul_services_receiver) = watch::channel(BTreeSet::new());
    let (health, health_receiver) = mpsc::channel(1024);
    let (census, census_receiver) = watch::channel(Arc::new(Census::default()));
    let (to_save, state_receiver) = watch::channel(loaded.state.clone());
    let (save_problem, save_problem_receiver) = watch::channel(None);
    let (targets, targets_receiver) = watch::channel(Arc::default());
    let handle = Handle::new(commands, snapshot_receiver.clone());

    let vital_consul = consul_addresses(&config).await;
    let setup = Setup {
        config: config.clone(),
        config_path: config_path.to_owned(),
        state: loaded.state,
        problems,
        interfaces,
        vital: Box::new(move || vital(&vital_consul)),
    };
    let channels = Channels {
        commands: command_receiver,
        snapshots,
        catalog: catalog_receiver,
        consul_services,
        health: health_receiver,
        census: census_receiver,
        state: to_save,
        save_problem: save_problem_receiver,
    };
    let controller = Controller::start(datapath, setup, channels).await?;

    tasks.spawn("the sweep of the flow tables", |_| async {
        Ok(tokio::task::spawn_blocking(move || sweep(&flows, &census)).await?)
    });
    if let Some(consul) = &config.consul {
        let options = consul_options(consul);
        tasks.spawn("the Consul source", |shutdown| async move {
            consul::run(options, consul_services_receiver, catalog, shutdown)
                .await
                .map_err(anyhow::Error::from)
        });
    }
    let stats = Arc::new(probe::ProbeStats::default());
    let probe_stats = stats.clone();
    tasks.spawn("the probes", |shutdown| async move {
        probe::run(targets_receiver, health, probe_stats, shutdown).await;
        Ok(())
    });
    tasks.spawn("the list of probes", |shutdown| async move {
        tokio::select! {
            () = shutdown => {}
            () = derive_targets(snapshot_receiver, targets) => {}
        }
        Ok(())
    });
    let state_task = tokio::spawn(state::keep_saved(state_dir, state_receiver, save_problem));
    // On a thread of its own: building tables and writing maps takes its time, which probes and
    // answers must not wait for.
    let runtime = tokio::runtime::Handle::current();
    tasks.spawn("the controller", |shutdown| async move {
        let run = move || runtime.block_on(controller.run(shutdown));
        Ok(tokio::task::spawn_blocking(run).await?)
    });
    let metrics_handle = handle.clone();
    tasks.spawn("the metrics endpoint", |shutdown| async move {
        metrics::serve(metrics_listener, metrics_handle, stats, shutdown).await;
        Ok(())
    });
    let api_handle = handle.clone();
    tasks.spawn("the API", |shutdown| async move {
        api::serve(socket, api_handle, shutdown).await?;
        Ok(())
    });
    info!(socket = %config.node.socket().display(), metrics = %config.metrics.listen, "ready");

    let result = wait_for_end(&mut tasks, &handle, hangup).await;
    stop.send_replace(true);
    // Everything that answers requests gets a moment to finish; what hangs is cut off.
    let drained = async { while tasks.set.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), drained)
        .await
        .is_err()
    {
        warn!("some parts did not stop in time");
    }
    tasks.set.shutdown().await;
    // Ends when the controller has dropped its end, after the last state is on disk.
    if let Err(error) = state_task.await {
        error!(%error, "the state could not be saved");
    }
    info!("stopped; the programs stay attached and traffic goes on");
    result
}

/// The agent's tasks, all of which end with `stopped`.
struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    stopped: watch::Receiver<bool>,
}

impl Tasks {
    fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let mut stopped = self.stopped.clone();
        let shutdown: Shutdown = Box::pin(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        let future = task(shutdown);
        self.set.spawn(async move { (name, future.await) });
    }
}

type Shutdown = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits for a signal to stop, reloading on SIGHUP meanwhile; or for a part that ends by itself,
/// which none should.
async fn wait_for_end(
    tasks: &mut Tasks,
    handle: &Handle,
    mut hangup: Signal,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                info!("SIGTERM received");
                return Ok(());
            }
            _ = interrupt.recv() => {
                info!("SIGINT received");
                return Ok(());
            }
            _ = hangup.recv() => {
                let handle = handle.clone();
                // The controller logs how it went; a signal to stop need not wait for it.
                tokio::spawn(async move { handle.reload().await });
            }
            Some(ended) = tasks.set.join_next() => {
                let (name, result) = ended.context("a part of the agent failed")?;
                result.with_context(|| format!("{name} failed"))?;
                bail!("{name} ended unexpectedly");
            }
        }
    }
}

/// How long an unanswered flow is safe from a flood: a round trip to nearly anywhere.
const GRACE: Duration = Duration::from_millis(200);

fn datapath_options(config: &Config) -> anyhow::Result<Options> {
    let ports = match config.node.nat_ports {
        NatPorts::Range { first, last } => (first, last),
        NatPorts::Auto => free_port_range()?,
    };
    info!(
        first = ports.0,
        last = ports.1,
        "ports for translated flows"
    );
    Ok(Options {
        bpf_dir: config.node.bpf_dir.clone(),
        interfaces: config.node.interfaces.clone(),
        mode: match config.node.xdp_mode {
            XdpMode::Auto => Mode::Auto,
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
            XdpMode::Off => Mode::Off,
        },
        tc_filters: false,
        flow_slots: config.node.flow_slots,
        ports,
        lifetimes: Lifetimes::DEFAULT_SECONDS,
        grace: GRACE,
        budget: match config.node.new_flows {
            NewFlows::Auto => Budget::Auto,
            NewFlows::Unlimited => Budget::Unlimited,
            NewFlows::PerSecond(flows) => Budget::PerSecond(flows),
        },
    })
}

fn consul_options(config: &ConsulConfig) -> ConsulOptions {
    let (token, token_file) = match &config.token {
        Token::None => (None, None),
        Token::Inline(token) => (Some(token.clone()), None),
        Token::File(path) => (None, Some(path.clone())),
    };
    ConsulOptions {
        address: config.address.clone(),
        token,
        token_file,
        ca_cert: config.ca_cert.clone(),
        client_cert: config
            .client_identity
            .as_ref()
            .map(|identity| identity.cert.clone()),
        client_key: config
            .client_identity
            .as_ref()
            .map(|identity| identity.key.clone()),
        tls_server_name: config.tls_server_name.clone(),
        datacenter: config.datacenter.clone(),
        wait: config.wait,
    }
}

/// Counts and sweeps the flow tables, as long as anybody wants to know. Blocks.
fn sweep(flows: &FlowTables, census: &watch::Sender<Arc<Census>>) {
    let mut pass = 0;
    loop {
        match flows.sweep() {
            Ok(found) => {
                pass += 1;
                if census.send(Arc::new(Census { pass, ..found })).is_err() {
                    return;
                }
            }
            Err(error) => error!(%error, "the flow tables could not be swept"),
        }
        let steps = 50;
        for _ in 0..steps {
            std::thread::sleep(SWEEP / steps);
            if census.is_closed() {
                return;
            }
        }
    }
}

/// Derives from each snapshot what is to be probed.
async fn derive_targets(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    targets: watch::Sender<Arc<Vec<probe::Target>>>,
) {
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let list: Vec<probe::Target> = snapshot
            .services
            .values()
            .filter_map(|service| Some((service, service.spec.probe.as_ref()?)))
            .flat_map(|(service, spec)| {
                service.backends.iter().map(move |backend| probe::Target {
                    service: service.spec.name.clone(),
                    id: backend.id().clone(),
                    address: backend.address(),
                    spec: spec.clone(),
                })
            })
            .collect();
        targets.send_if_modified(|current| {
            let changed = **current != list;
            if changed {
                *current = Arc::new(list);
            }
            changed
        });
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}
