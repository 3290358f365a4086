//! Where a service, or a subset of it, has no usable backend left, others take its traffic.

use std::collections::BTreeSet;

use super::{Chain, Desired, own_target};
use crate::domain::{
    backend::{CatalogHealth, Instance},
    config_entry::{ConfigEntry, EntryKind, Resolver, Target},
    health::Observed,
};

impl Desired {
    /// Subsets that routes of requests lead to, whatever their shares.
    fn routed_subsets(&self, chain: &Chain) -> BTreeSet<String> {
        let spec = &chain.spec;
        if !spec.protocol.is_proxied() {
            return BTreeSet::new();
        }
        let own = spec.http.routes.iter().chain(&*chain.router);
        let own = own.filter(|route| route.to.service.is_none());
        let others = self.services.values().flat_map(|other| &other.http.routes);
        let others = others.filter(|route| route.to.service.as_ref() == Some(&spec.name));
        let name = own_target(spec).map(|own| own.service);
        let entries = self.entries.get(&EntryKind::Router);
        let entries = entries.into_iter().flat_map(|entries| entries.values());
        let routers = entries.filter_map(|(_, entry)| match entry {
            ConfigEntry::Router(routes) => Some(routes),
            _ => None,
        });
        let routers = routers
            .flatten()
            .filter(|route| route.to.service.is_some() && route.to.service == name);
        let of_files = own.chain(others).map(|route| &**route);
        let named = of_files.chain(routers);
        let named = named.filter_map(|route| route.to.subset.as_ref());
        named
            .filter(|subset| spec.subsets.contains_key(*subset))
            .cloned()
            .collect()
    }

    /// Where nobody is usable, others take the traffic.
    pub(super) fn fail_over(
        &self,
        own: &Target,
        resolver: &Resolver,
        observed: &dyn Fn(&Instance) -> Observed,
        chain: &mut Chain,
    ) {
        if resolver.failover.is_empty() {
            return;
        }
        let drains = self.drains.get(&chain.spec.name);
        let usable = |instance: &Instance| {
            let up = !matches!(observed(instance), Observed::Unhealthy { .. });
            let passing = matches!(
                instance.health,
                CatalogHealth::Passing | CatalogHealth::Warning(_)
            );
            let drained = drains.is_some_and(|drains| drains.contains_key(&instance.id));
            up && passing && !drained && instance.weight > 0
        };
        let routed = self.routed_subsets(chain);
        let labels: BTreeSet<Option<String>> = match chain.splits.in_force() {
            // Who takes over from a subset would get a part of what is for all.
            None => {
                let own = routed
                    .iter()
                    .filter(|label| resolver.failover.contains_key(*label));
                chain.notes.extend(own.map(|subset| format!(
                    "the failover of subset {subset} is not followed: nothing splits the traffic, and whoever took over would get a share of all of it"
                )));
                BTreeSet::from([None])
            }
            Some(split) => {
                let served = split.shares.iter().filter(|(_, share)| *share > 0);
                let served = served.map(|(subset, _)| subset.to_owned());
                served.chain(routed).map(Some).collect()
            }
        };
        for label in labels {
            let belongs =
                |instance: &Instance| label.is_none() || chain.spec.subset_of(instance) == label;
            let mut instances = chain.instances.iter().map(|(instance, _)| instance);
            if instances.any(|instance| belongs(instance) && usable(instance)) {
                continue;
            }
            let of_subset = label
                .as_ref()
                .or(own.subset.as_ref())
                .and_then(|label| resolver.failover.get(label));
            let Some(targets) = of_subset.or_else(|| resolver.failover.get("*")) else {
                continue;
            };
            // Another subset of the same takes the share anyway.
            let others = targets.iter().filter(|target| target.key() != own.key());
            let found = others
                .map(|target| (target, self.members(target).unwrap_or_default()))
                .find(|(_, members)| members.iter().any(|(instance, _)| usable(instance)));
            if let Some((target, members)) = found {
                let who = match &label {
                    Some(subset) => format!("subset {subset} has"),
                    None => "it has".to_owned(),
                };
                chain
                    .notes
                    .push(format!("{who} no usable backend, so {target} takes over"));
                let own = chain.instances.iter().map(|(instance, _)| instance);
                let replaced = own.filter(|instance| belongs(instance));
                let replaced: Vec<_> = replaced.map(|instance| instance.id.clone()).collect();
                chain.replaced.extend(replaced);
                chain.borrow(members, label.as_deref(), target);
            }
        }
    }
}
