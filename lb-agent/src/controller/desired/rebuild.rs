//! From the facts to the next snapshot: of all services, or of those alone that something touched.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use super::{Desired, ObservedKey, chain::Chain, changes};
use crate::{
    config::Publish,
    domain::{
        backend::{Instance, InstanceId},
        health::Observed,
        http::steering::ProxyReport,
        service::ServiceSpec,
        shift::Steering,
        snapshot::{Drain, ServiceState, Snapshot},
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
        if all {
            let services = &self.snapshot.services;
            let exists = |name: &String| services.contains_key(name);
            self.maintenance.retain(|name, _| exists(name));
        }
        self.note_maintenance(&changed, now);
        true
    }

    /// Looks again which services publish themselves; answers whether they are others than before.
    fn offers_anew(&mut self) -> bool {
        let before = (self.offered.clone(), self.routed.clone());
        self.forget_unwatched();
        self.asks_anew = true;
        let same = |before: &BTreeMap<String, Arc<ServiceSpec>>, now: &BTreeMap<_, _>| {
            let kept = |(name, spec): (&String, &Arc<ServiceSpec>)| {
                let now: Option<&Arc<ServiceSpec>> = now.get(name);
                now.is_some_and(|now| Arc::ptr_eq(now, spec))
            };
            before.len() == now.len() && before.iter().all(kept)
        };
        !same(&before.0, &self.offered) || !same(&before.1, &self.routed)
    }

    /// Whether services may publish themselves.
    pub(super) fn publishes(&self) -> bool {
        !matches!(self.auto_publish, None | Some(Publish::Nobody))
    }

    fn spec(&self, name: &str) -> Option<&Arc<ServiceSpec>> {
        // One that publishes itself gives way to a configured one of its name.
        let configured = self.services.get(name);
        let offered = || self.offered.get(name);
        let routed = || self.routed.get(name);
        configured.or_else(offered).or_else(routed)
    }

    /// The state of a service as things are, and what a person should know of it.
    fn state_anew(
        &mut self,
        spec: &Arc<ServiceSpec>,
        now: SystemTime,
    ) -> (ServiceState, Vec<String>) {
        let name = &spec.name;
        if self.awaits_detail(spec)
            && let Some(former) = self.snapshot.services.get(name)
        {
            let problems = self.consul_problems.get(name);
            return ((**former).clone(), problems.cloned().unwrap_or_default());
        }
        let chain = self.chain(spec, &|instance| observed(&self.observed, spec, instance));
        let observed = |instance: &Instance| observed(&self.observed, spec, instance);
        self.health
            .judge(&chain.spec, &chain.instances, &observed, now);
        let problems = chain.problems.clone();
        (self.weighed(spec, chain, now), problems)
    }

    /// The state of a service as it would be with this backend drained. Nothing is changed.
    pub(crate) fn state_without(
        &mut self,
        service: &str,
        id: &InstanceId,
        now: SystemTime,
    ) -> Option<ServiceState> {
        let spec = self.spec(service)?.clone();
        let drains = self.drains.clone();
        let own = self.drains.entry(service.to_owned()).or_default();
        own.entry(id.clone()).or_insert_with(|| Drain::begun(now));
        let chain = self.chain(&spec, &|one| observed(&self.observed, &spec, one));
        let state = self.weighed(&spec, chain, now);
        self.drains = drains;
        Some(state)
    }

    fn weighed(&self, spec: &Arc<ServiceSpec>, chain: Chain, now: SystemTime) -> ServiceState {
        let name = &spec.name;
        let observed = |instance: &Instance| observed(&self.observed, spec, instance);
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
        state
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
        self.requests.retain(|service, address| {
            let state = snapshot.services.get(service);
            state.is_some_and(|state| {
                let mut backends = state.backends.iter();
                !changed.contains(service) || backends.any(|one| one.address() == address)
            })
        });
        self.observed.retain(|key, _| exists(key));
        self.answers.retain(exists);
    }
}

/// What the probes found out of a backend.
fn observed(
    all: &HashMap<ObservedKey, Observed>,
    spec: &ServiceSpec,
    instance: &Instance,
) -> Observed {
    // What was observed before a reload took the probe away counts no longer.
    if spec.probe.is_none() {
        return Observed::Unknown;
    }
    let key = (spec.name.clone(), instance.id.clone(), instance.address);
    all.get(&key).cloned().unwrap_or(Observed::Unknown)
}
