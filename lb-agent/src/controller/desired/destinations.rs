//! Services in Consul that the routes of a service-router lead to, and that nobody has configured or
//! published here: they are watched and served as others are, with their own splitter and resolver,
//! but no host and no VIP leads to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Desired, chain::own_target};
use crate::domain::{
    config_entry::{ConfigEntry, EntryKind},
    offer,
    service::{Protocol, ServiceSpec},
};

impl Desired {
    /// Finds them.
    pub(super) fn find_destinations(&mut self) {
        let former = std::mem::take(&mut self.routed);
        let routers = self.entries.get(&EntryKind::Router);
        let routers = routers.into_iter().flat_map(|entries| entries.values());
        let mut leading: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, entry) in routers {
            let ConfigEntry::Router(routes) = entry else {
                continue;
            };
            let others = routes
                .iter()
                .filter_map(|route| route.to.service.as_deref());
            let others: BTreeSet<&str> = others.filter(|other| other != name).collect();
            if !others.is_empty() {
                leading.insert(name, others);
            }
        }
        // Without Consul nobody would tell of their backends.
        if leading.is_empty() || self.auto_publish.is_none() {
            return;
        }
        let mut known = BTreeSet::new();
        let mut asking: Vec<(&ServiceSpec, &str)> = Vec::new();
        for spec in self.services.values().chain(self.offered.values()) {
            known.insert(spec.name.clone());
            let Some(own) = own_target(spec) else {
                continue;
            };
            if let Some((name, _)) = leading.get_key_value(own.service.as_str())
                && spec.protocol.is_proxied()
            {
                asking.push((spec, name));
            }
            if own.datacenter.is_none() {
                known.insert(own.service);
            }
        }
        let (mut routed, mut problems) = (BTreeMap::new(), Vec::new());
        for (spec, router) in asking {
            for other in &leading[router] {
                if known.contains(*other) || routed.contains_key(*other) {
                    continue;
                }
                let spoken = match (self.spoken(other), spec.protocol) {
                    (None, Protocol::Grpc) => Some("grpc"),
                    (spoken, _) => spoken,
                };
                match offer::destination(other, spoken, router) {
                    Ok(made) => {
                        // What has not changed stays the same value.
                        let made = match former.get(*other) {
                            Some(known) if **known == made => known.clone(),
                            _ => Arc::new(made),
                        };
                        routed.insert((*other).to_owned(), made);
                    }
                    Err(problem) => problems.push(problem),
                }
            }
        }
        problems.sort();
        problems.dedup();
        self.routed = routed;
        self.offer_problems.extend(problems);
    }
}
