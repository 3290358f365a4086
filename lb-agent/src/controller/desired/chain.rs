//! From a service as configured to what Consul's entries make of it: redirect, subsets, shares,
//! failover.

mod failover;
mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Desired;
use crate::domain::{
    backend::{Instance, InstanceId},
    config_entry::{ConfigEntry, EntryKind, Leg, Resolver, Target},
    fleet,
    guard::Guard,
    health::Observed,
    precedence::SplitStack,
    route::Route,
    service::{Catalog, ServiceSpec, SubsetRule},
    snapshot::Held,
    split::{ActiveSplit, Shares, SplitSource},
    sync::service_key,
    tag_route::{self, TagRoute},
};

/// Redirects that are followed one after the other.
const LONGEST: usize = 8;

type Instances = Vec<(Instance, Option<Held>)>;

/// What becomes of a service.
pub(super) struct Chain {
    /// As configured, with the subsets that Consul adds.
    pub(super) spec: Arc<ServiceSpec>,
    /// Those in use; the subset of some is set.
    pub(super) instances: Instances,
    /// Those that others have taken over from.
    pub(super) replaced: BTreeSet<InstanceId>,
    /// Nothing is known of them yet.
    pub(super) pending: bool,
    /// The splits that Consul says.
    said: Vec<ActiveSplit>,
    /// All that is said of its split, by whomever.
    pub(super) splits: SplitStack,
    /// What was made of the service, each a sentence.
    pub(super) notes: Vec<String>,
    /// Requests that its tags ask for.
    pub(super) routes: BTreeSet<TagRoute>,
    /// Routes of its requests.
    pub(super) router: Arc<[Arc<Route>]>,
    /// What cannot be made of it.
    pub(super) problems: Vec<String>,
}

impl Target {
    /// What its instances are filed under.
    pub(super) fn key(&self) -> String {
        service_key(&self.service, self.datacenter.as_deref())
    }
}

impl Desired {
    fn entry(&self, kind: EntryKind, service: &str) -> Option<&ConfigEntry> {
        self.entries.get(&kind)?.values().get(service)
    }

    fn resolver(&self, service: &str) -> Option<&Resolver> {
        match self.entry(EntryKind::Resolver, service)? {
            ConfigEntry::Resolver(resolver) => Some(resolver),
            _ => None,
        }
    }

    /// The resolver of a target; those of other datacenters are not known here.
    pub(super) fn resolver_of(&self, target: &Target) -> Option<&Resolver> {
        match target.datacenter {
            None => self.resolver(&target.service),
            Some(_) => None,
        }
    }

    fn legs(&self, service: &str) -> &[Leg] {
        match self.entry(EntryKind::Splitter, service) {
            Some(ConfigEntry::Splitter(legs)) => legs,
            _ => &[],
        }
    }

    /// Follows redirects; `None`: they lead round in a circle.
    fn resolve(&self, mut target: Target) -> Option<Target> {
        for _ in 0..LONGEST {
            let resolver = self.resolver_of(&target);
            let Some(redirect) = resolver.and_then(|resolver| resolver.redirect.as_ref()) else {
                return Some(target);
            };
            target = Target {
                service: redirect.service.clone(),
                subset: redirect.subset.clone().or(target.subset),
                datacenter: redirect.datacenter.clone(),
            };
        }
        None
    }

    /// Every service in Consul that the backends of one may be taken from.
    pub(super) fn targets(&self, spec: &ServiceSpec) -> Vec<Target> {
        let Some(own) = own_target(spec) else {
            return Vec::new();
        };
        let mut targets = Vec::new();
        if own.datacenter.is_none() {
            let others = self.legs(&own.service).iter();
            targets.extend(others.filter_map(Leg::target));
        }
        let resolved = self.resolve(own);
        if let Some(resolver) = resolved.as_ref().and_then(|own| self.resolver_of(own)) {
            targets.extend(resolver.failover.values().flatten().cloned());
        }
        let mut targets: Vec<Target> = targets
            .into_iter()
            .filter_map(|target| self.resolve(target))
            .chain(resolved)
            .collect();
        targets.sort_by_key(Target::key);
        targets.dedup_by_key(|target| target.key());
        targets
    }

