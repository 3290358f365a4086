//! The way to the route that fits, for people: which were tried before it, and why they did not.

use super::{RequestHead, RoutingTable, fits::Told};

/// A route of the service that a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// In short.
    pub route: String,
    /// Consul's service-router has it; the configuration otherwise.
    pub of_consul: bool,
    /// Why it does not fit, in words; `None`: it does.
    pub misfit: Option<String>,
}

impl RoutingTable {
    /// By what a request comes to the service, as in `web.example/admin*`.
    pub fn asked_by(&self, head: &RequestHead<'_>) -> Option<(&str, &str)> {
        let claim = self.hosts.find(head.host, head.path)?;
        Some((&claim.service, &claim.name))
    }

    /// The routes of the service in their order, up to and with the one that fits.
    pub fn considered(&self, service: &str, head: &RequestHead<'_>) -> Vec<Considered> {
        let Some(routes) = self.services.get(service) else {
            return Vec::new();
        };
        let configured = routes.facts.http.routes.len();
        let mut all = Vec::new();
        for (place, one) in routes.routes.iter().enumerate() {
            let misfit = one.ready.misfit(head);
            all.push(Considered {
                route: one.name.to_string(),
                of_consul: place >= configured,
                misfit: misfit.map(|misfit| Told(misfit, &one.route.fits).to_string()),
            });
            if misfit.is_none() {
                break;
            }
        }
        all
    }
}
