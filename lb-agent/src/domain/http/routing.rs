//! Which service a request is for, and by which of its routes.
//!
//! First by host and path: `NAME` and `NAME.consul.localhost` of every proxied service, `hosts` of the
//! configuration, tags in Consul. An exact host goes before the longest wildcard, that before any
//! host; of one host the longest path counts. Whoever is configured goes before what tags say, and
//! of those the first by name. Then by the routes of that service: those of the configuration, then
//! those of Consul's service-router; the first that fits counts, and one whose destination is gone
//! keeps its requests: whoever serves them answers 503, no other service does.

mod fits;
mod hosts;
#[cfg(test)]
mod tests;
mod told;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use http::{HeaderMap, Method};

use self::{
    fits::Ready,
    hosts::{Claim, Hosts},
};
pub use self::{fits::whole, told::Considered};
use super::policy::HttpPolicy;
use crate::domain::{
    route::Route,
    service::Catalog,
    snapshot::{ServiceState, Snapshot},
    tag_route::TagRoute,
};

/// What follows the name of a service to make a host of it.
pub const SUFFIX: &str = ".consul.localhost";

/// What routes decide by.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// `Host` or `:authority`, as sent.
    pub host: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What follows `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug)]
pub struct Found<'t> {
    /// The service whose backends take it.
    pub service: &'t Arc<str>,
    /// The subset of it that takes it, whatever the split says.
    pub subset: Option<&'t Arc<str>>,
    /// The service whose host or VIP it came to.
    pub asked: &'t Arc<str>,
    /// How it is treated, where a route of that service fits.
    pub route: Option<&'t Arc<Route>>,
    /// The route in short, for logs and metrics; `default` where there is none.
    pub name: &'t Arc<str>,
    /// Whether there is such a service; if not, the answer is 503.
    pub exists: bool,
}

/// All routes. Immutable; [`RoutingTable::update`] makes the next.
#[derive(Debug, Default)]
pub struct RoutingTable {
    services: HashMap<Arc<str>, Arc<ServiceRoutes>>,
    hosts: Hosts,
    /// Hosts and paths that two services ask for, each a sentence.
    clashes: Vec<String>,
}

/// The routes of one service, made ready, with what they were made of.
#[derive(Debug)]
struct ServiceRoutes {
    name: Arc<str>,
    facts: Facts,
    routes: Vec<ReadyRoute>,
    default: Arc<str>,
}

/// All of a service that the table depends on.
#[derive(Debug)]
struct Facts {
    proxied: bool,
    /// Name in Consul, in its own datacenter.
    consul: Option<String>,
    http: Arc<HttpPolicy>,
    router: Arc<[Arc<Route>]>,
    tags: BTreeSet<TagRoute>,
}

#[derive(Debug)]
struct ReadyRoute {
    route: Arc<Route>,
    ready: Ready,
    name: Arc<str>,
    subset: Option<Arc<str>>,
    /// Found when all services are known.
    to: To,
}

#[derive(Clone, Debug, PartialEq)]
enum To {
    /// The service that is routed.
    Itself,
    /// Another, by its name on this node.
    Other(Arc<str>),
    /// One that this node does not know.
    Unknown(Arc<str>),
}

impl Facts {
    fn of(state: &ServiceState) -> Self {
        let spec = &state.spec;
        Self {
            proxied: spec.protocol.is_proxied(),
            consul: match &spec.catalog {
                Catalog::Consul {
                    service,
                    datacenter: None,
                } => Some(service.clone()),
                _ => None,
            },
            http: spec.http.clone(),
            router: state.router.clone(),
            tags: state.routes.clone(),
        }
    }

    /// Whether the state leads to the same. Pointers are compared first: most are equal.
    fn still_hold(&self, state: &ServiceState) -> bool {
        let http = &state.spec.http;
        let same_policy = Arc::ptr_eq(&self.http, http)
            || (self.http.hosts == http.hosts
                && self.http.routes == http.routes
                && self.http.only_routed == http.only_routed);
        let same_router = Arc::ptr_eq(&self.router, &state.router) || self.router == state.router;
        let consul = match &state.spec.catalog {
            Catalog::Consul {
                service,
                datacenter: None,
            } => Some(service),
            _ => None,
        };
        same_policy
            && same_router
            && self.proxied == state.spec.protocol.is_proxied()
            && self.consul.as_ref() == consul
            && self.tags == state.routes
    }
}

/// Names of services by those that they have in Consul.
type ByConsul<'s> = HashMap<&'s str, &'s str>;

impl RoutingTable {
    /// The table of a snapshot.
    pub fn build(snapshot: &Snapshot) -> Self {
        Self::make(snapshot, None)
    }

    /// The table of the next snapshot: the same one if nothing differs that routes depend on;
    /// otherwise a new one with the routes of those services that are as they were.
    pub fn update(former: &Arc<Self>, snapshot: &Snapshot) -> Arc<Self> {
        let same = |(name, state): (&String, &Arc<ServiceState>)| {
            let known = former.services.get(name.as_str());
            known.is_some_and(|known| known.facts.still_hold(state))
        };
        if former.services.len() == snapshot.services.len() && snapshot.services.iter().all(same) {
            return former.clone();
        }
        Arc::new(Self::make(snapshot, Some(former)))
    }

    fn make(snapshot: &Snapshot, former: Option<&Self>) -> Self {
        let mut by_consul = ByConsul::new();
        for (name, state) in &snapshot.services {
            if let Catalog::Consul {
                service,
                datacenter: None,
            } = &state.spec.catalog
            {
                // Of several, the one of the same name, else the first.
                let one = by_consul.entry(service).or_insert(name);
                if service == name {
                    *one = name;
                }
            }
        }
        let known = |name: &str| snapshot.services.contains_key(name);
        let mut services = HashMap::with_capacity(snapshot.services.len());
        for (name, state) in &snapshot.services {
            let old = former.and_then(|former| former.services.get(name.as_str()));
            let routes = match old {
                Some(old) if old.facts.still_hold(state) && old.leads_there(&by_consul, &known) => {
                    old.clone()
                }
                _ => Arc::new(ServiceRoutes::new(name, state, &by_consul, &known)),
            };
            services.insert(routes.name.clone(), routes);
        }
        let mut table = Self {
            services,
            ..Self::default()
        };
        table.claim_all(snapshot);
        table
    }

    /// Fills the index by host: in the order of who goes before whom.
    fn claim_all(&mut self, snapshot: &Snapshot) {
        let names = snapshot.services.keys();
        let proxied: Vec<Arc<ServiceRoutes>> = names
            .filter_map(|name| self.services.get(name.as_str()))
            .filter(|routes| routes.facts.proxied && !routes.facts.http.only_routed)
            .cloned()
            .collect();
        let host = |name: String| TagRoute {
            host: Some(name),
            path: None,
        };
        for routes in &proxied {
            for name in &routes.facts.http.hosts {
                self.claim(routes, &host(name.to_ascii_lowercase()), false);
            }
        }
        for routes in &proxied {
            let name = routes.name.to_ascii_lowercase();
            self.claim(routes, &host(format!("{name}{SUFFIX}")), false);
            self.claim(routes, &host(name), false);
        }
        for routes in &proxied {
            for route in &routes.facts.tags {
                self.claim(routes, route, true);
            }
        }
    }

    fn claim(&mut self, routes: &ServiceRoutes, route: &TagRoute, by_tag: bool) {
        let claim = Claim {
            service: routes.name.clone(),
            name: route.to_string().into(),
            by_tag,
        };
        if let Err(owner) = self.hosts.claim(route, claim) {
            self.clashes.push(format!(
                "service {} asks for {route}, which is for service {owner}",
                routes.name
            ));
        }
    }

    /// Whom a request of a shared listener is for; `None`: nobody asks for it.
    pub fn find<'t>(&'t self, head: &RequestHead<'_>) -> Option<Found<'t>> {
        let claim = self.hosts.find(head.host, head.path)?;
        let found = self.of_service(&claim.service, head)?;
        Some(match (found.route, claim.by_tag) {
            (None, true) => Found {
                name: &claim.name,
                ..found
            },
            _ => found,
        })
    }

    /// Whom a request is for that came to a VIP of the service; `None`: there is no such service.
    pub fn of_service<'t>(&'t self, name: &str, head: &RequestHead<'_>) -> Option<Found<'t>> {
        let routes = self.services.get(name)?;
        let fitting = routes
            .routes
            .iter()
            .find(|route| route.ready.misfit(head).is_none());
        let Some(route) = fitting else {
            return Some(Found {
                service: &routes.name,
                subset: None,
                asked: &routes.name,
                route: None,
                name: &routes.default,
                exists: true,
            });
        };
        Some(Found {
            service: match &route.to {
                To::Itself => &routes.name,
                To::Other(name) | To::Unknown(name) => name,
            },
            subset: route.subset.as_ref(),
            asked: &routes.name,
            route: Some(&route.route),
            name: &route.name,
            exists: !matches!(route.to, To::Unknown(_)),
        })
    }

    /// Hosts and paths that a second service asks for in vain, each a sentence.
    pub fn clashes(&self) -> &[String] {
        &self.clashes
    }

    /// Hosts and paths that are asked for, and routes of services.
    pub fn size(&self) -> (usize, usize) {
        let routes = self.services.values().map(|one| one.routes.len());
        (self.hosts.len(), routes.sum())
    }
}

impl ServiceRoutes {
    fn new(
        name: &str,
        state: &ServiceState,
        by_consul: &ByConsul<'_>,
        known: &dyn Fn(&str) -> bool,
    ) -> Self {
        let facts = Facts::of(state);
        let configured = facts.http.routes.iter().map(|route| (route, false));
        let router = facts.router.iter().map(|route| (route, true));
        let routes = configured
            .chain(router)
            .map(|(route, of_consul)| ReadyRoute {
                ready: Ready::new(&route.fits),
                name: route.to_string().into(),
                subset: route.to.subset.as_deref().map(Arc::from),
                to: destination(route, of_consul, by_consul, known),
                route: route.clone(),
            });
        Self {
            routes: routes.collect(),
            name: name.into(),
            default: "default".into(),
            facts,
        }
    }

    /// Whether the destinations are still those that were found when the routes were made ready.
    fn leads_there(&self, by_consul: &ByConsul<'_>, known: &dyn Fn(&str) -> bool) -> bool {
        let configured = self.facts.http.routes.len();
        self.routes.iter().enumerate().all(|(place, ready)| {
            ready.to == destination(&ready.route, place >= configured, by_consul, known)
        })
    }
}

/// Consul's entries name services as Consul knows them, the configuration as this node does; either
/// name does where the other means nothing.
fn destination(
    route: &Route,
    of_consul: bool,
    by_consul: &ByConsul<'_>,
    known: &dyn Fn(&str) -> bool,
) -> To {
    let Some(name) = route.to.service.as_deref() else {
        return To::Itself;
    };
    let own = known(name).then_some(name);
    let in_consul = by_consul.get(name).copied();
    let found = match of_consul {
        true => in_consul.or(own),
        false => own.or(in_consul),
    };
    found.map_or_else(|| To::Unknown(name.into()), |name| To::Other(name.into()))
}