    /// The instances of a target; `None`: not known yet.
    fn members(&self, target: &Target) -> Option<Instances> {
        let target = self.resolve(target.clone())?;
        let mut instances = in_use(self.guards.get(&target.key())?);
        let resolver = self.resolver_of(&target);
        let default = || resolver.and_then(|resolver| resolver.default_subset.clone());
        if let Some(subset) = target.subset.clone().or_else(default) {
            let rule = resolver.and_then(|resolver| resolver.subsets.get(&subset));
            let rule = rule.map(|rule| rule.rule()).unwrap_or_default();
            instances.retain(|(instance, _)| rule.matches(instance));
        }
        Some(instances)
    }

    /// What becomes of a service as things are.
    pub(super) fn chain(
        &self,
        spec: &Arc<ServiceSpec>,
        observed: &dyn Fn(&Instance) -> Observed,
    ) -> Chain {
        let mut chain = Chain {
            spec: spec.clone(),
            instances: Vec::new(),
            replaced: BTreeSet::new(),
            pending: false,
            said: Vec::new(),
            splits: SplitStack::default(),
            notes: Vec::new(),
            routes: BTreeSet::new(),
            router: Arc::default(),
            problems: Vec::new(),
        };
        let mut failover = None;
        match (&spec.catalog, own_target(spec)) {
            (_, Some(own)) => failover = self.follow(own, &mut chain),
            (Catalog::Static(instances), None) => {
                let instances = instances.iter();
                chain.instances = instances.map(|one| (one.clone(), None)).collect();
            }
            (Catalog::Consul { .. }, None) => {}
        }
        if let Some(shares) = self.fleet.splits.get(&spec.name) {
            let origin = format!("key {}", fleet::split_key(&spec.name));
            chain.offer(shares.clone(), SplitSource::ConsulKv, origin);
        }
        let said = std::mem::take(&mut chain.said);
        chain.splits = self.stack(&chain.spec, said);
        if let Some((own, resolver)) = failover {
            self.fail_over(&own, resolver, observed, &mut chain);
        }
        chain
    }

    /// Takes in redirect, subsets and shares. Answers with where the service leads, and the
    /// resolver there.
    fn follow(&self, own: Target, chain: &mut Chain) -> Option<(Target, &Resolver)> {
        let name = chain.spec.name.clone();
        let Some(target) = self.resolve(own.clone()) else {
            let text = format!("service {name}: service-resolver entries redirect it in a circle");
            chain.problems.push(text);
            return None;
        };
        if target != own {
            chain
                .notes
                .push(format!("service-resolver redirects it to {target}"));
        }
        let guard = self.guards.get(&target.key());
        let Some(guard) = guard.filter(|_| !self.awaits_detail(&chain.spec)) else {
            chain.pending = true;
            return None;
        };
        chain.instances = in_use(guard);
        chain.take_tags(guard);
        let resolver = self.resolver_of(&target);
        self.take_requests(&own.service, chain);
        if let Some(resolver) = resolver {
            self.take_subsets(resolver, &target, chain);
        }
        if own.datacenter.is_none() && !self.legs(&own.service).is_empty() {
            self.take_legs(&own.service, resolver, chain);
        }
        resolver.map(|resolver| (target, resolver))
    }

    fn take_subsets(&self, resolver: &Resolver, target: &Target, chain: &mut Chain) {
        let service = &target.service;
        let spec = Arc::make_mut(&mut chain.spec);
        for (name, subset) in &resolver.subsets {
            if let Err(reason) = &subset.filter {
                let text = format!("subset {name} of {service} in Consul has no members: {reason}");
                chain.problems.push(text);
            }
            // What the file says of a subset goes before.
            let subsets = &mut spec.subsets;
            subsets.entry(name.clone()).or_insert_with(|| subset.rule());
        }
        if let Some(timeout) = resolver.connect_timeout {
            chain.take_patience(timeout);
        }
        chain.take_treatment(resolver);
        chain.tell_unfollowed(resolver, service);
        if let Some(only) = &target.subset {
            let rule = resolver.subsets.get(only).map(|subset| subset.rule());
            let rule = rule.unwrap_or_default();
            chain
                .instances
                .retain(|(instance, _)| rule.matches(instance));
        }
        if let Some(default) = &resolver.default_subset
            && target.subset.is_none()
        {
            let shares = BTreeMap::from([(default.clone(), 1)]);
            match Shares::new(shares) {
                Ok(shares) if chain.spec.subsets.contains_key(default) => {
                    let origin = format!("default subset of {service}");
                    chain.offer(shares, SplitSource::ServiceResolver, origin);
                }
                _ => chain.problems.push(format!(
                    "the default subset {default} of {service} in Consul is not one of its subsets"
                )),
            }
        }
    }

