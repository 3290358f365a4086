//! Backends that are taken out by maintenance in Consul: since when, and until when they are waited
//! for. A person's drain of the same backend goes before.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use super::{Desired, OperatorError};
use crate::domain::{
    backend::{CatalogHealth, InstanceId},
    drain::Drain,
};

/// Who drains what is in maintenance, as people are told.
const BY: &str = "Consul";

impl Desired {
    /// Notes who of these services is in maintenance. Who has left the catalog since stays noted:
    /// the connections may still be there.
    pub(super) fn note_maintenance(&mut self, changed: &BTreeSet<String>, now: SystemTime) {
        let snapshot = self.snapshot.clone();
        for name in changed {
            let Some(state) = snapshot.services.get(name) else {
                self.maintenance.remove(name);
                continue;
            };
            for backend in &state.backends {
                match &backend.instance.health {
                    CatalogHealth::Maintenance(_) => {
                        let noted = self.maintenance.entry(name.clone()).or_default();
                        let drain = noted.entry(backend.id().clone()).or_insert_with(|| Drain {
                            deadline: self.maintenance_deadline.map(|span| now + span),
                            by: Some(BY.into()),
                            ..Drain::begun(now)
                        });
                        drain.address = Some(backend.address());
                    }
                    _ => {
                        if let Some(noted) = self.maintenance.get_mut(name) {
                            noted.remove(backend.id());
                        }
                    }
                }
            }
        }
        self.maintenance.retain(|_, noted| !noted.is_empty());
    }

    /// Forgets who has left the catalog and has nothing left.
    pub(crate) fn forget_maintained(&mut self, has_left: impl Fn(&str, &Drain) -> bool) {
        let mut maintenance = std::mem::take(&mut self.maintenance);
        for (service, noted) in &mut maintenance {
            noted.retain(|id, drain| {
                self.address_of(service, id).is_some() || !has_left(service, drain)
            });
        }
        maintenance.retain(|_, noted| !noted.is_empty());
        self.maintenance = maintenance;
    }

    /// Everybody who is taken out, by whomever.
    pub(crate) fn taken_out(&self) -> impl Iterator<Item = (&String, &InstanceId, &Drain)> {
        let drained = |service: &String, id: &InstanceId| {
            let all = self.drains.get(service);
            all.is_some_and(|all| all.contains_key(id))
        };
        let maintained = each(&self.maintenance);
        let maintained = maintained.filter(move |(service, id, _)| !drained(service, id));
        each(&self.drains).chain(maintained)
    }

    /// The same of one backend, named by id or address.
    pub(crate) fn find_taken_out(
        &self,
        service: &str,
        backend: &str,
    ) -> Result<(InstanceId, &Drain), OperatorError> {
        let noted = |id: &InstanceId| {
            let all = [&self.drains, &self.maintenance].into_iter();
            all.filter_map(|all| all.get(service)?.get(id)).next()
        };
        let named = InstanceId(backend.into());
        if let Some(drain) = noted(&named) {
            return Ok((named, drain));
        }
        let id = self.find_backend(service, backend)?;
        match noted(&id) {
            Some(drain) => Ok((id, drain)),
            None => Err(OperatorError::Refused(format!(
                "backend {backend} of service `{service}` is not drained, and not in maintenance"
            ))),
        }
    }

    /// Notes that what was left of one at its deadline was cut.
    pub(crate) fn set_cut(&mut self, service: &str, id: &InstanceId, flows: u64) {
        let all = [&mut self.drains, &mut self.maintenance].into_iter();
        let mut found = all.filter_map(|all| all.get_mut(service)?.get_mut(id));
        if let Some(drain) = found.next() {
            drain.cut = Some(flows);
        }
    }
}

fn each(
    all: &BTreeMap<String, BTreeMap<InstanceId, Drain>>,
) -> impl Iterator<Item = (&String, &InstanceId, &Drain)> {
    let all = all.iter();
    all.flat_map(|(service, all)| all.iter().map(move |(id, drain)| (service, id, drain)))
}
