//! The proxy of requests: HTTP/1.1, HTTP/2 and gRPC.
//!
//! Each of its threads has a runtime, listening sockets, an [`engine`] and connections to backends
//! of its own, so that a request stays on the thread that read it. What the threads share is
//! compiled from each snapshot. Sockets for VIPs come and go with the services.

mod deferred;
pub mod engine;
pub mod front;
mod gather;
pub mod telemetry;

#[cfg(test)]
mod tests;

use std::{cell::LazyCell, collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use self::{
    engine::Shared,
    front::{
        OwnAddresses, Pool,
        holder::{self, Keep, Key},
    },
    telemetry::Telemetry,
};
use crate::{
    config::{Config, ProxyConfig},
    domain::{
        http::steering::ProxyReport, service::ServiceSpec, signal::Signal, snapshot::Snapshot,
    },
};

/// Headers for which hyper needs no memory of its own, which is what it allows by itself.
const HEADERS: usize = 100;

/// How often failed listeners are tried again, and signals told.
const TICK: Duration = Duration::from_secs(1);

/// How long a former agent's sockets wait for their service to be known.
const CLAIM: Duration = Duration::from_secs(60);

/// The proxy before it runs: its shared listeners are bound.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    interfaces: Vec<String>,
    shared: Arc<Shared>,
    pool: Pool,
}

/// Where the proxy meets the rest of the agent.
pub struct Channels {
    /// Every new snapshot.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where its VIPs are taken.
    pub reports: watch::Sender<ProxyReport>,
    /// What requests tell of backends.
    pub signals: Box<dyn Fn(Vec<Signal>) + Send>,
}

/// The listening sockets of a former agent. While this is there they are held however long that
/// takes, so an agent that starts takes it first.
pub fn find_held(config: &Config) -> Keep {
    Keep::find(config.node.held_sockets(), holder::as_a_process)
}

impl Proxy {
    /// Binds the shared listeners. `interfaces`: those that packets for VIPs arrive on, whose
    /// addresses take what is steered here. `keep`: what a former agent listened on, where these will
    /// be held, too.
    ///
    /// # Errors
    ///
    /// A listener that cannot be bound, by its address.
    pub fn bind(
        config: ProxyConfig,
        interfaces: Vec<String>,
        keep: Keep,
        telemetry: Telemetry,
    ) -> anyhow::Result<Self> {
        let threads = config.count_threads();
        let shared = Shared::new(telemetry, threads, config.bounds.headers);
        let mut pool = Pool::new(threads, Arc::clone(&shared), &config, keep);
        for listener in &config.listeners {
            pool.share(listener)?;
        }
        pool.forget(|key| key.service.is_none());
        Ok(Self {
            config,
            interfaces,
            shared,
            pool,
        })
    }

    /// Serves until `shutdown` completes, and ends what is under way within its time.
    pub async fn run(mut self, mut channels: Channels, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let claimed = Instant::now() + CLAIM;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                changed = channels.snapshots.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let snapshot = channels.snapshots.borrow_and_update().clone();
                    self.follow(&snapshot, &channels.reports);
                }
                _ = tick.tick() => {
                    self.shared.telemetry().counts().keep_open();
                    if Instant::now() > claimed {
                        self.pool.forget(|_| true);
                    }
                    self.pool.look();
                    let signals = self.shared.signals();
                    if !signals.is_empty() {
                        (channels.signals)(signals);
                    }
                    if self.pool.refresh_certificates()
                        || self.pool.problems().next().is_some()
                        || !channels.reports.borrow().problems.is_empty()
                    {
                        let snapshot = channels.snapshots.borrow().clone();
                        self.follow(&snapshot, &channels.reports);
                    }
                }
            }
        }
        self.pool.stop(self.config.shutdown).await;
    }

    /// Serves by the snapshot, and opens and closes the sockets of its VIPs.
    fn follow(&mut self, snapshot: &Snapshot, reports: &watch::Sender<ProxyReport>) {
        self.shared.update(snapshot);
        let mut report = ProxyReport::default();
        let mut wanted: BTreeSet<Key> = BTreeSet::new();
        // Asked for once, and not before a service makes it matter.
        let own = LazyCell::new(|| front::own_addresses(&self.interfaces));
        let services = snapshot.services.iter();
        for (name, service) in services.filter(|(_, state)| state.spec.protocol.is_proxied()) {
            let addresses = addresses(&service.spec, &own, &mut report.problems);
            let mut steering = BTreeSet::new();
            for address in addresses {
                let key = Key {
                    service: Some(Arc::from(name.as_str())),
                    address,
                };
                match self.pool.ensure(&key) {
                    Ok(bound) => {
                        steering.insert(bound);
                    }
                    Err(error) => report.problems.push(format!("service {name}: {error:#}")),
                }
                wanted.insert(key);
            }
            report.steering.insert(name.clone(), steering);
        }
        self.pool.close_but(&wanted);
        self.pool.begin();
        // Of other services it may not be known yet that they are the proxy's.
        self.pool.forget(|key| {
            let service = key.service.as_deref();
            service.is_some_and(|name| report.steering.contains_key(name))
        });
        report.problems.extend(self.pool.problems());
        reports.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }
}

/// Where the proxy listens for the VIPs of a service: on those that are the node's own, and for each
/// family that has others on an address of the node, at any port (0), where the kernel sends all
/// VIPs of the family.
fn addresses(
    spec: &ServiceSpec,
    own: &OwnAddresses,
    problems: &mut Vec<String>,
) -> BTreeSet<SocketAddr> {
    let vips = spec.vips.iter().copied();
    let (local, foreign): (Vec<_>, Vec<_>) = vips.partition(|vip| own.has(vip.ip()));
    let mut addresses = BTreeSet::from_iter(local);
    for v6 in [false, true] {
        let Some(vip) = foreign.iter().find(|vip| vip.is_ipv6() == v6) else {
            continue;
        };
        match own.first(v6) {
            Some(address) => {
                addresses.insert(SocketAddr::new(address, 0));
            }
            None => problems.push(format!(
                "service {}: no interface has an address of {} to take requests for {vip}",
                spec.name,
                if v6 { "IPv6" } else { "IPv4" },
            )),
        }
    }
    addresses
}
