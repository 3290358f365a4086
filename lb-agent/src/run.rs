//! The composition root: makes every part, wires them with channels, and ends them in order.

mod options;
mod service_manager;
mod sweep;
mod takeover;
mod tasks;

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use lb_common::{flow::Lifetimes, socket::SocketStats};
use tokio::{
    net::TcpListener,
    runtime::Handle as Runtime,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{error, info, warn};

pub(crate) use self::options::consul_options;
use self::{
    options::{datapath_options, registration_prefix},
    tasks::{Ends, Tasks, probe_targets, wait_for_end},
};
use crate::{
    api,
    config::{Config, ConsulConfig, DockerConfig, NatPorts, NewFlows, Token, XdpMode},
    controller::{Channels, Controller, Handle, InterfaceStatus, LocalClientsStatus, Setup},
    datapath::{self, Budget, Datapath, Former, Mode, Options},
    domain::{
        http::steering::ProxyReport, kernel::Census, registration::RegistrarStatus,
        snapshot::Snapshot,
    },
    dtab,
    fragments::{self, FragmentStats},
    metrics, page, probe,
    proxy::{self, Proxy, telemetry::Telemetry},
    registrar,
    source::{
        consul::{self, ConsulOptions},
        consul_agent::AgentRegistry,
        consul_keys::KeyWriter,
    },
    state::{self, StateDir},
    surroundings::{
        consul_addresses, free_port_range, host_name, raise_open_files, too_few_files, vital,
    },
    watch::{WatchStats, channel as watch_channel},
};

/// Name of the thread that the controller works on; of at most 15 bytes (`PR_SET_NAME` of prctl(2)).
const CONTROLLER_THREAD: &std::ffi::CStr = c"controller";

/// Runs the agent by `config`, which was read from `config_path`, until SIGTERM or SIGINT. The
/// programs stay attached; traffic goes on. Programs whose maps are of another schema are replaced
/// if `replace_schema` says so.
///
/// # Errors
///
/// What keeps it from starting: the kernel's refusal, an address in use, another agent.
pub async fn run(config: Config, config_path: &Path, replace_schema: bool) -> anyhow::Result<()> {
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
    let dtab_listener = match &config.dtab {
        Some(dtab) => Some(TcpListener::bind(dtab.listen).await.with_context(|| {
            format!(
                "cannot listen on {} for delegation tables; free it, or set `listen` under [dtab]",
                dtab.listen
            )
        })?),
        None => None,
    };
    let mut problems = Vec::new();
    // Many nodes never have as many connections: nothing that makes this one unhealthy.
    if let Some(warning) = too_few_files(raise_open_files(), config.proxy.bounds.connections) {
        warn!("{warning}");
    }
    let state_dir = StateDir::open(&config.node.state_dir)?;
    let loaded = state_dir.load();
    problems.extend(loaded.problem);

    let options = datapath_options(&config)?;
    // From now on who connects waits for this agent, however long the kernel verifies.
    let keep = proxy::find_held(&config);
    let former = Former::find(&options.bpf_dir)?;
    if let Some(former) = &former {
        anyhow::ensure!(replace_schema, "{}", former.refusal());
        takeover::fill_new_maps(&config, config_path, &loaded.state, &options).await?;
        former.hand_over()?;
    }
    // Verification and calibration block; nothing else runs yet.
    let mut datapath = Datapath::open(&options)?;
    if let Some(former) = former {
        former.remove()?;
        info!("replaced the programs of another schema; the flow tables are new");
    }
    if datapath.flow_slots() != options.flow_slots {
        problems.push(format!(
            "flow_slots is {} but the tables in the kernel have {}; `lb-agent detach` and a start make new ones",
            options.flow_slots,
            datapath.flow_slots()
        ));
    }
    datapath::memory::give_back();
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
    let local_clients = datapath.local_clients().map(|attached| {
        info!(
            cgroup = %attached.path.display(),
            adopted = attached.adopted,
            "local clients are served"
        );
        LocalClientsStatus {
            cgroup: attached.path.clone(),
            adopted: attached.adopted,
            stats: SocketStats::default(),
        }
    });
    let _resolver = datapath.start_resolver().await?;
    let flows = datapath.flows();
    let traffic = datapath.traffic()?;
    let trace = datapath
        .take_trace()
        .context("the trace is in other hands")?;
    let held = match datapath.hold_fragments() {
        Ok(held) => Some(held),
        // They go to the stack then; all else works.
        Err(error) if error.is_denied() => {
            warn!(%error, "fragments that come out of order are not kept: Debian's kernels let only \
                 root listen, unless kernel.perf_event_paranoid is 2 or less");
            None
        }
        Err(error) => return Err(error.into()),
    };

    let (stop, stopped) = watch::channel(false);
    let mut tasks = Tasks {
        set: JoinSet::new(),
        stopped,
    };
    let (commands, command_receiver) = mpsc::channel(64);
    let (snapshots, snapshot_receiver) = watch::channel(Arc::new(Snapshot::default()));
    let (catalog, catalog_receiver) = watch::channel(Arc::default());
    let (topics, topics_receiver) = watch::channel(BTreeSet::new());
    let (health, health_receiver) = mpsc::channel(1024);
    let (census, census_receiver) = watch::channel(Arc::new(Census::default()));
    let (to_save, state_receiver) = watch::channel(loaded.state.clone());
    let imported = loaded.state.imported.clone();
    let (save_problem, save_problem_receiver) = watch::channel(None);
    let (registrar_status, registrar) = watch::channel(RegistrarStatus::default());
    let (saved, saved_receiver) = watch::channel(loaded.state.shifts.clone());
    let (targets, targets_receiver) = watch::channel(Arc::default());
    let handle = Handle::new(commands, snapshot_receiver.clone());
    let told = snapshot_receiver.clone();
    let (proxy_reports, proxy_receiver) = watch::channel(ProxyReport::default());
    let (telemetry, telemetry_writers) = Telemetry::start(&config.proxy)?;
    let proxy_counts = Arc::clone(telemetry.counts());
    let proxy = Proxy::bind(
        config.proxy.clone(),
        config.node.interfaces.clone(),
        keep,
        telemetry,
    )?;

    let probes = Arc::new(probe::ProbeStats::default());
    let vital_consul = consul_addresses(&config).await;
    let setup = Setup {
        config: config.clone(),
        config_path: config_path.to_owned(),
        state: loaded.state,
        problems,
        interfaces,
        local_clients,
        witnesses: vec![probes.clone()],
        vital: Box::new(move || vital(&vital_consul)),
    };
    let channels = Channels {
        commands: command_receiver,
        snapshots,
        catalog: catalog_receiver,
        topics,
        health: health_receiver,
        census: census_receiver,
        state: to_save,
        save_problem: save_problem_receiver,
        registrar,
        proxy: proxy_receiver,
        saved: saved_receiver,
    };
    let controller = Controller::start(datapath, setup, channels).await?;
    // Before anything answers: whoever has an answer of the agent may ask it to end.
    let ends = Ends::listen()?;

    let watch_stats = Arc::new(WatchStats::default());
    let (watch_handle, watching) = watch_channel(trace, watch_stats.clone());
    tasks.spawn("the trace", |shutdown| async move {
        watching.run(shutdown).await;
        Ok(())
    });
    let fragment_stats = Arc::new(FragmentStats::default());
    let (stats, stopped) = (fragment_stats.clone(), tasks.stopped.clone());
    tasks.spawn("the keeping of fragments", |shutdown| async move {
        match held {
            Some(held) => fragments::keep(held, stats, stopped).await,
            None => shutdown.await,
        }
        Ok(())
    });
    let sources = api::Sources {
        controller: handle.clone(),
        watch: watch_handle,
        flows: Arc::new(flows.clone()),
        keys: config
            .consul
            .as_ref()
            .map(|consul| KeyWriter::new(&consul_options(consul)))
            .transpose()?,
    };
    tasks.spawn("the sweep of the flow tables", |_| async {
        Ok(tokio::task::spawn_blocking(move || {
            sweep::keep_swept(&flows, &traffic, &census, &Runtime::current());
        })
        .await?)
    });
    if let Some(consul) = &config.consul {
        let options = consul_options(consul);
        tasks.spawn("the Consul source", |shutdown| async move {
            consul::run(options, topics_receiver, catalog, shutdown)
                .await
                .map_err(anyhow::Error::from)
        });
    }
    if let (Some(docker), Some(consul)) = (config.docker.clone(), &config.consul) {
        let prefix = registration_prefix(&docker)?;
        let registry = AgentRegistry::new(&consul_options(consul))?;
        tasks.spawn("the registrar of containers", |shutdown| async move {
            registrar::run(docker, prefix, registry, registrar_status, shutdown).await;
            Ok(())
        });
    }
    let proxy_channels = proxy::Channels {
        snapshots: snapshot_receiver.clone(),
        reports: proxy_reports,
        signals: {
            let handle = handle.clone();
            Box::new(move |signals| {
                let handle = handle.clone();
                // Ejection can wait; requests cannot.
                tokio::spawn(async move { handle.report(signals).await });
            })
        },
    };
    tasks.spawn("the proxy", |shutdown| async move {
        proxy.run(proxy_channels, shutdown).await;
        Ok(())
    });
    let probe_stats = probes.clone();
    tasks.spawn("the probes", |shutdown| async move {
        probe::run(targets_receiver, health, probe_stats, shutdown).await;
        Ok(())
    });
    tasks.spawn("the list of probes", |shutdown| async move {
        tokio::select! {
            () = shutdown => {}
            () = probe_targets(snapshot_receiver, targets) => {}
        }
        Ok(())
    });
    let state_task = tokio::spawn(state::keep_saved(
        state_dir,
        state_receiver,
        save_problem,
        saved,
        imported,
    ));
    // On a thread of its own: building tables and writing maps takes its time, which probes and
    // answers must not wait for.
    let runtime = tokio::runtime::Handle::current();
    tasks.spawn("the controller", |shutdown| async move {
        let run = move || {
            // As `ps -L` and debuggers show it; that it has none would be no matter.
            let _ = rustix::thread::set_name(CONTROLLER_THREAD);
            runtime.block_on(controller.run(shutdown));
        };
        Ok(tokio::task::spawn_blocking(run).await?)
    });
    if let (Some(listener), Some(dtab)) = (dtab_listener, &config.dtab) {
        let (handle, namespace) = (handle.clone(), dtab.namespace.clone());
        tasks.spawn("the delegation tables", |shutdown| async move {
            dtab::serve(listener, handle, namespace, shutdown).await;
            Ok(())
        });
    }
    let metrics_handle = handle.clone();
    let page = page::router(&config.page, metrics_listener.local_addr()?, handle.clone());
    tasks.spawn("the metrics endpoint", |shutdown| async move {
        let sources = metrics::Sources {
            handle: metrics_handle,
            probes,
            watch: watch_stats,
            fragments: fragment_stats,
            proxy: proxy_counts,
        };
        metrics::serve(metrics_listener, sources, page, shutdown).await;
        Ok(())
    });
    tasks.spawn("the API", |shutdown| async move {
        api::serve(socket, sources, shutdown).await?;
        Ok(())
    });
    // Its sockets listen, the first plan is applied; now the controller answers, too.
    if handle.alive().await.is_ok() {
        info!(socket = %config.node.socket().display(), metrics = %config.metrics.listen, "ready");
        service_manager::ready(&handle.snapshot());
    }
    service_manager::accompany(&mut tasks, told, handle.clone());

    let result = wait_for_end(&mut tasks, &handle, hangup, ends).await;
    service_manager::stopping();
    stop.send_replace(true);
    // Everything that answers requests gets a moment to finish; what hangs is cut off.
    let drained = async { while tasks.set.join_next().await.is_some() {} };
    let patience = Duration::from_secs(5).max(config.proxy.shutdown + Duration::from_secs(1));
    if tokio::time::timeout(patience, drained).await.is_err() {
        warn!("some parts did not stop in time");
    }
    tasks.set.shutdown().await;
    // No request is under way any more.
    telemetry_writers.finish().await;
    // Ends when the controller has dropped its end, after the last state is on disk.
    if let Err(error) = state_task.await {
        error!(%error, "the state could not be saved");
    }
    info!("stopped; the programs stay attached and traffic goes on");
    result
}
