//! The desired state: one immutable value that everything else is derived from.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use super::{
    backend::{CatalogHealth, Instance, InstanceId},
    health::Observed,
    passive::Ejection,
    precedence::SplitStack,
    route::Route,
    service::ServiceSpec,
    shift::ShiftState,
    split::ActiveSplit,
    tag_route::TagRoute,
};

pub use super::drain::Drain;

/// Everything the node should do, at one version.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up with every change.
    pub version: u64,
    /// By name.
    pub services: BTreeMap<String, Arc<ServiceState>>,
}

impl Snapshot {
    /// Names of the services that are not the same value in both, or in one of them only.
    pub fn differing<'a>(&'a self, former: &'a Self) -> HashSet<&'a str> {
        let is_same = |name: &String, state: &Arc<ServiceState>, other: &Self| {
            let other = other.services.get(name);
            other.is_some_and(|other| Arc::ptr_eq(other, state))
        };
        let own = self.services.iter();
        let own = own.filter(|(name, state)| !is_same(name, state, former));
        let gone = former.services.keys();
        let gone = gone.filter(|name| !self.services.contains_key(*name));
        own.map(|(name, _)| name)
            .chain(gone)
            .map(String::as_str)
            .collect()
    }
}

/// A service with its backends and the weight of each.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceState {
    /// As configured.
    pub spec: Arc<ServiceSpec>,
    /// All known backends, by identity.
    pub backends: Vec<BackendState>,
    /// The split in force.
    pub split: Option<ActiveSplit>,
    /// Everything that was said of its split, in force or not.
    pub splits: SplitStack,
    /// A shift between its subsets, and how it goes.
    pub shift: Option<ShiftState>,
    /// Too few backends are healthy ([`super::service::HealthPolicy::panic`]), so all are used:
    /// better a try than to bury the few under everybody's traffic, or a certain refusal.
    pub panic: bool,
    /// Its catalog has never answered: what the kernel holds of it is left alone.
    pub pending: bool,
    /// What Consul's configuration entries make of it, each a sentence.
    pub notes: Vec<String>,
    /// Requests that its tags ask for, of the proxy.
    pub routes: BTreeSet<TagRoute>,
    /// Where the proxy takes the connections to its VIPs: on those among these itself, and for the
    /// others of each family at one more address of the node. Empty: nowhere. `None`: the proxy has
    /// not told yet, and what the kernel holds is left alone.
    pub steering: Option<BTreeSet<SocketAddr>>,
    /// Routes of its requests that Consul's service-router has, in their order.
    pub router: Arc<[Arc<Route>]>,
}

impl ServiceState {
    /// Whether the proxy listens on this VIP itself, so that nothing is to be steered.
    pub fn is_listened_on(&self, vip: &SocketAddr) -> bool {
        let mut steering = self.steering.iter().flatten();
        steering.any(|to| to == vip)
    }
}

/// A backend, the factors of its weight, and the product.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendState {
    /// As its catalog lists it.
    pub instance: Instance,
    /// The subset it belongs to.
    pub subset: Option<String>,
    /// The agent's own probes.
    pub observed: Observed,
    /// Out for a while by what traffic tells of it.
    pub ejection: Option<Ejection>,
    /// Parts of [`super::ramp::STEPS`] of its share that it takes while it starts slowly.
    pub ramp: Option<u32>,
    /// A person drains it.
    pub drain: Option<Drain>,
    /// Gone from the catalog, but not believed yet.
    pub held: Option<Held>,
    /// Weight in the Maglev table, relative to the service's other backends; 0 takes no new
    /// flows.
    pub weight: u32,
    /// Why the weight is what it is, in one sentence; backends that have it alike share it.
    pub reason: Arc<str>,
}

impl BackendState {
    /// Identity within the service.
    pub fn id(&self) -> &InstanceId {
        &self.instance.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.instance.address
    }

    /// It is unhealthy, and no person is taking it out: whoever drains a backend lets its
    /// connections end by themselves, whatever its checks say meanwhile.
    pub fn is_dead(&self) -> bool {
        let drains =
            self.drain.is_some() || matches!(self.instance.health, CatalogHealth::Maintenance(_));
        let unhealthy = matches!(self.observed, Observed::Unhealthy { .. })
            || matches!(self.instance.health, CatalogHealth::Critical(_));
        unhealthy && !drains
    }
}

/// Why a backend that its catalog no longer lists is still used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When it vanished.
    pub since: SystemTime,
    /// When it is let go at the latest.
    pub until: SystemTime,
}
