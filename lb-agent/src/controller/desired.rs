//! The facts that decide what the node should do, and the snapshot made of them.

mod naming;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::naming::foreign_subset;
use crate::{
    config::Config,
    domain::{
        backend::{Instance, InstanceId},
        drain::{Drain, NodeDrain},
        guard::Guard,
        health::{Down, Observed},
        service::{Catalog, ServiceSpec},
        snapshot::{Held, Snapshot},
        split::Shares,
        sync::CatalogState,
        weigh::{Inputs, weigh},
    },
    state::PersistedState,
};

type ObservedKey = (String, InstanceId, SocketAddr);

/// All facts, and the latest snapshot.
pub(crate) struct Desired {
    services: BTreeMap<String, Arc<ServiceSpec>>,
    catalog: Arc<CatalogState>,
    /// By the service's name in Consul.
    guards: BTreeMap<String, Guard>,
    /// The same; what the guards let through when last asked.
    admitted: BTreeMap<String, Vec<(Instance, Option<Held>)>>,
    hold: Duration,
    /// Consul services that the kernel has backends of, but no saved state: an empty listing of
    /// theirs is no more to be believed than any other sudden emptiness. With the end of that,
    /// once one came.
    unremembered: BTreeMap<String, Option<SystemTime>>,
    observed: HashMap<ObservedKey, Observed>,
    /// Splits set on the command line, by service.
    pub(crate) splits: BTreeMap<String, Shares>,
    /// Backends drained by a person, by service.
    pub(crate) drains: BTreeMap<String, BTreeMap<InstanceId, Drain>>,
    /// The node itself, drained by a person.
    pub(crate) node_drain: Option<NodeDrain>,
    snapshot: Arc<Snapshot>,
}

impl Desired {
    pub(crate) fn new(config: &Config, state: &PersistedState) -> Self {
        let guards = state
            .catalog
            .iter()
            .map(|(service, instances)| (service.clone(), Guard::restored(instances.clone())))
            .collect();
        // Until Consul answers, what was in force when the last agent stopped is in force.
        let admitted = state
            .catalog
            .iter()
            .map(|(service, instances)| {
                let instances = instances
                    .iter()
                    .map(|instance| (instance.clone(), None))
                    .collect();
                (service.clone(), instances)
            })
            .collect();
        let mut desired = Self {
            services: BTreeMap::new(),
            catalog: Arc::default(),
            guards,
            admitted,
            hold: config
                .consul
                .as_ref()
                .map_or(Duration::ZERO, |consul| consul.hold),
            unremembered: BTreeMap::new(),
            // Until the first probe says otherwise.
            observed: state
                .down
                .iter()
                .flat_map(|(service, all)| restored(service, all))
                .collect(),
            splits: state.splits.clone(),
            drains: state.drains.clone(),
            node_drain: state.node_drain.clone(),
            snapshot: Arc::default(),
        };
        desired.set_services(&config.services);
        desired
    }

    pub(crate) fn set_services(&mut self, services: &[Arc<ServiceSpec>]) {
        self.services = services
            .iter()
            .map(|spec| (spec.name.clone(), spec.clone()))
            .collect();
        let watched = self.consul_services();
        self.guards.retain(|service, _| watched.contains(service));
        self.admitted.retain(|service, _| watched.contains(service));
        self.unremembered
            .retain(|service, _| watched.contains(service));
    }

    /// Of the services that nothing is known of, notes those that the kernel has backends of.
    pub(crate) fn distrust_emptiness(&mut self, in_kernel: impl Fn(&ServiceSpec) -> bool) {
        let unknown = |service: &&str| !self.admitted.contains_key(*service);
        self.unremembered = self
            .services
            .values()
            .filter(|spec| in_kernel(spec))
            .filter_map(|spec| consul_name(spec).filter(unknown))
            .map(|service| (service.to_owned(), None))
            .collect();
    }

    /// Names that are to be watched in Consul.
    pub(crate) fn consul_services(&self) -> BTreeSet<String> {
        self.services
            .values()
            .filter_map(|spec| consul_name(spec))
            .map(str::to_owned)
            .collect()
    }

    /// Takes in what the source says; answers whether any instance differs.
    pub(crate) fn set_catalog(&mut self, catalog: Arc<CatalogState>) -> bool {
        let changed = self.catalog.services != catalog.services;
        self.catalog = catalog;
        changed
    }

    pub(crate) fn catalog(&self) -> &CatalogState {
        &self.catalog
    }

