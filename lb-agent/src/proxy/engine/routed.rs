//! What of a route concerns the tries of a request.

use std::{borrow::Cow, rc::Rc, sync::Arc};

use http::{StatusCode, uri::PathAndQuery};

use super::{
    Arrival, Engine,
    answer::Refusal,
    tally::Tally,
    view::{Held, Service},
};
use crate::domain::{
    http::{exchange::Outcome, policy::Timeouts, retry::Rules, routing::RequestHead},
    route::Route,
};

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) service: Rc<Held>,
    /// The service that was asked for, where its route leads to another: who may not ask it gets nothing
    /// of the other by that way.
    pub(super) asked: Option<Arc<Service>>,
    pub(super) subset: Option<Arc<str>>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) tally: Rc<Tally>,
}

impl Engine {
    /// The service that a request is for, and by which route.
    pub(super) fn route(
        &self,
        head: &RequestHead<'_>,
        arrival: &Arrival,
    ) -> Result<Routed, Refusal> {
        let view = self.shared.view.load();
        let found = match &arrival.service {
            Some(service) => view.routing.of_service(service, head),
            None => view.routing.find(head),
        };
        let found = found.ok_or_else(|| {
            let reason = "no service is known by this host and path";
            Refusal::new(StatusCode::NOT_FOUND, Outcome::NoRoute, reason)
        })?;
        let service = view.services.get(found.service).filter(|_| found.exists);
        let service = service.ok_or_else(|| {
            let reason = format!("service {} is not there", found.service);
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::NoBackend, reason)
        })?;
        let asked = (found.asked != found.service)
            .then(|| view.services.get(found.asked).cloned())
            .flatten();
        let counts = self.shared.telemetry.counts();
        let place = self.tallies.of(counts, view.version, service, found.name);
        Ok(Routed {
            tally: place.tally,
            service: place.service,
            asked,
            subset: found.subset.cloned(),
            route: found.route.cloned(),
        })
    }
}

impl Routed {
    /// What is tried again, and how often. A route that names conditions names all of them.
    pub(super) fn rules(&self) -> (Cow<'_, Rules>, u32) {
        let own = &self.service.rules;
        let to = self.route.as_ref().map(|route| &route.to);
        let retries = to.and_then(|to| to.retries);
        let retries = retries.unwrap_or(self.service.policy.retry.retries);
        let told = to.filter(|to| to.retry_on_connect_failure || !to.retry_on_status.is_empty());
        let rules = told.map_or(Cow::Borrowed(own), |to| {
            Cow::Owned(Rules {
                failures: to.retry_on_connect_failure,
                status: to.retry_on_status.clone(),
                grpc: own.grpc.clone(),
            })
        });
        (rules, retries)
    }

    /// How long things may take.
    pub(super) fn timeouts(&self) -> Timeouts {
        let own = &self.service.policy.timeouts;
        match &self.route {
            Some(route) => route.to.timeouts(own),
            None => own.clone(),
        }
    }

    /// The path for the backend.
    pub(super) fn path(&self, path: &PathAndQuery) -> PathAndQuery {
        let rewritten = self
            .route
            .as_ref()
            .and_then(|route| route.rewritten(path.as_str()));
        let rewritten = rewritten.and_then(|text| PathAndQuery::try_from(text).ok());
        rewritten.unwrap_or_else(|| path.clone())
    }
}
