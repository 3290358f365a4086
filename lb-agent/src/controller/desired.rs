//! The facts that decide what the node should do, and the snapshot made of them.

mod chain;
mod changes;
mod destinations;
mod detail;
mod due;
mod health;
mod maintenance;
mod naming;
mod offers;
mod origin;
mod publish;
mod rebuild;
mod requests;
mod shifts;
mod touched;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::health::HealthFacts;
use super::OperatorError;
use crate::{
    config::{Config, Publish},
    domain::{
        author::Authors,
        backend::{Instance, InstanceId},
        config_entry::{ConfigEntry, EntryKind},
        drain::NodeDrain,
        fleet::Fleet,
        guard::Guard,
        health::{Down, Observed},
        http::steering::ProxyReport,
        service::{Catalog, ServiceSpec},
        shift::Steering,
        snapshot::{Drain, Snapshot},
        split::Shares,
        sync::{CatalogState, KeyValue, service_key},
        vanished::Believed,
    },
    state::PersistedState,
};
use offers::Offers;
use requests::Requests;
use touched::Touched;

type ObservedKey = (String, InstanceId, SocketAddr);

/// All facts, and the latest snapshot.
pub(crate) struct Desired {
    services: BTreeMap<String, Arc<ServiceSpec>>,
    /// Services that publish themselves in Consul.
    offered: BTreeMap<String, Arc<ServiceSpec>>,
    /// Services that nothing but the routes of others lead to.
    routed: BTreeMap<String, Arc<ServiceSpec>>,
    /// What was read of their listings.
    offers: Offers,
    /// Which may; `None`: there is no Consul.
    auto_publish: Option<Publish>,
    catalog: Arc<CatalogState>,
    /// Configuration entries of Consul, as far as they are believed.
    pub(crate) entries: BTreeMap<EntryKind, Believed<ConfigEntry>>,
    /// The fleet's keys, the same.
    pub(crate) keys: Believed<KeyValue>,
    /// What they say.
    fleet: Fleet,
    /// What a person should know of all that comes from Consul, each a sentence; by service.
    consul_problems: BTreeMap<String, Vec<String>>,
    /// The same of services that publish themselves.
    offer_problems: Vec<String>,
    /// By the service's key ([`service_key`](crate::domain::sync::service_key)).
    guards: BTreeMap<String, Guard>,
    /// The same; the listing that each guard was last asked about.
    judged: BTreeMap<String, Arc<Vec<Instance>>>,
    /// What may be otherwise than in the snapshot.
    touched: Touched,
    /// What Consul is to be asked for may have changed.
    asks_anew: bool,
    hold: Duration,
    /// Consul services that the kernel has backends of, but no saved state: an empty listing of
    /// theirs is no more to be believed than any other sudden emptiness. With the end of that,
    /// once one came.
    unremembered: BTreeMap<String, Option<SystemTime>>,
    observed: HashMap<ObservedKey, Observed>,
    /// Backends that answer their probes, be it with a failure. Nothing is known of them at first.
    answers: HashSet<ObservedKey>,
    /// Splits set on the command line, by service.
    pub(crate) splits: BTreeMap<String, Shares>,
    /// What counts instead where the backends of those are all dead, by service.
    pub(crate) fallbacks: BTreeMap<String, Vec<Shares>>,
    /// Shifts, by service.
    pub(crate) shifts: BTreeMap<String, Steering>,
    /// How often each service's traffic was given back.
    pub(crate) returns: BTreeMap<String, u64>,
    /// Who set the splits and drained the backends.
    pub(crate) authors: Authors,
    /// Backends drained by a person, by service.
    pub(crate) drains: BTreeMap<String, BTreeMap<InstanceId, Drain>>,
    /// Backends in maintenance in Consul, by service.
    pub(crate) maintenance: BTreeMap<String, BTreeMap<InstanceId, Drain>>,
    /// How long what those have left is waited for; `None`: for ever.
    maintenance_deadline: Option<Duration>,
    /// Where the proxy takes connections.
    proxy: ProxyReport,
    health: HealthFacts,
    requests: Requests,
    /// The node itself, drained by a person.
    pub(crate) node_drain: Option<NodeDrain>,
    snapshot: Arc<Snapshot>,
}

