//! How the proxy treats requests.

use super::proto;
use crate::domain::{
    explain::{Treatment, treatment as of_service},
    snapshot::ServiceState,
};

/// Of a service, whatever the route; `None`: it is not the proxy's.
pub(in crate::api) fn requests(state: &ServiceState) -> Option<proto::Requests> {
    let spec = &state.spec;
    if !spec.protocol.is_proxied() {
        return None;
    }
    let own = spec.http.routes.iter().map(|route| (route, false));
    let of_consul = state.router.iter().map(|route| (route, true));
    let routes = own.chain(of_consul);
    Some(proto::Requests {
        hosts: spec.http.hosts.iter().cloned().collect(),
        routes: routes
            .map(|(one, of_consul)| route(&one.to_string(), of_consul, None))
            .collect(),
        treatment: treatment(&of_service(state, None)),
    })
}

pub(in crate::api) fn route(
    route: &str,
    of_consul: bool,
    misfit: Option<String>,
) -> proto::ConsideredRoute {
    proto::ConsideredRoute {
        route: route.into(),
        source: if of_consul {
            "service-router"
        } else {
            "config"
        }
        .into(),
        misfit,
    }
}

pub(in crate::api) fn treatment(facts: &[Treatment]) -> Vec<proto::Treatment> {
    facts
        .iter()
        .map(|fact| proto::Treatment {
            name: fact.name.into(),
            value: fact.value.clone(),
            source: fact.source.clone(),
        })
        .collect()
}
