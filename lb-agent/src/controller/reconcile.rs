//! The kernel's side: a mirror of what it holds, the plan, the steps, and the counters.

mod gone;
mod outcomes;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::entry::{BackendStats, Counter};
use tracing::{debug, error, info, warn};

use super::{BackendCounters, Counters, Names, OperatorError};
use crate::domain::{
    kernel::{Attempts, Census, Kernel, KernelBackend, KernelError, KernelView, Step, VipKey},
    plan::{ServiceIds, plan_beside},
    service::ServiceSpec,
    signal::Signal,
    snapshot::Snapshot,
};

/// How long new backends' next hops may take to resolve before traffic is sent there anyway.
const RESOLVE: Duration = Duration::from_millis(200);
/// How often to look meanwhile.
const RESOLVE_POLL: Duration = Duration::from_millis(2);

/// Censuses after which a backend that none of them found a flow of has none: when it is taken
/// out, one may wait to be read and another may be half done, both without its latest flows.
const PROOF: u64 = 3;

pub(crate) struct Reconciler<K> {
    pub(crate) kernel: K,
    pub(super) view: KernelView,
    pub(super) ids: ServiceIds,
    /// What the kernel was last brought to, if nothing failed on the way.
    settled: Option<Arc<Snapshot>>,
    /// Nothing is left to do of that, not even when flows end.
    at_rest: bool,
    census: Arc<Census>,
    /// By id of a backend taken out: the pass of the latest census at that time.
    taken_out: BTreeMap<u32, u64>,
    /// Totals of backends whose entries have been freed, by service name.
    retired: BTreeMap<String, BackendCounters>,
    /// By backend id: what became of the connections of all censuses.
    attempts: BTreeMap<u32, Attempts>,
    /// What was read last of the services that somebody watches, by name.
    outcomes: BTreeMap<String, outcomes::ByAddress>,
    /// By id of a lost backend: its local clients.
    closed: BTreeMap<u32, gone::Closed>,
    error: Option<String>,
    pub(crate) rebuilds: (Duration, Duration, u64),
    pub(crate) last_apply: Duration,
}

impl<K: Kernel> Reconciler<K> {
    pub(crate) fn adopt(mut kernel: K) -> Result<Self, KernelError> {
        let view = kernel.adopt()?;
        if !view.vips.is_empty() {
            info!(
                vips = view.vips.len(),
                backends = view.backends.len(),
                "adopted what a former agent left"
            );
        }
        Ok(Self {
            kernel,
            view,
            ids: ServiceIds::new(),
            settled: None,
            at_rest: false,
            census: Arc::default(),
            taken_out: BTreeMap::new(),
            retired: BTreeMap::new(),
            attempts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            closed: BTreeMap::new(),
            error: None,
            rebuilds: (Duration::ZERO, Duration::ZERO, 0),
            last_apply: Duration::ZERO,
        })
    }

    /// Whether the kernel sends new flows of a service to some backend.
    pub(crate) fn serves(&self, spec: &ServiceSpec) -> bool {
        let vips = spec.vips.iter();
        let ids: BTreeSet<u32> = vips
            .filter_map(|vip| self.view.vips.get(&VipKey::new(*vip, spec.protocol)))
            .map(|vip| vip.service)
            .collect();
        let mut backends = self.view.backends.values();
        backends.any(|backend| backend.active && ids.contains(&backend.service))
    }

    pub(crate) fn set_census(&mut self, census: Arc<Census>) {
        for (id, found) in &census.attempts {
            if self.view.backends.contains_key(id) {
                self.attempts.entry(*id).or_default().add(found);
            }
        }
        self.census = census;
    }

    /// What the latest census says of connections.
    pub(crate) fn signals(&self) -> Vec<Signal> {
        let services: BTreeMap<u32, &String> =
            self.ids.iter().map(|((name, _), id)| (*id, name)).collect();
        let mut attempts: BTreeMap<(&String, SocketAddr), Attempts> = BTreeMap::new();
        for (id, found) in &self.census.attempts {
            let Some(backend) = self.view.backends.get(id) else {
                continue;
            };
            if let Some(service) = services.get(&backend.service) {
                let key = (*service, backend.address);
                attempts.entry(key).or_default().add(found);
            }
        }
        let signals = attempts.into_iter().map(|((service, backend), found)| {
            Signal::of_connections(service.clone(), backend, &found)
        });
        signals.collect()
    }

    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    /// Why the kernel does not follow at present.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What the kernel holds of a service's backend at this address.
    pub(crate) fn held(&self, service: &str, address: SocketAddr) -> BTreeMap<u32, KernelBackend> {
        let ids: BTreeSet<u32> = [false, true]
            .into_iter()
            .filter_map(|v6| self.ids.get(&(service.to_owned(), v6)).copied())
            .collect();
        let all = self.view.backends.iter();
        all.filter(|(_, held)| held.address == address && ids.contains(&held.service))
            .map(|(id, held)| (*id, *held))
            .collect()
    }

    /// Has the VIPs announced, or no longer.
    pub(crate) fn announce_vips(&mut self, on: bool) -> Result<(), KernelError> {
        self.kernel.announce_vips(on);
        self.kernel.set_filter(&self.view)
    }

    pub(crate) fn refresh_sources(&mut self) {
        match self.kernel.refresh_sources() {
            Ok(0) => {}
            Ok(count) => info!(
                backends = count,
                "the node's routes changed; sources follow"
            ),
            Err(error) => error!(%error, "the sources of backends could not be refreshed"),
        }
    }

