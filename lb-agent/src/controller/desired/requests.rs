//! What became of requests by backend, as the proxy tells, for the gates.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use super::Desired;
use crate::domain::{
    gate::{Outcomes, Timed},
    passive::{Tally, Witness},
};

/// Totals by the backend's address.
pub(crate) type OfBackends = HashMap<SocketAddr, Outcomes>;

/// The same by service.
#[derive(Debug, Default)]
pub(super) struct Requests(HashMap<String, OfBackends>);

impl Requests {
    /// Adds what was told of a backend, if it was of requests.
    pub(super) fn note(&mut self, service: &str, backend: SocketAddr, tally: &Tally, timed: Timed) {
        if tally.witness != Witness::Proxy {
            return;
        }
        let seen = Outcomes {
            begun: tally.succeeded + tally.failed,
            failed: tally.failed,
            requests: timed,
            ..Outcomes::default()
        };
        let of_service = self.0.entry(service.to_owned()).or_default();
        let total = of_service.entry(backend).or_default();
        *total = total.plus(seen);
    }

    /// Drops what is known of backends that are none any more.
    pub(super) fn retain(&mut self, exists: impl Fn(&str, SocketAddr) -> bool) {
        for (service, backends) in &mut self.0 {
            backends.retain(|backend, _| exists(service, *backend));
        }
        self.0.retain(|_, backends| !backends.is_empty());
    }
}

impl Desired {
    /// The requests of the services whose splits somebody watches.
    pub(crate) fn watched_requests(&self) -> BTreeMap<String, OfBackends> {
        let watched = self.shifts.keys();
        watched
            .filter_map(|service| Some((service.clone(), self.requests.0.get(service)?.clone())))
            .collect()
    }
}
