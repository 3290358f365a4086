//! From what is wanted and what the kernel holds to the ordered steps between the two.
//!
//! Order: what is added goes in as backend → table → VIP, what is removed goes out as
//! VIP → table → backend, so that no packet ever meets a reference to nothing. A backend that is
//! gone keeps its entry, inactive, until its flows have ended; only then is its id free again.
//! The sources that a service admits are there before its VIPs ask for them, and the flows of
//! others are cut when no more of these can begin. Tables follow each other, of whatever services,
//! since many at once take the kernel hardly longer than one.

mod ids;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
};

use ipnet::IpNet;

use ids::{FreeIds, Settled, assign_ids};

use super::{
    kernel::{KernelBackend, KernelView, KernelVip, Recipe, Step, Treatment, VipKey},
    maglev,
    service::Protocol,
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
    plan_beside(snapshot, view, ids, has_flows, &|_| false)
}

/// The same, where `is_settled` tells of which services (by name) the snapshot says what it said
/// when the kernel was last brought there; never of one that the snapshot has not.
pub fn plan_beside(
    snapshot: &Snapshot,
    view: &KernelView,
    ids: &mut ServiceIds,
    has_flows: &dyn Fn(u32) -> bool,
    is_settled: &dyn Fn(&str) -> bool,
) -> Vec<Step> {
    let wanted = wanted(snapshot, is_settled);
    assign_ids(&wanted, view, ids, is_settled);
    let settled = Settled::new(ids, is_settled);
    // One pass over what may be a hundred thousand.
    let mut loose = Vec::new();
    let mut idle = Vec::new();
    for (id, backend) in &view.backends {
        match settled.name(backend.service) {
            None => loose.push((*id, *backend)),
            Some(name) if !backend.active => idle.push((*id, *backend, name)),
            Some(_) => {}
        }
    }

    let mut sources = Vec::new();
    let mut backends = Vec::new();
    let mut tables = Vec::new();
    let mut vips = Vec::new();
    let mut removals = Vec::new();
    let mut unvetted = BTreeSet::new();
    let mut kept_backends = HashSet::new();
    let mut free_ids = None;
    let mut take_id = || {
        let all = || FreeIds::new(view.backends.keys().copied());
        free_ids.get_or_insert_with(all).take()
    };
    let known: HashMap<(u32, SocketAddr), u32> = loose
        .iter()
        .map(|(id, backend)| ((backend.service, backend.address), *id))
        .collect();

    for (key, want) in &wanted {
        let service = ids[key];
        if let Some(admitted) = &want.sources {
            let held = view.sources.get(&service);
            if held.map_or(!admitted.is_empty(), |held| held != admitted) {
                sources.push(Step::PutSources(service, admitted.clone()));
            }
            let mut held = want.vips.iter().filter_map(|vip| view.vips.get(vip));
            let was_open = held.any(|vip| !vip.treatment.restricted);
            if was_open || view.vetted.get(&service) != Some(admitted) {
                unvetted.insert(service);
            }
        }
        if want.service.pending
            || want.service.spec.protocol.is_proxied() && want.service.steering.is_none()
        {
            // Its backends are not known, but who may come is.
            for vip in &want.vips {
                if let Some(held) = view.vips.get(vip)
                    && held.treatment != want.treatment
                {
                    let treatment = want.treatment;
                    vips.push(Step::PutVip(*vip, KernelVip { treatment, ..*held }));
                }
            }
            let known = loose.iter();
            let known = known.filter(|(_, backend)| backend.service == service);
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
                (None, true) => take_id(),
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
                    backends.push(Step::PutBackend(id, entry));
                }
            } else if held != Some(&entry) {
                deactivated.push(Step::PutBackend(id, entry));
                if want.service.spec.protocol == Protocol::Udp {
                    deactivated.push(Step::CutUdp(id));
                }
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
            tables.push(Step::PutTable(service, recipe));
        }
        for vip in &want.vips {
            let entry = KernelVip {
                service,
                slots,
                treatment: want.treatment,
            };
            if view.vips.get(vip) != Some(&entry) {
                vips.push(Step::PutVip(*vip, entry));
            }
        }
        removals.extend(deactivated);
    }

    let wanted_vips: BTreeSet<VipKey> = wanted
        .values()
        .flat_map(|want| want.vips.iter().copied())
        .collect();
    let used: BTreeSet<u32> = ids.values().copied().collect();
    let is_tcp = |want: &&Wanted<'_>| want.service.spec.protocol == Protocol::Tcp;
    let tcp: BTreeSet<u32> = wanted
        .iter()
        .filter(|(_, want)| is_tcp(want))
        .map(|(key, _)| ids[key])
        .collect();
    let mut steps = sources;
    steps.extend(backends);
    steps.extend(tables);
    steps.extend(vips);
    if !unvetted.is_empty() {
        steps.push(Step::CutStrangers(unvetted));
    }
    steps.extend(
        view.vips
            .iter()
            .filter(|(_, held)| settled.name(held.service).is_none())
            .filter(|(vip, _)| !wanted_vips.contains(vip))
            .map(|(vip, _)| Step::DeleteVip(*vip)),
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
            .filter(|id| !restricted.contains(id) && settled.name(**id).is_none())
            .map(|id| Step::PutSources(*id, BTreeSet::new())),
    );
    steps.extend(removals);
    for (id, backend) in loose {
        if kept_backends.contains(&id) {
            continue;
        }
        if backend.active {
            let inactive = KernelBackend {
                active: false,
                ..backend
            };
            steps.push(Step::PutBackend(id, inactive));
            // To look for flows of a service that has none of these takes its time.
            if !tcp.contains(&backend.service) {
                steps.push(Step::CutUdp(id));
            }
        } else if !has_flows(id) {
            steps.push(Step::FreeBackend(id));
        }
    }
    // Of the others those that take flows are as they should be; others may have lost their last one.
    for (id, backend, name) in idle {
        let service = &snapshot.services[name];
        let mut listed = service.backends.iter();
        if !service.pending
            && !has_flows(id)
            && !listed.any(|listed| listed.address() == backend.address)
        {
            steps.push(Step::FreeBackend(id));
        }
    }
    steps
}

fn wanted<'a>(
    snapshot: &'a Snapshot,
    is_settled: &dyn Fn(&str) -> bool,
) -> BTreeMap<(String, bool), Wanted<'a>> {
    let mut wanted = BTreeMap::new();
    let services = snapshot.services.iter();
    for (name, service) in services.filter(|(name, _)| !is_settled(name)) {
        for v6 in [false, true] {
            let vips: Vec<VipKey> = service
                .spec
                .vips
                .iter()
                .filter(|vip| vip.is_ipv6() == v6 && !service.is_listened_on(vip))
                .map(|vip| VipKey::new(*vip, service.spec.protocol))
                .collect();
            if vips.is_empty() {
                continue;
            }
            let mut backends: BTreeMap<SocketAddr, u32> = BTreeMap::new();
            if service.spec.protocol.is_proxied() {
                let steering = service.steering.iter().flatten();
                let elsewhere =
                    steering.filter(|to| to.is_ipv6() == v6 && !service.spec.vips.contains(to));
                backends.extend(elsewhere.map(|to| (*to, 1)));
                if backends.is_empty() && service.steering.is_some() {
                    continue;
                }
            }
            let balanced = service.backends.iter();
            for backend in balanced.filter(|_| !service.spec.protocol.is_proxied()) {
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