impl Desired {
    pub(crate) fn new(config: &Config, state: &PersistedState) -> Self {
        // Until Consul answers, what was in force when the last agent stopped is in force.
        let guards = state
            .catalog
            .iter()
            .map(|(service, instances)| (service.clone(), Guard::restored(instances.clone())))
            .collect();
        let mut desired = Self {
            services: BTreeMap::new(),
            offered: BTreeMap::new(),
            routed: BTreeMap::new(),
            offers: Offers::default(),
            auto_publish: config
                .consul
                .as_ref()
                .map(|consul| consul.auto_publish.clone()),
            catalog: Arc::default(),
            entries: state.entries.clone(),
            fleet: Fleet::read(state.keys.values()),
            keys: state.keys.clone(),
            consul_problems: BTreeMap::new(),
            offer_problems: Vec::new(),
            guards,
            judged: BTreeMap::new(),
            touched: Touched::default(),
            asks_anew: true,
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
            answers: HashSet::new(),
            splits: state.splits.clone(),
            fallbacks: state.fallbacks.clone(),
            shifts: shifts::resumed(&state.shifts),
            returns: BTreeMap::new(),
            authors: state.authors.clone(),
            drains: state.drains.clone(),
            maintenance: state.maintenance.clone(),
            maintenance_deadline: config
                .consul
                .as_ref()
                .and_then(|consul| consul.maintenance_deadline),
            proxy: ProxyReport::default(),
            health: HealthFacts::default(),
            requests: Requests::default(),
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
        self.forget_unwatched();
    }

    /// Drops what is known of services in Consul that nobody takes backends from any more.
    fn forget_unwatched(&mut self) {
        self.find_offers();
        self.find_destinations();
        let watched = self.watched();
        self.guards.retain(|service, _| watched.contains(service));
        self.judged.retain(|service, _| watched.contains(service));
        self.unremembered
            .retain(|service, _| watched.contains(service));
    }

    /// Of the services that nothing is known of, notes those that the kernel has backends of.
    pub(crate) fn distrust_emptiness(&mut self, in_kernel: impl Fn(&ServiceSpec) -> bool) {
        let unknown = |service: &String| !self.guards.contains_key(service);
        self.unremembered = self
            .services
            .values()
            .filter(|spec| in_kernel(spec))
            .filter_map(|spec| consul_key(spec).filter(unknown))
            .map(|service| (service, None))
            .collect();
    }

    /// Takes in what the source says; answers whether any of it differs.
    pub(crate) fn set_catalog(&mut self, catalog: Arc<CatalogState>) -> bool {
        let changed = self.catalog.differs(&catalog);
        if self.catalog.differs_beside_services(&catalog) {
            self.touched.all = true;
        }
        self.catalog = catalog;
        changed
    }

    /// Something else than a listing or a probe's verdict has changed, so that the snapshot is made
    /// anew as a whole the next time.
    pub(crate) fn touch_all(&mut self) {
        self.touched.all = true;
    }

    pub(crate) fn catalog(&self) -> &CatalogState {
        &self.catalog
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// What the guards let through, to be saved.
    pub(crate) fn admitted(&self) -> BTreeMap<String, Arc<Vec<Instance>>> {
        let guards = self.guards.iter();
        guards
            .map(|(service, guard)| (service.clone(), guard.admitted()))
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

    /// Asks the guards what to believe of the catalog; answers with the keys of which that may be
    /// something else than before.
    fn admit(&mut self, now: SystemTime) -> BTreeSet<String> {
        let mut asked = BTreeSet::new();
        // Only of a service that lists less does anybody want to know who uses it.
        let users = std::cell::OnceCell::new();
        let catalog = self.catalog.clone();
        for (service, listed) in &catalog.services {
            if let Some(until) = self.unremembered.get_mut(service) {
                let latest = now + self.hold;
                let until = until.get_or_insert(latest);
                *until = latest.min(*until);
                if listed.is_empty() && now < *until {
                    continue;
                }
                self.unremembered.remove(service);
            }
            let known = self.judged.get(service);
            let is_known = known.is_some_and(|known| Arc::ptr_eq(known, listed));
            let former = self.guards.get(service).map_or(0, Guard::held);
            if is_known && former == 0 {
                continue;
            }
            asked.insert(service.clone());
            let believes_dead = |instance: &Instance| {
                let users = users.get_or_init(|| self.users());
                users.get(service).into_iter().flatten().any(|name| {
                    let key = (name.clone(), instance.id.clone(), instance.address);
                    let observed = self.observed.get(&key);
                    matches!(observed, Some(Observed::Unhealthy { .. }))
                })
            };
            let mut guard = self.guards.get(service).cloned().unwrap_or_default();
            guard.admit(listed, &believes_dead, now, self.hold);
            let held = guard.held();
            self.guards.insert(service.clone(), guard);
            self.judged.insert(service.clone(), listed.clone());
            if held > former {
                tracing::warn!(
                    service,
                    held,
                    listed = listed.len(),
                    "most backends vanished from the catalog at once; they are kept until their probes fail or the hold ends"
                );
            } else if held < former {
                tracing::info!(service, held, "backends are no longer held");
            }
        }
        asked
    }
}

/// What the instances of a service are filed under, if they come from Consul.
fn consul_key(spec: &ServiceSpec) -> Option<String> {
    match &spec.catalog {
        Catalog::Consul {
            service,
            datacenter,
        } => Some(service_key(service, datacenter.as_deref())),
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
