//! From what is wanted and what the kernel holds to the ordered steps between the two.
//!
//! Order: what is added goes in as backend → table → VIP, what is removed goes out as
//! VIP → table → backend, so that no packet ever meets a reference to nothing. A backend that is
//! gone keeps its entry, inactive, until its flows have ended; only then is its id free again.
//! The sources that a service admits are there before its VIPs ask for them, and the flows of
//! others are cut when no more of these can begin.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;

use super::{
    kernel::{KernelBackend, KernelView, KernelVip, Recipe, Step, Treatment, VipKey},
    maglev,
    snapshot::{ServiceState, Snapshot},
};

/// What one service of one address family should look like in the kernel.
struct Wanted<'a> {
    service: &'a ServiceState,
    vips: Vec<VipKey>,
    treatment: Treatment,
    /// What it admits of this family, if it is restricted.
    sources: Option<BTreeSet<IpNet>>,
    /// Address and weight of the backends of this family.
    backends: Vec<(SocketAddr, u32)>,
}

/// Which service (by name) and family a kernel service id stands for.
pub type ServiceIds = BTreeMap<(String, bool), u32>;

/// The steps that take the kernel from `view` to `snapshot`.
///
/// `ids` remembers which kernel service belongs to which configured one; it is brought up to
/// date. `has_flows` tells whether any flow of a backend id is alive.
pub fn plan(
    snapshot: &Snapshot,
    view: &KernelView,
    ids: &mut ServiceIds,
    has_flows: &dyn Fn(u32) -> bool,
) -> Vec<Step> {
    let wanted = wanted(snapshot);
    assign_ids(&wanted, view, ids);

    let mut additions = Vec::new();
    let mut removals = Vec::new();
    let mut unvetted = BTreeSet::new();
    let mut kept_backends = BTreeSet::new();
    let mut free_ids = FreeIds::new(view.backends.keys().copied());
    let known: BTreeMap<(u32, SocketAddr), u32> = view
        .backends
        .iter()
        .map(|(id, backend)| ((backend.service, backend.address), *id))
        .collect();

    for (key, want) in &wanted {
        let service = ids[key];
        if let Some(sources) = &want.sources {
            let held = view.sources.get(&service);
            if held.map_or(!sources.is_empty(), |held| held != sources) {
                additions.push(Step::PutSources(service, sources.clone()));
            }
            let mut held = want.vips.iter().filter_map(|vip| view.vips.get(vip));
            let was_open = held.any(|vip| !vip.treatment.restricted);
            if was_open || view.vetted.get(&service) != Some(sources) {
                unvetted.insert(service);
            }
        }
        if want.service.pending {
            // Its backends are not known, but who may come is.
            for vip in &want.vips {
                if let Some(held) = view.vips.get(vip)
                    && held.treatment != want.treatment
                {
                    let treatment = want.treatment;
                    additions.push(Step::PutVip(*vip, KernelVip { treatment, ..*held }));
                }
            }
            let known = view
                .backends
                .iter()
                .filter(|(_, backend)| backend.service == service);
            kept_backends.extend(known.map(|(id, _)| *id));
            continue;
        }
        let mut weights = Vec::new();
        let mut deactivated = Vec::new();
        for (address, weight) in &want.backends {
            let id = known.get(&(service, *address)).copied();
            let active = *weight > 0;
            let id = match (id, active) {
                (Some(id), _) => id,
                (None, true) => free_ids.take(),
                (None, false) => continue,
            };
            kept_backends.insert(id);
            let entry = KernelBackend {
                service,
                address: *address,
                active,
            };
            let held = view.backends.get(&id);
            if active {
                weights.push((id, *weight));
                if held != Some(&entry) {
                    additions.push(Step::PutBackend(id, entry));
                }
            } else if held != Some(&entry) {
                deactivated.push(Step::PutBackend(id, entry));
                deactivated.push(Step::CutUdp(id));
            }
        }
        weights.sort_unstable();
        let held_slots = view
            .vips
            .values()
            .filter(|vip| vip.service == service)
            .map(|vip| vip.slots)
            .max()
            .unwrap_or(0);
        let recipe = Recipe {
            slots: held_slots.max(maglev::size_for(weights.len())),
            weights,
        };
        let slots = recipe.slots;
        if view.tables.get(&service) != Some(&recipe) {
            additions.push(Step::PutTable(service, recipe));
        }
        for vip in &want.vips {
            let entry = KernelVip {
                service,
                slots,
                treatment: want.treatment,
            };
            if view.vips.get(vip) != Some(&entry) {
                additions.push(Step::PutVip(*vip, entry));
            }
        }
        removals.extend(deactivated);
    }

    let wanted_vips: BTreeSet<VipKey> = wanted
        .values()
        .flat_map(|want| want.vips.iter().copied())
        .collect();
    let used: BTreeSet<u32> = ids.values().copied().collect();
    let mut steps = additions;
    if !unvetted.is_empty() {
        steps.push(Step::CutStrangers(unvetted));
    }
    steps.extend(
        view.vips
            .keys()
            .filter(|vip| !wanted_vips.contains(vip))
            .map(|vip| Step::DeleteVip(*vip)),
    );
    steps.extend(
        view.tables
            .keys()
            .filter(|id| !used.contains(id))
            .map(|id| Step::DeleteTable(*id)),
    );
    let restricted: BTreeSet<u32> = wanted
        .iter()
        .filter(|(_, want)| want.sources.is_some())
        .map(|(key, _)| ids[key])
        .collect();
    steps.extend(
        view.sources
            .keys()
            .filter(|id| !restricted.contains(id))
            .map(|id| Step::PutSources(*id, BTreeSet::new())),
    );
    steps.extend(removals);
    for (id, backend) in &view.backends {
        if kept_backends.contains(id) {
            continue;
        }
        if backend.active {
            steps.push(Step::PutBackend(
                *id,
                KernelBackend {
                    active: false,
                    ..*backend
                },
            ));
            steps.push(Step::CutUdp(*id));
        } else if !has_flows(*id) {
            steps.push(Step::FreeBackend(*id));
        }
    }
    steps
}

