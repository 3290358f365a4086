//! Why a weight is what it is: the facts, who says them, and what the kernel holds at this moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{Controller, OperatorError};
use crate::domain::{
    explain::{Explained, ExplainedBackend, Request, Sources, Subject, factors, treatment},
    http::routing::RoutingTable,
    kernel::{Kernel, VipKey},
    service::Protocol,
};

/// A service that is told of, and why.
type Match = (String, &'static str, String);

impl<K: Kernel> Controller<K> {
    /// Explains what is asked for.
    ///
    /// # Errors
    ///
    /// There is nothing of the kind, or the kernel cannot be read.
    pub(super) fn explain(&self, subject: &Subject) -> Result<Vec<Explained>, OperatorError> {
        let matches = match subject {
            Subject::Service(name) => {
                self.desired.check_service(name)?;
                vec![(name.clone(), "name", String::new())]
            }
            Subject::Address(address, protocol) => self.at(*address, *protocol)?,
            Subject::Request(request) => {
                if let Some(routed) = self.routed(request)? {
                    return Ok(vec![routed]);
                }
                let asking = self.desired.asking_for(request);
                if asking.is_empty() {
                    return Err(OperatorError::NothingThere(format!(
                        "no service asks for {request}: neither a tag in Consul (urlprefix-…, \
                         traefik.http.routers.….rule=…) nor the name of a service fits"
                    )));
                }
                asking
            }
        };
        let explained = matches.into_iter().map(|one| self.explain_service(one));
        explained.collect()
    }

    /// The service that the proxy sends a request to; `None`: to none.
    fn routed(&self, request: &Request) -> Result<Option<Explained>, OperatorError> {
        let table = RoutingTable::build(&self.desired.snapshot());
        let head = request.head();
        let Some((found, (_, claim))) = table.find(&head).zip(table.asked_by(&head)) else {
            return Ok(None);
        };
        let mut because = format!("{request} is for service {} by {claim}", found.asked);
        if found.route.is_some() {
            because.push_str(&format!(", and its route {} fits", found.name));
        }
        if !found.exists {
            let text =
                format!("{because}, but there is no such service here: it is answered with 503");
            return Err(OperatorError::NothingThere(text));
        }
        let service = found.service.to_string();
        let mut explained = self.explain_service((service, "route", because))?;
        explained.considered = table.considered(found.asked, &head);
        let state = self.desired.state_of(&explained.service)?;
        explained.treatment = treatment(state, found.route.map(|route| &**route));
        Ok(Some(explained))
    }

    /// The services with this VIP or backend.
    fn at(
        &self,
        address: SocketAddr,
        protocol: Option<Protocol>,
    ) -> Result<Vec<Match>, OperatorError> {
        let snapshot = self.desired.snapshot();
        let mut matches = Vec::new();
        for (name, state) in &snapshot.services {
            let spec = &state.spec;
            if protocol.is_some_and(|protocol| protocol != spec.protocol) {
                continue;
            }
            if spec.vips.contains(&address) {
                let because = format!("{address} ({}) is its VIP", spec.protocol);
                matches.push((name.clone(), "vip", because));
            }
            let mut backends = state.backends.iter();
            if let Some(backend) = backends.find(|backend| backend.address() == address) {
                let because = format!("{address} is its backend {}", backend.id());
                matches.push((name.clone(), "backend", because));
            }
        }
        if !matches.is_empty() {
            return Ok(matches);
        }
        let of = protocol.map(|protocol| format!(" ({protocol})"));
        Err(OperatorError::NothingThere(format!(
            "{address}{} is neither a VIP nor a backend of any service; `lb-agent service list` and \
             `lb-agent backend list` show those there are",
            of.unwrap_or_default()
        )))
    }

    fn explain_service(&self, (name, matched, because): Match) -> Result<Explained, OperatorError> {
        let state = self.desired.state_of(&name)?;
        let places = &self.setup.config.places;
        let ids: BTreeMap<bool, u32> = [false, true]
            .into_iter()
            .filter_map(|v6| Some((v6, *self.kernel.ids.get(&(name.clone(), v6))?)))
            .collect();
        let services: BTreeSet<u32> = ids.values().copied().collect();
        let known: BTreeMap<(u32, SocketAddr), u32> = self
            .kernel
            .view
            .backends
            .iter()
            .filter(|(_, backend)| services.contains(&backend.service))
            .map(|(id, backend)| ((backend.service, backend.address), *id))
            .collect();
        let spec = &state.spec;
        let vips: Vec<VipKey> = spec
            .vips
            .iter()
            .map(|vip| VipKey::new(*vip, spec.protocol))
            .collect();
        let backend_ids = known.values().copied().collect();
        let held = self.kernel.kernel.held(&vips, &services, &backend_ids);
        let held = held.map_err(|error| OperatorError::Failed(error.to_string()))?;
        let layers: Vec<_> = state
            .splits
            .layers()
            .iter()
            .map(|layer| self.desired.origin_of_split(state, &layer.split, places))
            .collect();
        let in_force = state
            .split
            .as_ref()
            .map(|split| self.desired.origin_of_split(state, split, places));
        let backends = state.backends.iter().map(|backend| {
            let sources = Sources {
                instance: self.desired.origin_of_instance(spec, backend, places),
                split: in_force.clone(),
            };
            let service = ids.get(&backend.address().is_ipv6()).copied();
            let id = service.and_then(|id| known.get(&(id, backend.address())).copied());
            let census = &self.kernel.census().backends;
            ExplainedBackend {
                address: backend.address(),
                factors: factors(state, backend, sources),
                id,
                service,
                flows: id.and_then(|id| census.get(&id).copied()).unwrap_or(0),
            }
        });
        Ok(Explained {
            backends: backends.collect(),
            service: name,
            matched,
            because,
            layers,
            ids: ids.into_values().collect(),
            held,
            considered: Vec::new(),
            treatment: treatment(state, None),
        })
    }
}
