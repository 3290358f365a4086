//! Whether a backend may take new flows, and why not.

use crate::domain::{
    backend::CatalogHealth,
    health::Observed,
    passive::{Ejection, Witness},
    service::ServiceSpec,
    snapshot::BackendState,
    split::Shares,
};

/// Whether a backend may take new flows.
pub(super) enum Standing {
    /// Yes.
    Usable,
    /// Only if too few others can.
    Unhealthy {
        /// Why.
        reason: String,
        /// It is there to answer, as far as is known.
        answers: bool,
    },
    /// No. Why.
    Out(String),
}

pub(super) fn standing(
    spec: &ServiceSpec,
    shares: Option<&Shares>,
    backend: &BackendState,
    answers: bool,
) -> Standing {
    let instance = &backend.instance;
    // The proxy connects to backends itself: of whatever family, and whether there is a VIP or not.
    let same_family = |vip: &std::net::SocketAddr| vip.is_ipv6() == instance.address.is_ipv6();
    if !spec.protocol.is_proxied() && !spec.vips.iter().any(same_family) {
        return Standing::Out("the service has no VIP of its address family".into());
    }
    if let Some(port) = spec
        .kept_port()
        .filter(|port| *port != instance.address.port())
    {
        return Standing::Out(format!(
            "listens on port {}, but {} cannot translate the VIP's port {port}",
            instance.address.port(),
            spec.forwarding.name()
        ));
    }
    if let Some(drain) = &backend.drain {
        return Standing::Out(drain.reason());
    }
    if let CatalogHealth::Maintenance(reason) = &instance.health {
        return Standing::Out(with_detail("in maintenance", reason));
    }
    if instance.weight == 0 {
        return Standing::Out("registered with weight 0".into());
    }
    if let Some(shares) = shares {
        match &backend.subset {
            None => return Standing::Out("belongs to no subset, and a split is in force".into()),
            Some(subset) => match shares.get(subset) {
                None => {
                    return Standing::Out(format!("the split gives subset {subset} no share"));
                }
                Some(0) => {
                    return Standing::Out(format!("the split gives subset {subset} a share of 0"));
                }
                Some(_) => {}
            },
        }
    }
    let ejection = backend.ejection.as_ref();
    let Some(reason) = illness(&instance.health, &backend.observed, ejection) else {
        return Standing::Usable;
    };
    let silent = matches!(backend.observed, Observed::Unhealthy { .. }) && !answers;
    // The flow tables tell of connections that were not accepted, the proxy of requests.
    let refuses = ejection.is_some_and(|ejection| ejection.witness == Witness::Flows);
    Standing::Unhealthy {
        reason,
        answers: !silent && !refuses,
    }
}

/// Why a backend counts as unhealthy; `None`: it does not.
pub fn illness(
    catalog: &CatalogHealth,
    observed: &Observed,
    ejection: Option<&Ejection>,
) -> Option<String> {
    if let Observed::Unhealthy { reason, .. } = observed {
        return Some(with_detail("its probes fail", reason));
    }
    if let CatalogHealth::Critical(detail) = catalog {
        return Some(with_detail("critical in the catalog", detail));
    }
    ejection.map(|ejection| with_detail("ejected for a while", &ejection.reason))
}

/// `what`, and the detail of it if there is any.
pub(in crate::domain) fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() {
        what.into()
    } else {
        format!("{what}: {detail}")
    }
}
