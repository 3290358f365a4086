//! Active probes: asks every backend again and again, and tells when its health changes.
//!
//! - [`Target`], [`HealthEvent`], [`run`]: what the controller gives and gets.
//! - `scheduler`: which probe begins when; one task, however many backends.
//! - `attempt`: one probe under its timeout. `tcp`, `http`, `grpc`: the kinds. `tls`: under them.
//! - `failure`: the ways a probe can fail. `stats`: how often each result was met.

mod attempt;
mod failure;
mod grpc;
mod http;
mod scheduler;
mod stats;
mod tcp;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

pub use self::stats::ProbeStats;
use crate::domain::{backend::InstanceId, health::Observed, service::ProbeSpec};

/// A backend to probe. Its identity is (service, id, address): another address is another
/// backend, of unknown health; another spec is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Name of the service.
    pub service: String,
    /// Identity within the service.
    pub id: InstanceId,
    /// Where the backend listens; [`ProbeSpec::port`] may divert the probe.
    pub address: SocketAddr,
    /// What to ask, how often, and how many answers decide.
    pub spec: ProbeSpec,
}

impl Target {
    /// Where the probe goes.
    fn probe_address(&self) -> SocketAddr {
        let port = self.spec.port.unwrap_or(self.address.port());
        SocketAddr::new(self.address.ip(), port)
    }
}

/// The observed health of a backend has changed, or whether one that is unhealthy answers.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthEvent {
    /// Name of the service.
    pub service: String,
    /// Identity within the service.
    pub id: InstanceId,
    /// Where the backend listens.
    pub address: SocketAddr,
    /// What it is now.
    pub observed: Observed,
    /// What it was before.
    pub previous: Observed,
    /// Why, in words for people, e.g. `3 probes in a row failed: connection refused`.
    pub reason: String,
    /// Whether the backend answered at all: one that refuses connections does not, one that is
    /// up and says that it is ill does.
    pub answers: bool,
    /// How long the deciding probe took.
    pub took: Duration,
}

/// Probes the latest list of `targets` and sends an event for each change of health, until
/// `shutdown` completes or the other end of either channel is gone. All probes under way end
/// with it.
///
/// A new target starts at [`Observed::Unknown`]. One whose spec changes keeps its health and is
/// probed by the new spec soon; one that vanishes is forgotten, even in the middle of a probe.
/// Of targets with the same identity the first counts.
pub async fn run(
    targets: watch::Receiver<Arc<Vec<Target>>>,
    events: mpsc::Sender<HealthEvent>,
    stats: Arc<ProbeStats>,
    shutdown: impl Future<Output = ()>,
) {
    let configs = Arc::new(tls::TlsConfigs::default());
    let probe = move |target| attempt::probe(target, Arc::clone(&configs));
    scheduler::run(targets, events, stats, probe, shutdown).await;
}