fn wanted(snapshot: &Snapshot) -> BTreeMap<(String, bool), Wanted<'_>> {
    let mut wanted = BTreeMap::new();
    for (name, service) in &snapshot.services {
        for v6 in [false, true] {
            let vips: Vec<VipKey> = service
                .spec
                .vips
                .iter()
                .filter(|vip| vip.is_ipv6() == v6)
                .map(|vip| VipKey::new(*vip, service.spec.protocol))
                .collect();
            if vips.is_empty() {
                continue;
            }
            let mut backends: BTreeMap<SocketAddr, u32> = BTreeMap::new();
            for backend in &service.backends {
                if backend.address().is_ipv6() == v6 {
                    // Two instances at one address are one backend to the kernel.
                    let weight = backends.entry(backend.address()).or_default();
                    *weight = weight.saturating_add(backend.weight);
                }
            }
            let backends = backends.into_iter().collect();
            let of_family = |prefix: &&IpNet| prefix.addr().is_ipv6() == v6;
            let sources = service.spec.allow.as_ref();
            let sources = sources.map(|all| all.iter().filter(of_family).copied().collect());
            wanted.insert(
                (name.clone(), v6),
                Wanted {
                    service,
                    vips,
                    treatment: Treatment {
                        forwarding: service.spec.forwarding,
                        affinity: service.spec.affinity,
                        restricted: service.spec.allow.is_some(),
                    },
                    sources,
                    backends,
                },
            );
        }
    }
    wanted
}

/// Gives every wanted service an id: the one it has, else the one that its VIPs have in the
/// kernel (left there by a former agent), else the lowest that is free.
fn assign_ids(
    wanted: &BTreeMap<(String, bool), Wanted<'_>>,
    view: &KernelView,
    ids: &mut ServiceIds,
) {
    ids.retain(|key, _| wanted.contains_key(key));
    let mut used: BTreeSet<u32> = ids.values().copied().collect();
    for (key, want) in wanted {
        if ids.contains_key(key) {
            continue;
        }
        let held = want
            .vips
            .iter()
            .filter_map(|vip| view.vips.get(vip))
            .map(|vip| vip.service)
            .find(|id| !used.contains(id));
        if let Some(id) = held {
            ids.insert(key.clone(), id);
            used.insert(id);
        }
    }
    let mut free = FreeIds::new(used.into_iter().chain(view.service_ids()));
    for (key, want) in wanted {
        debug_assert_eq!(key.0, want.service.spec.name);
        ids.entry(key.clone()).or_insert_with(|| free.take());
    }
}

/// Hands out the lowest numbers that are not taken.
struct FreeIds {
    taken: BTreeSet<u32>,
    next: u32,
}

impl FreeIds {
    fn new(taken: impl IntoIterator<Item = u32>) -> Self {
        Self {
            taken: taken.into_iter().collect(),
            next: 0,
        }
    }

    fn take(&mut self) -> u32 {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }
}

/// The view after a step, so that the mirror follows what was applied and nothing else.
pub fn advance(view: &mut KernelView, step: &Step) {
    match step {
        Step::PutBackend(id, backend) => {
            view.backends.insert(*id, *backend);
        }
        Step::PutTable(service, recipe) => {
            view.tables.insert(*service, recipe.clone());
        }
        Step::PutVip(key, vip) => {
            view.vips.insert(*key, *vip);
        }
        Step::DeleteVip(key) => {
            view.vips.remove(key);
        }
        Step::DeleteTable(service) => {
            view.tables.remove(service);
        }
        Step::PutSources(service, sources) if sources.is_empty() => {
            view.sources.remove(service);
            view.vetted.remove(service);
        }
        Step::PutSources(service, sources) => {
            view.sources.insert(*service, sources.clone());
        }
        Step::CutStrangers(services) => {
            for service in services {
                let sources = view.sources.get(service).cloned().unwrap_or_default();
                view.vetted.insert(*service, sources);
            }
        }
        Step::CutUdp(_) => {}
        Step::FreeBackend(id) => {
            view.backends.remove(id);
        }
    }
}

#[cfg(test)]
mod tests;