    pub(crate) fn set_observed(
        &mut self,
        service: String,
        id: InstanceId,
        address: SocketAddr,
        observed: Observed,
    ) {
        self.observed.insert((service, id, address), observed);
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// What the guards let through, to be saved.
    pub(crate) fn admitted(&self) -> BTreeMap<String, Vec<Instance>> {
        self.admitted
            .iter()
            .map(|(service, instances)| {
                (
                    service.clone(),
                    instances
                        .iter()
                        .map(|(instance, _)| instance.clone())
                        .collect(),
                )
            })
            .collect()
    }

    /// Backends that the probes find down, to be saved.
    pub(crate) fn down(&self) -> BTreeMap<String, Vec<Down>> {
        let mut down: BTreeMap<String, Vec<Down>> = BTreeMap::new();
        for (name, service) in &self.snapshot.services {
            for backend in &service.backends {
                if let Observed::Unhealthy { since, reason } = &backend.observed {
                    down.entry(name.clone()).or_default().push(Down {
                        id: backend.id().clone(),
                        address: backend.address(),
                        since: *since,
                        reason: reason.clone(),
                    });
                }
            }
        }
        down
    }

    /// When a hold ends.
    pub(crate) fn next_deadline(&self) -> Option<SystemTime> {
        let guards = self.guards.values().filter_map(Guard::next_deadline);
        let unremembered = self.unremembered.values().flatten().copied();
        guards.chain(unremembered).min()
    }

    /// Makes the snapshot anew; answers whether it differs from the last.
    pub(crate) fn rebuild(&mut self, now: SystemTime) -> bool {
        self.admit(now);
        let mut services = BTreeMap::new();
        for (name, spec) in &self.services {
            let (instances, pending) = self.instances_of(spec);
            let observed = |instance: &Instance| {
                // What was observed before a reload took the probe away counts no longer.
                let key = (name.clone(), instance.id.clone(), instance.address);
                let found = spec.probe.as_ref().and_then(|_| self.observed.get(&key));
                found.cloned().unwrap_or(Observed::Unknown)
            };
            let mut state = weigh(
                spec,
                Inputs {
                    instances,
                    observed: &observed,
                    drains: self.drains.get(name),
                    cli_split: self
                        .splits
                        .get(name)
                        .filter(|shares| foreign_subset(spec, shares).is_none()),
                },
            );
            state.pending = pending;
            // What has not changed stays the same value, so that others can tell by the pointer.
            let state = match self.snapshot.services.get(name) {
                Some(former) if **former == state => former.clone(),
                _ => Arc::new(state),
            };
            services.insert(name.clone(), state);
        }
        let unchanged = services.len() == self.snapshot.services.len()
            && services.iter().all(|(name, state)| {
                self.snapshot
                    .services
                    .get(name)
                    .is_some_and(|former| Arc::ptr_eq(former, state))
            });
        if unchanged && self.snapshot.version > 0 {
            return false;
        }
        self.snapshot = Arc::new(Snapshot {
            version: self.snapshot.version + 1,
            services,
        });
        self.forget_vanished();
        true
    }

    /// Asks the guards what to believe of the catalog.
    fn admit(&mut self, now: SystemTime) {
        for (service, listed) in &self.catalog.services {
            if let Some(until) = self.unremembered.get_mut(service) {
                let latest = now + self.hold;
                let until = until.get_or_insert(latest);
                *until = latest.min(*until);
                if listed.is_empty() && now < *until {
                    continue;
                }
                self.unremembered.remove(service);
            }
            let believes_dead = |instance: &Instance| {
                self.services.values().any(|spec| {
                    consul_name(spec) == Some(service)
                        && matches!(
                            self.observed.get(&(
                                spec.name.clone(),
                                instance.id.clone(),
                                instance.address
                            )),
                            Some(Observed::Unhealthy { .. })
                        )
                })
            };
            let guard = self.guards.entry(service.clone()).or_default();
            let admitted = guard.admit(listed, &believes_dead, now, self.hold);
            let former = self.admitted.insert(service.clone(), admitted);
            let held = |instances: &[(Instance, Option<Held>)]| {
                instances.iter().filter(|(_, held)| held.is_some()).count()
            };
            let (before, after) = (
                former.as_deref().map_or(0, held),
                held(&self.admitted[service]),
            );
            if after > before {
                tracing::warn!(
                    service,
                    held = after,
                    listed = listed.len(),
                    "most backends vanished from the catalog at once; they are kept until their probes fail or the hold ends"
                );
            } else if after < before {
                tracing::info!(service, held = after, "backends are no longer held");
            }
        }
    }

    /// Instances of a service; and whether nothing is known of them yet.
    fn instances_of(&self, spec: &ServiceSpec) -> (Vec<(Instance, Option<Held>)>, bool) {
        match &spec.catalog {
            Catalog::Static(instances) => (
                instances
                    .iter()
                    .map(|instance| (instance.clone(), None))
                    .collect(),
                false,
            ),
            Catalog::Consul { service } => match self.admitted.get(service) {
                Some(instances) => (instances.clone(), false),
                None => (Vec::new(), true),
            },
        }
    }

    /// Drops what is known of backends that are gone.
    fn forget_vanished(&mut self) {
        let snapshot = &self.snapshot;
        self.observed.retain(|(service, id, address), _| {
            snapshot.services.get(service).is_some_and(|state| {
                state
                    .backends
                    .iter()
                    .any(|b| b.id() == id && b.address() == *address)
            })
        });
    }
}

fn consul_name(spec: &ServiceSpec) -> Option<&str> {
    match &spec.catalog {
        Catalog::Consul { service } => Some(service),
        Catalog::Static(_) => None,
    }
}

/// What the last agent found out about a service's backends.
fn restored(service: &str, down: &[Down]) -> Vec<(ObservedKey, Observed)> {
    down.iter()
        .map(|down| {
            let key = (service.to_owned(), down.id.clone(), down.address);
            let observed = Observed::Unhealthy {
                since: down.since,
                reason: down.reason.clone(),
            };
            (key, observed)
        })
        .collect()
}
