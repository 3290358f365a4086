//! The agent's parts as tasks, what ends them, and what one of them derives for another.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tracing::info;

use super::service_manager;
use crate::{controller::Handle, domain::snapshot::Snapshot, probe};

/// The agent's tasks, all of which end with `stopped`.
pub(super) struct Tasks {
    pub(super) set: JoinSet<(&'static str, anyhow::Result<()>)>,
    pub(super) stopped: watch::Receiver<bool>,
}

impl Tasks {
    pub(super) fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(Shutdown) -> F)
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

pub(super) type Shutdown = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Signals by which the agent is asked to end.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    /// From now on they are waited for. Before, each ends the process at once.
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
        })
    }
}

/// Waits for a signal to stop, reloading on SIGHUP meanwhile; or for a part that ends by itself,
/// which none should.
pub(super) async fn wait_for_end(
    tasks: &mut Tasks,
    handle: &Handle,
    mut hangup: Signal,
    mut ends: Ends,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            _ = ends.terminate.recv() => {
                info!("SIGTERM received");
                return Ok(());
            }
            _ = ends.interrupt.recv() => {
                info!("SIGINT received");
                return Ok(());
            }
            _ = hangup.recv() => {
                let handle = handle.clone();
                service_manager::reloading();
                // The controller logs how it went; a signal to stop need not wait for it.
                tokio::spawn(async move {
                    let _ = handle.reload().await;
                    service_manager::reloaded();
                });
            }
            Some(ended) = tasks.set.join_next() => {
                let (name, result) = ended.context("a part of the agent failed")?;
                result.with_context(|| format!("{name} failed"))?;
                bail!("{name} ended unexpectedly");
            }
        }
    }
}

/// Derives from each snapshot what is to be probed.
pub(super) async fn probe_targets(
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