    fn take_legs(&self, service: &str, resolver: Option<&Resolver>, chain: &mut Chain) {
        let mut shares: BTreeMap<String, u32> = BTreeMap::new();
        let default = resolver.and_then(|resolver| resolver.default_subset.clone());
        if chain.spec.protocol.is_proxied() {
            let ignored = self.legs(service).iter().map(|leg| &leg.ignored[..]);
            chain.tell_ignored(EntryKind::Splitter, service, "split", ignored);
        }
        for leg in self.legs(service) {
            let label = match (leg.target(), leg.subset.clone().or(default.clone())) {
                (Some(target), _) => {
                    let label = match &target.subset {
                        Some(subset) => format!("{}.{subset}", target.service),
                        None => target.service.clone(),
                    };
                    let members = self.members(&target).unwrap_or_default();
                    chain.borrow(members, Some(&label), &target);
                    label
                }
                (None, Some(subset)) if chain.spec.subsets.contains_key(&subset) => subset,
                (None, Some(subset)) => {
                    chain.problems.push(format!(
                        "the service-splitter of {service} in Consul names the subset {subset}, which no resolver has"
                    ));
                    continue;
                }
                // Who is in no subset takes the service's own share.
                (None, None) => {
                    let spec = &chain.spec;
                    let rest = chain.instances.iter_mut().map(|(instance, _)| instance);
                    for instance in rest.filter(|instance| spec.subset_of(instance).is_none()) {
                        instance.subset = Some(service.to_owned());
                    }
                    service.to_owned()
                }
            };
            if !chain.spec.subsets.contains_key(&label) {
                let subsets = &mut Arc::make_mut(&mut chain.spec).subsets;
                subsets.insert(label.clone(), SubsetRule::default());
            }
            *shares.entry(label).or_default() += leg.share;
        }
        match Shares::new(shares) {
            Ok(shares) => {
                let origin = format!("entry of {service}");
                chain.offer(shares, SplitSource::ServiceSplitter, origin);
            }
            Err(error) => chain.problems.push(format!(
                "the service-splitter of {service} in Consul is not in force: {error}"
            )),
        }
    }
}

impl Chain {
    /// Takes in what Consul says of the split.
    fn offer(&mut self, shares: Shares, source: SplitSource, origin: String) {
        self.said.push(ActiveSplit {
            shares,
            source,
            origin,
            fallback: Vec::new(),
        });
    }

    /// Takes in the routes that tags ask for.
    fn take_tags(&mut self, guard: &Guard) {
        let mut unread = BTreeSet::new();
        let mut last: Option<&Arc<Vec<String>>> = None;
        for (instance, _) in guard.instances() {
            // Those of most instances are the same.
            if last.is_some_and(|last| Arc::ptr_eq(last, &instance.tags)) {
                continue;
            }
            last = Some(&instance.tags);
            let (routes, reasons) = tag_route::read(&instance.tags);
            self.routes.extend(routes);
            unread.extend(reasons);
        }
        self.notes.extend(unread);
    }

    /// Adds backends of another service.
    fn borrow(&mut self, members: Instances, label: Option<&str>, from: &Target) {
        for (mut instance, held) in members {
            if let Some(label) = label {
                instance.subset = Some(label.to_owned());
            }
            // Two datacenters may have nodes of one name.
            if self
                .instances
                .iter()
                .any(|(known, _)| known.id == instance.id)
            {
                instance.id = InstanceId(format!("{}@{}", instance.id, from.key()).into());
            }
            self.instances.push((instance, held));
        }
    }
}

/// What a guard lets through.
fn in_use(guard: &Guard) -> Instances {
    let instances = guard.instances();
    instances
        .map(|(instance, held)| (instance.clone(), held.cloned()))
        .collect()
}

/// The service in Consul that a service is configured to be.
pub(super) fn own_target(spec: &ServiceSpec) -> Option<Target> {
    match &spec.catalog {
        Catalog::Consul {
            service,
            datacenter,
        } => Some(Target {
            service: service.clone(),
            subset: None,
            datacenter: datacenter.clone(),
        }),
        Catalog::Static(_) => None,
    }
}

#[cfg(test)]
mod tests;
