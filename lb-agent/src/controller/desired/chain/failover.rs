//! Where a service, or a subset of it, has no usable backend left, others take its traffic.

use super::{Chain, Desired};
use crate::domain::{
    backend::{CatalogHealth, Instance},
    config_entry::{Resolver, Target},
    health::Observed,
};

impl Desired {
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
        let labels: Vec<Option<String>> = match chain.splits.in_force() {
            None => vec![None],
            Some(split) => {
                let served = split.shares.iter().filter(|(_, share)| *share > 0);
                served.map(|(subset, _)| Some(subset.to_owned())).collect()
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
                chain.borrow(members, label.as_deref(), target);
            }
        }
    }
}
