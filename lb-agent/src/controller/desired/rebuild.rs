//! From the facts to the next snapshot: of all services, or of those alone that something touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use super::{Desired, ObservedKey, changes};
use crate::{
    config::Publish,
    domain::{
        backend::Instance,
        health::Observed,
        http::steering::ProxyReport,
        service::ServiceSpec,
        shift::Steering,
        snapshot::{ServiceState, Snapshot},
        weigh::{Inputs, weigh},
    },
};

impl Desired {
    /// Makes the snapshot anew, of all services or of those that something touched; answers whether
    /// it differs from the last.
    pub(crate) fn rebuild(&mut self, now: SystemTime) -> bool {
        self.believe(now);
        let keys = self.admit(now);
        let touched = std::mem::take(&mut self.touched);
        let looked = !keys.is_empty() && self.publishes();
        let offers_anew = looked && self.offers_anew();
        let all = touched.all || self.snapshot.version == 0 || offers_anew;
        let names = if all {
            if !looked {
                self.forget_unwatched();
            }
            self.asks_anew = true;
            self.all().map(|spec| spec.name.clone()).collect()
        } else {
            let mut names = touched.services;
            if !keys.is_empty() {
                let users = self.users();
                names.extend(
                    keys.iter()
                        .filter_map(|key| users.get(key))
                        .flatten()
                        .cloned(),
                );
            }
            // How a shift goes is part of its service's state, and changes with time.
            names.extend(self.shifts.keys().cloned());
            names.retain(|name| self.snapshot.services.contains_key(name));
            names
        };
        let mut services = match all {
            true => BTreeMap::new(),
            false => self.snapshot.services.clone(),
        };
        let mut changed = BTreeSet::new();
        for name in names {
            let Some(spec) = self.spec(&name).cloned() else {
                continue;
            };
            let (state, problems) = self.state_anew(&spec, now);
            match problems.is_empty() {
                true => self.consul_problems.remove(&name),
                false => self.consul_problems.insert(name.clone(), problems),
            };
            // What has not changed stays the same value, so that others can tell by the pointer.
            let state = match self.snapshot.services.get(&name) {
                Some(former) if **former == state => former.clone(),
                former => {
                    if let Some(former) = former {
                        changes::record_all(&mut self.health.history, former, &state, now);
                    }
                    changed.insert(name.clone());
                    Arc::new(state)
                }
            };
            services.insert(name, state);
        }
        if all {
            self.consul_problems
                .retain(|name, _| services.contains_key(name));
        }
        if changed.is_empty()
            && services.len() == self.snapshot.services.len()
            && self.snapshot.version > 0
        {
            return false;
        }
        if all {
            self.health.forget_but(&services);
        }
        self.snapshot = Arc::new(Snapshot {
            version: self.snapshot.version + 1,
            services,
        });
        self.forget_vanished(&changed);
        true
    }

    /// Looks again which services publish themselves; answers whether they are others than before.
    fn offers_anew(&mut self) -> bool {
        let before = self.offered.clone();
        self.forget_unwatched();
        self.asks_anew = true;
        let same = |(name, spec): (&String, &Arc<ServiceSpec>)| {
            let now = self.offered.get(name);
            now.is_some_and(|now| Arc::ptr_eq(now, spec))
        };
        before.len() != self.offered.len() || !before.iter().all(same)
    }

    /// Whether services may publish themselves.
    pub(super) fn publishes(&self) -> bool {
        !matches!(self.auto_publish, None | Some(Publish::Nobody))
    }

    fn spec(&self, name: &str) -> Option<&Arc<ServiceSpec>> {
        // One that publishes itself gives way to a configured one of its name.
        let configured = self.services.get(name);
        configured.or_else(|| self.offered.get(name))
    }

    /// The state of a service as things are, and what a person should know of it.
    fn state_anew(
        &mut self,
        spec: &Arc<ServiceSpec>,
        now: SystemTime,
    ) -> (ServiceState, Vec<String>) {
        let name = &spec.name;
        let observed = |instance: &Instance| {
            // What was observed before a reload took the probe away counts no longer.
            if spec.probe.is_none() {
                return Observed::Unknown;
            }
            let key = (name.clone(), instance.id.clone(), instance.address);
            let found = self.observed.get(&key);
            found.cloned().unwrap_or(Observed::Unknown)
        };
        let chain = self.chain(spec, &observed);
        self.health
            .judge(&chain.spec, &chain.instances, &observed, now);
        let mut state = weigh(
            &chain.spec,
            Inputs {
                instances: chain.instances,
                observed: &observed,
                answers: &|instance| {
                    let key = (name.clone(), instance.id.clone(), instance.address);
                    self.answers.contains(&key)
                },
                ejected: &|instance| self.health.ejection(name, instance),
                ramp: &|instance| self.health.ramp(spec, instance, now),
                replaced: chain.replaced,
                drains: self.drains.get(name),
                splits: chain.splits,
                shift: self.shifts.get(name).map(Steering::state),
            },
        );
        state.pending = chain.pending;
        state.notes = chain.notes;
        state.routes = chain.routes;
        state.steering = self.proxy.steering.get(name).cloned();
        state.router = chain.router;
        (state, chain.problems)
    }

    /// Takes in where the proxy takes connections.
    pub(crate) fn set_proxy(&mut self, report: ProxyReport) {
        let former = std::mem::replace(&mut self.proxy, report);
        let names = former.steering.keys().chain(self.proxy.steering.keys());
        let changed =
            names.filter(|name| former.steering.get(*name) != self.proxy.steering.get(*name));
        self.touched.services.extend(changed.cloned());
    }

    /// Drops what is known of backends that are gone from these services, and of services that are.
    fn forget_vanished(&mut self, changed: &BTreeSet<String>) {
        let snapshot = &self.snapshot;
        let exists = |(service, id, address): &ObservedKey| {
            let state = snapshot.services.get(service);
            state.is_some_and(|state| {
                !changed.contains(service)
                    || state
                        .backends
                        .iter()
                        .any(|b| b.id() == id && b.address() == *address)
            })
        };
        self.observed.retain(|key, _| exists(key));
        self.answers.retain(exists);
    }
}
