//! Of which services in Consul the details are asked for, and what counts until they are there.

use std::collections::BTreeSet;

use super::Desired;
use crate::domain::{config_entry::Target, service::ServiceSpec, sync::Topic};

impl Desired {
    /// The questions for all instances that backends may be taken from: in detail where a filter
    /// asks for it, whoever's it is.
    pub(super) fn instance_topics(&self) -> BTreeSet<Topic> {
        let mut targets: Vec<(Target, bool)> = Vec::new();
        for spec in self.all() {
            let own = spec.needs_detail();
            let all = self.targets(spec).into_iter();
            targets.extend(all.map(|target| {
                let detail = own || self.chooses_by_detail(&target);
                (target, detail)
            }));
        }
        let detailed: BTreeSet<String> = targets
            .iter()
            .filter(|(_, detail)| *detail)
            .map(|(target, _)| target.key())
            .collect();
        targets
            .into_iter()
            .map(|(target, _)| Topic::Instances {
                detail: detailed.contains(&target.key()),
                service: target.service,
                datacenter: target.datacenter,
            })
            .collect()
    }

    /// Whether a filter of the service asks for details that are still on their way: it would find
    /// nobody, and take the traffic from everybody.
    pub(super) fn awaits_detail(&self, spec: &ServiceSpec) -> bool {
        let own = spec.needs_detail();
        self.targets(spec)
            .iter()
            .any(|target| (own || self.chooses_by_detail(target)) && self.lacks_detail(target))
    }

    fn chooses_by_detail(&self, target: &Target) -> bool {
        let resolver = self.resolver_of(target);
        resolver.is_some_and(|resolver| resolver.needs_detail())
    }

    fn lacks_detail(&self, target: &Target) -> bool {
        let key = target.key();
        let lacks = |mut all: std::slice::Iter<'_, crate::domain::backend::Instance>| {
            all.len() > 0 && all.all(|instance| instance.detail.is_none())
        };
        match self.catalog.services.get(&key) {
            Some(listed) => lacks(listed.iter()),
            // Known from before, and asked for anew.
            None => self
                .guards
                .get(&key)
                .is_some_and(|guard| lacks(guard.admitted().iter())),
        }
    }
}