    /// Plans and carries out what takes the kernel to `snapshot`. A step that fails ends it for its
    /// service; the mirror knows what was done, and the next call goes on from there.
    pub(crate) async fn bring_to(&mut self, snapshot: &Arc<Snapshot>) {
        let is_settled = |settled: &Arc<Snapshot>| Arc::ptr_eq(settled, snapshot);
        if self.at_rest && self.settled.as_ref().is_some_and(is_settled) {
            return;
        }
        self.at_rest = false;
        let begun = Instant::now();
        let census = self.census.clone();
        let has_flows = |id: u32| {
            let since = self.taken_out.get(&id).copied().unwrap_or(0);
            census.pass < since + PROOF || census.backends.contains_key(&id)
        };
        let settled = self.settled.take();
        let changed = settled.as_ref().map(|former| snapshot.differing(former));
        let is_settled = |name: &str| {
            let changed = changed.as_ref();
            changed.is_some_and(|changed| !changed.contains(name))
        };
        let steps = plan_beside(snapshot, &self.view, &mut self.ids, &has_flows, &is_settled);
        if steps.is_empty() {
            // What is inactive waits for its last flow.
            self.at_rest = self.view.backends.values().all(|backend| backend.active);
            self.error = None;
            self.settled = Some(snapshot.clone());
            return;
        }
        self.resolve(&steps).await;
        match self.carry_out(&steps) {
            Ok(()) => {
                self.error = None;
                self.settled = Some(snapshot.clone());
            }
            Err(error) => {
                error!(%error, "the kernel does not follow; it is tried again");
                self.error = Some(error.to_string());
            }
        }
        self.last_apply = begun.elapsed();
        debug!(steps = steps.len(), took = ?self.last_apply, version = snapshot.version, "applied");
    }

    /// Waits until packets can be sent to new backends, so that no first packet is lost.
    async fn resolve(&self, steps: &[Step]) {
        let addresses: BTreeSet<IpAddr> = steps
            .iter()
            .filter_map(|step| match step {
                Step::PutBackend(_, backend) if backend.active => Some(backend.address.ip()),
                _ => None,
            })
            .collect();
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        if addresses.is_empty() {
            return;
        }
        let begun = Instant::now();
        loop {
            match self.kernel.unresolved(&addresses) {
                Ok(unresolved) if unresolved.is_empty() => return,
                Ok(unresolved) if begun.elapsed() > RESOLVE => {
                    warn!(?unresolved, "no link address of these backends yet");
                    return;
                }
                Ok(_) => tokio::time::sleep(RESOLVE_POLL).await,
                Err(error) => {
                    error!(%error, "next hops could not be asked for");
                    return;
                }
            }
        }
    }

    /// The totals of a backend whose counters are about to be cleared, and its service.
    fn totals(&self, id: u32) -> Result<Option<(String, BackendStats)>, KernelError> {
        let Some(name) = self.service_name_of_backend(id) else {
            return Ok(None);
        };
        Ok(Some((name, self.kernel.backend_stats(id)?)))
    }

    fn service_name_of_backend(&self, id: u32) -> Option<String> {
        let service = self.view.backends.get(&id)?.service;
        self.ids
            .iter()
            .find(|(_, id)| **id == service)
            .map(|((name, _), _)| name.clone())
    }

    /// What the ids of backends stand for.
    pub(crate) fn names(&self) -> Names {
        let services: BTreeMap<u32, &String> =
            self.ids.iter().map(|((name, _), id)| (*id, name)).collect();
        let backends = self.view.backends.iter().filter_map(|(id, backend)| {
            let service = services.get(&backend.service)?;
            Some((*id, ((*service).clone(), backend.address)))
        });
        Names {
            backends: backends.collect(),
        }
    }

    /// Counters of all services or of `only` this one: each backend's are asked of the kernel, and
    /// there may be 100,000 of them.
    pub(crate) fn counters(
        &self,
        snapshot: &Snapshot,
        only: Option<&str>,
    ) -> Result<Counters, OperatorError> {
        let counts = |name: &str| only.is_none_or(|only| only == name);
        let failed = |error: KernelError| OperatorError::Failed(error.to_string());
        let names: BTreeMap<u32, &str> = self
            .ids
            .iter()
            .map(|((name, _), id)| (*id, name.as_str()))
            .collect();
        let mut counters = Counters::default();
        for name in snapshot.services.keys().filter(|name| counts(name)) {
            let retired = self.retired.get(name).copied().unwrap_or_default();
            counters.services.insert(name.clone(), retired);
        }
        let mut by_address = BTreeMap::new();
        for (id, backend) in &self.view.backends {
            let name = names.get(&backend.service).filter(|name| counts(name));
            let Some(name) = name else {
                continue;
            };
            let stats = self.kernel.backend_stats(*id).map_err(failed)?;
            let attempts = self.attempts.get(id).copied().unwrap_or_default();
            let live = self.census.backends.get(id).copied().unwrap_or(0);
            if let Some(total) = counters.services.get_mut(*name) {
                add(total, &stats, live);
                total.attempts.add(&attempts);
            }
            let counters: &mut BackendCounters =
                by_address.entry((*name, backend.address)).or_default();
            add(counters, &stats, live);
            counters.attempts.add(&attempts);
        }
        for (name, service) in snapshot.services.iter().filter(|(name, _)| counts(name)) {
            for backend in &service.backends {
                let key = (name.as_str(), backend.address());
                let value = by_address.get(&key).copied().unwrap_or_default();
                let key = (name.clone(), backend.id().clone(), backend.address());
                counters.backends.insert(key, value);
            }
        }
        Ok(counters)
    }
}

fn add(sum: &mut BackendCounters, stats: &BackendStats, live: u64) {
    let plus = |a: Counter, b: Counter| Counter {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
    };
    sum.inbound = plus(sum.inbound, stats.inbound);
    sum.outbound = plus(sum.outbound, stats.outbound);
    sum.flows += stats.flows;
    sum.live_flows += live;
}
