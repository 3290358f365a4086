//! From what is wanted and what the kernel holds to the ordered steps between the two.
//!
//! Order: what is added goes in as backend → table → VIP, what is removed goes out as
//! VIP → table → backend, so that no packet ever meets a reference to nothing. A backend that is
//! gone keeps its entry, inactive, until its flows have ended; only then is its id free again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    kernel::{KernelBackend, KernelView, KernelVip, Recipe, Step, VipKey},
    maglev,
    snapshot::{ServiceState, Snapshot},
};

/// What one service of one address family should look like in the kernel.
struct Wanted<'a> {
    service: &'a ServiceState,
    vips: Vec<VipKey>,
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
    let mut kept_backends = BTreeSet::new();
    let mut free_ids = FreeIds::new(view.backends.keys().copied());
    let known: BTreeMap<(u32, SocketAddr), u32> = view
        .backends
        .iter()
        .map(|(id, backend)| ((backend.service, backend.address), *id))
        .collect();

    for (key, want) in &wanted {
        let service = ids[key];
        if want.service.pending {
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
            let entry = KernelVip { service, slots };
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
            wanted.insert(
                (name.clone(), v6),
                Wanted {
                    service,
                    vips,
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
        Step::CutUdp(_) => {}
        Step::FreeBackend(id) => {
            view.backends.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use super::*;
    use crate::domain::{
        backend::{CatalogHealth, Instance, InstanceId},
        health::Observed,
        service::{Catalog, Forwarding, Origin, Protocol, ServiceSpec},
        snapshot::BackendState,
    };

    fn service(name: &str, vips: &[&str], backends: &[(&str, u32)]) -> Arc<ServiceState> {
        let spec = ServiceSpec {
            name: name.into(),
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            protocol: Protocol::Tcp,
            forwarding: Forwarding::Nat,
            catalog: Catalog::Static(Vec::new()),
            subsets: BTreeMap::new(),
            split: None,
            probe: None,
            origin: Origin {
                file: PathBuf::from("test"),
                line: 1,
            },
        };
        let backends = backends
            .iter()
            .map(|(address, weight)| BackendState {
                instance: Instance {
                    id: InstanceId((*address).into()),
                    address: address.parse().unwrap(),
                    weight: 1,
                    tags: Vec::new(),
                    meta: BTreeMap::new(),
                    subset: None,
                    health: CatalogHealth::Passing,
                },
                subset: None,
                observed: Observed::Unknown,
                drain: None,
                held: None,
                weight: *weight,
                reason: String::new(),
            })
            .collect();
        Arc::new(ServiceState {
            spec: Arc::new(spec),
            backends,
            split: None,
            panic: false,
            pending: false,
        })
    }

    fn snapshot(services: &[Arc<ServiceState>]) -> Snapshot {
        Snapshot {
            version: 1,
            services: services
                .iter()
                .map(|service| (service.spec.name.clone(), service.clone()))
                .collect(),
        }
    }

    /// Plans, applies to the mirror, and checks on the way that no step refers to nothing.
    fn step_to(
        snapshot: &Snapshot,
        view: &mut KernelView,
        ids: &mut ServiceIds,
        live: &[u32],
    ) -> Vec<Step> {
        let steps = plan(snapshot, view, ids, &|id| live.contains(&id));
        for step in &steps {
            match step {
                Step::PutTable(_, recipe) => {
                    for (id, weight) in &recipe.weights {
                        assert!(view.backends[id].active, "{step:?} before its backend");
                        assert!(*weight > 0);
                    }
                }
                Step::PutVip(_, vip) => {
                    assert!(
                        view.tables.contains_key(&vip.service),
                        "{step:?} before its table"
                    );
                }
                Step::DeleteTable(service) => {
                    let used = view.vips.values().any(|vip| vip.service == *service);
                    assert!(!used, "{step:?} while a VIP uses it");
                }
                Step::PutBackend(id, backend) if !backend.active => {
                    let used = view
                        .tables
                        .values()
                        .any(|table| table.weights.iter().any(|(other, _)| other == id));
                    assert!(!used, "{step:?} while a table uses it");
                }
                Step::FreeBackend(id) => assert!(!live.contains(id), "{step:?} has flows"),
                _ => {}
            }
            advance(view, step);
        }
        assert!(
            plan(snapshot, view, &mut ids.clone(), &|id| live.contains(&id))
                .iter()
                .all(|step| matches!(step, Step::FreeBackend(_))),
            "a second plan has nothing left to do but to free"
        );
        steps
    }

    const VIP: &str = "198.51.100.10:80";

    /// A service comes, changes, and goes.
    #[test]
    fn life_of_a_service() {
        let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
        let two = snapshot(&[service(
            "a",
            &[VIP],
            &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)],
        )]);
        let steps = step_to(&two, &mut view, &mut ids, &[]);
        assert!(matches!(
            steps[..],
            [
                Step::PutBackend(0, _),
                Step::PutBackend(1, _),
                Step::PutTable(0, _),
                Step::PutVip(..)
            ]
        ));
        assert!(step_to(&two, &mut view, &mut ids, &[]).is_empty());

        // Backend 1 leaves while a flow of it lives: inactive, kept, freed once the flow is gone.
        let one = snapshot(&[service("a", &[VIP], &[("10.0.0.1:80", 1)])]);
        let steps = step_to(&one, &mut view, &mut ids, &[1]);
        assert!(matches!(
            steps[..],
            [
                Step::PutTable(0, _),
                Step::PutBackend(1, KernelBackend { active: false, .. }),
                Step::CutUdp(1)
            ]
        ));
        assert!(step_to(&one, &mut view, &mut ids, &[1]).is_empty());
        // It comes back meanwhile: the same id, so that its old flows count as its own.
        let steps = step_to(&two, &mut view, &mut ids, &[1]);
        assert!(matches!(
            steps[..],
            [
                Step::PutBackend(1, KernelBackend { active: true, .. }),
                Step::PutTable(0, _)
            ]
        ));
        // A new backend takes no id that is in use.
        step_to(&one, &mut view, &mut ids, &[1]);
        let other = snapshot(&[service(
            "a",
            &[VIP],
            &[("10.0.0.1:80", 1), ("10.0.0.3:80", 1)],
        )]);
        let steps = step_to(&other, &mut view, &mut ids, &[1]);
        assert!(matches!(steps[0], Step::PutBackend(2, _)));
        assert_eq!(
            step_to(&other, &mut view, &mut ids, &[]),
            [Step::FreeBackend(1)]
        );

        let steps = step_to(&snapshot(&[]), &mut view, &mut ids, &[]);
        assert!(matches!(
            steps[..2],
            [Step::DeleteVip(_), Step::DeleteTable(0)]
        ));
        step_to(&snapshot(&[]), &mut view, &mut ids, &[]);
        assert_eq!(view, KernelView::default());
    }

    /// Of a service whose catalog has not answered yet, nothing is touched.
    #[test]
    fn pending_is_left_alone() {
        let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
        let known = service("a", &[VIP], &[("10.0.0.1:80", 1)]);
        step_to(
            &snapshot(std::slice::from_ref(&known)),
            &mut view,
            &mut ids,
            &[],
        );
        let mut pending = ServiceState::clone(&known);
        pending.pending = true;
        pending.backends.clear();
        view.tables.clear();
        let steps = step_to(
            &snapshot(&[Arc::new(pending)]),
            &mut view,
            &mut ServiceIds::new(),
            &[],
        );
        assert_eq!(steps, []);
    }

    /// A weight of zero is no backend to the table, but its flows go on.
    #[test]
    fn weight_zero_is_inactive() {
        let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
        let zero = snapshot(&[service("a", &[VIP], &[("10.0.0.1:80", 0)])]);
        let steps = step_to(&zero, &mut view, &mut ids, &[]);
        assert!(
            matches!(&steps[..], [Step::PutTable(0, table), Step::PutVip(..)] if table.weights.is_empty())
        );
    }

    /// An agent that starts over what another left keeps ids and touches only the tables, whose
    /// ingredients it cannot know.
    #[test]
    fn adoption_keeps_ids() {
        let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
        let both = [
            service("a", &["198.51.100.11:80"], &[("10.0.0.1:80", 1)]),
            service(
                "b",
                &[VIP, "[2001:db8::1]:80"],
                &[("10.0.0.2:80", 3), ("[fd00::2]:80", 1)],
            ),
        ];
        step_to(&snapshot(&both[1..]), &mut view, &mut ids, &[]);
        step_to(&snapshot(&both), &mut view, &mut ids, &[]);
        let (mut adopted, mut fresh) = (view.clone(), ServiceIds::new());
        adopted.tables.clear();
        let steps = step_to(&snapshot(&both), &mut adopted, &mut fresh, &[]);
        assert!(
            steps.iter().all(|step| matches!(step, Step::PutTable(..))),
            "{steps:?}"
        );
        assert_eq!(fresh, ids);
        assert_eq!(adopted, view);
    }
}
