//! What commands name (services, subsets, backends), found among the facts or refused.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use super::{super::OperatorError, Desired};
use crate::domain::{
    backend::InstanceId,
    service::ServiceSpec,
    snapshot::{BackendState, ServiceState},
    split::{ActiveSplit, Shares, SplitSource},
    weigh::illness,
};

impl Desired {
    pub(crate) fn state_of(&self, service: &str) -> Result<&Arc<ServiceState>, OperatorError> {
        self.snapshot
            .services
            .get(service)
            .ok_or_else(|| OperatorError::UnknownService {
                name: service.to_owned(),
                known: self.snapshot.services.keys().cloned().collect(),
            })
    }

    pub(crate) fn check_service(&self, service: &str) -> Result<(), OperatorError> {
        self.state_of(service).map(|_| ())
    }

    /// Whether the service exists, has every subset that the shares name, and would keep a backend
    /// to send traffic to.
    pub(crate) fn check_split(&self, service: &str, shares: &Shares) -> Result<(), OperatorError> {
        let state = self.state_of(service)?;
        if let Some(subset) = foreign_subset(&state.spec, shares) {
            return Err(OperatorError::UnknownSubset {
                service: service.to_owned(),
                name: subset.to_owned(),
                known: state.spec.subset_names().into_iter().collect(),
            });
        }
        let takes = |subset: &String| shares.get(subset).is_some_and(|share| share > 0);
        let mut subsets = state.backends.iter().map(|backend| &backend.subset);
        if !state.backends.is_empty() && !subsets.any(|subset| subset.as_ref().is_some_and(takes)) {
            return Err(OperatorError::Refused(format!(
                "not set: no backend of service `{service}` is in a subset that {shares} gives \
                 traffic to; `lb-agent backend list {service}` shows the subsets"
            )));
        }
        Ok(())
    }

    /// Splits that name a subset which the service does not have (any more), each in a sentence.
    /// They are not in force. What a service is made of is not known before its catalog answers.
    pub(crate) fn idle_splits(&self) -> impl Iterator<Item = String> {
        let services = self.snapshot.services.iter();
        let known = services.filter(|(_, service)| !service.pending);
        known.flat_map(|(name, service)| {
            let layers = service.splits.layers().iter();
            layers.filter_map(move |layer| {
                let idle = layer.idle.as_ref()?;
                let shares = &layer.split.shares;
                Some(match layer.split.source {
                    SplitSource::Cli => format!(
                        "service {name}: the split {shares} of the command line is not in force, for {idle} any more; `lb-agent split reset {name}` forgets it"
                    ),
                    source => format!(
                        "service {name}: the split {shares} of {} ({}) is not in force, for {idle}",
                        source.name(),
                        layer.split.origin
                    ),
                })
            })
        })
    }

    pub(crate) fn split_of(&self, service: &str) -> Option<ActiveSplit> {
        self.snapshot
            .services
            .get(service)
            .and_then(|state| state.split.clone())
    }

    /// A backend by its identity or its address.
    pub(crate) fn find_backend(
        &self,
        service: &str,
        backend: &str,
    ) -> Result<InstanceId, OperatorError> {
        let state = self.state_of(service)?;
        let address: Option<SocketAddr> = backend.parse().ok();
        state
            .backends
            .iter()
            .find(|state| *state.id().0 == *backend || Some(state.address()) == address)
            .map(|state| state.id().clone())
            .ok_or_else(|| OperatorError::UnknownBackend {
                service: service.to_owned(),
                name: backend.to_owned(),
            })
    }

    /// Identity and address of a backend that is to be drained. The last one of its address family
    /// that takes new connections is refused, unless it is drained by `force` or others (of a
    /// split's fallback, or of a failover) take over.
    pub(crate) fn find_to_drain(
        &mut self,
        service: &str,
        backend: &str,
        force: bool,
        now: SystemTime,
    ) -> Result<(InstanceId, SocketAddr), OperatorError> {
        let id = self.find_backend(service, backend)?;
        let state = self.state_of(service)?;
        let mut backends = state.backends.iter();
        let unknown = || OperatorError::UnknownBackend {
            service: service.to_owned(),
            name: backend.to_owned(),
        };
        let own = backends.find(|one| *one.id() == id).ok_or_else(unknown)?;
        let address = own.address();
        let is_well = |one: &BackendState| {
            illness(&one.instance.health, &one.observed, one.ejection.as_ref()).is_none()
        };
        // Dead ones that are used for want of others do not take over from a living one.
        let well = is_well(own);
        let takes_of_family = |one: &BackendState| {
            let family = one.address().is_ipv6() == address.is_ipv6();
            one.weight > 0 && family && (is_well(one) || !well)
        };
        if !force
            && takes_of_family(own)
            && let Some(after) = self.state_without(service, &id, now)
            && !after.backends.iter().any(takes_of_family)
        {
            return Err(OperatorError::Refused(format!(
                "not drained: {id} is the last backend of service `{service}` that takes new {} \
                 connections, so the VIP would refuse them; --force drains it all the same",
                match address.is_ipv6() {
                    true => "IPv6",
                    false => "IPv4",
                }
            )));
        }
        Ok((id, address))
    }

    /// Where a backend listens; `None`: it is not listed any more.
    pub(crate) fn address_of(&self, service: &str, id: &InstanceId) -> Option<SocketAddr> {
        let state = self.snapshot.services.get(service)?;
        let mut backends = state.backends.iter();
        Some(backends.find(|one| one.id() == id)?.address())
    }

    /// A backend as above, among the drained ones, which may have vanished since.
    pub(crate) fn find_drained(
        &self,
        service: &str,
        backend: &str,
    ) -> Result<InstanceId, OperatorError> {
        let gone = InstanceId(backend.into());
        if self
            .drains
            .get(service)
            .is_some_and(|drains| drains.contains_key(&gone))
        {
            return Ok(gone);
        }
        let id = self.find_backend(service, backend)?;
        match self
            .drains
            .get(service)
            .is_some_and(|drains| drains.contains_key(&id))
        {
            true => Ok(id),
            false => Err(OperatorError::Refused(format!(
                "backend {backend} of service `{service}` is not drained{}",
                match self.find_taken_out(service, backend) {
                    Ok(_) => {
                        "; it is in maintenance in Consul, which ends there: `consul maint -disable`"
                    }
                    Err(_) => "",
                }
            ))),
        }
    }
}

/// A subset among the shares that the service does not have.
fn foreign_subset<'a>(spec: &ServiceSpec, shares: &'a Shares) -> Option<&'a str> {
    let known = spec.subset_names();
    let mut named = shares.iter().map(|(subset, _)| subset);
    named.find(|subset| !known.contains(*subset))
}
