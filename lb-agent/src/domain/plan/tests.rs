//! Tests of `plan`.

mod protocols;

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
        affinity: Default::default(),
        allow: None,
        catalog: Catalog::Static(Vec::new()),
        subsets: BTreeMap::new(),
        split: None,
        probe: None,
        gate: Default::default(),
        health: Default::default(),
        http: Default::default(),
        origin: Origin {
            file: PathBuf::from("test"),
            line: 1,
        },
    };
    let backends = backends.iter().map(|(address, weight)| BackendState {
        instance: Instance {
            id: InstanceId((*address).into()),
            address: address.parse().unwrap(),
            weight: 1,
            tags: Default::default(),
            meta: Default::default(),
            subset: None,
            detail: None,
            health: CatalogHealth::Passing,
        },
        subset: None,
        observed: Observed::Unknown,
        ejection: None,
        ramp: None,
        drain: None,
        held: None,
        weight: *weight,
        reason: "".into(),
    });
    Arc::new(ServiceState {
        spec: Arc::new(spec),
        backends: backends.collect(),
        split: None,
        splits: Default::default(),
        shift: None,
        panic: false,
        pending: false,
        notes: Vec::new(),
        routes: Default::default(),
        steering: Default::default(),
        router: Default::default(),
    })
}

fn snapshot(services: &[Arc<ServiceState>]) -> Snapshot {
    let named = services.iter();
    let named = named.map(|service| (service.spec.name.clone(), service.clone()));
    Snapshot {
        version: 1,
        services: named.collect(),
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
    let second = plan(snapshot, view, &mut ids.clone(), &|id| live.contains(&id));
    assert!(
        second
            .iter()
            .all(|step| matches!(step, Step::FreeBackend(_))),
        "a second plan has nothing left to do but to free"
    );
    // Of services that are settled it is the same plan.
    let settled = plan_beside(
        snapshot,
        view,
        &mut ids.clone(),
        &|id| live.contains(&id),
        &|_| true,
    );
    assert_eq!(settled, second);
    steps
}

const VIP: &str = "198.51.100.10:80";

/// What has not changed is left alone, and keeps its ids, its VIPs and its backends.
#[test]
fn settled_services_are_left_alone() {
    let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
    let a = service("a", &[VIP], &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]);
    let b = |weight| service("b", &["198.51.100.11:80"], &[("10.0.0.1:80", weight)]);
    step_to(&snapshot(&[a.clone(), b(1)]), &mut view, &mut ids, &[]);
    let before = ids.clone();
    let changed = snapshot(&[a.clone(), b(2)]);
    let steps = plan_beside(&changed, &view, &mut ids, &|_| false, &|name| name == "a");
    assert!(matches!(steps[..], [Step::PutTable(1, _)]), "{steps:?}");
    for step in &steps {
        advance(&mut view, step);
    }
    assert_eq!(ids, before);
    // One that comes gets an id and backend ids that nobody has; one that goes takes all with it.
    let other = service("c", &["198.51.100.12:80"], &[("10.0.0.1:80", 1)]);
    let now = snapshot(&[a, other]);
    let steps = plan_beside(&now, &view, &mut ids, &|_| false, &|name| name == "a");
    assert!(
        matches!(
            steps[..],
            [
                Step::PutBackend(3, KernelBackend { service: 2, .. }),
                Step::PutTable(2, _),
                Step::PutVip(..),
                Step::DeleteVip(_),
                Step::DeleteTable(1),
                Step::PutBackend(2, KernelBackend { active: false, .. }),
                Step::CutUdp(2)
            ]
        ),
        "{steps:?}"
    );
}

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
            Step::PutBackend(1, KernelBackend { active: false, .. })
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

/// The service with these source ranges.
fn allowing(service: &Arc<ServiceState>, allow: Option<&[&str]>) -> Arc<ServiceState> {
    let mut state = ServiceState::clone(service);
    let mut spec = ServiceSpec::clone(&state.spec);
    spec.allow = allow.map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect());
    state.spec = Arc::new(spec);
    Arc::new(state)
}

/// Ranges are there before the VIP asks for them and go after it has stopped; flows of others are
/// cut when no more can begin, at each change and once after a start.
#[test]
fn sources_come_before_the_vip_and_go_after_it() {
    let open = service("a", &[VIP], &[("10.0.0.1:80", 1)]);
    let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
    step_to(
        &snapshot(std::slice::from_ref(&open)),
        &mut view,
        &mut ids,
        &[],
    );
    let kinds = |steps: &[Step]| -> Vec<&'static str> {
        let kind = |step: &Step| match step {
            Step::PutSources(_, sources) if sources.is_empty() => "admit nobody",
            Step::PutSources(..) => "admit",
            Step::PutVip(..) => "vip",
            Step::DeleteVip(..) => "no vip",
            Step::CutStrangers(_) => "cut",
            _ => "other",
        };
        let kinds = steps.iter().map(kind);
        kinds.filter(|kind| *kind != "other").collect()
    };
    let narrow = snapshot(&[allowing(&open, Some(&["10.0.0.0/8", "2001:db8::/32"]))]);
    let steps = step_to(&narrow, &mut view, &mut ids, &[]);
    assert_eq!(kinds(&steps), ["admit", "vip", "cut"]);
    let of_family: BTreeSet<IpNet> = BTreeSet::from(["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(view.sources.values().collect::<Vec<_>>(), [&of_family]);
    let narrower = snapshot(&[allowing(&open, Some(&["10.1.0.0/16"]))]);
    let steps = step_to(&narrower, &mut view, &mut ids, &[]);
    assert_eq!(kinds(&steps), ["admit", "cut"]);
    // An agent that starts anew does not know what the former one has cut.
    view.vetted.clear();
    let steps = step_to(&narrower, &mut view, &mut ids, &[]);
    assert_eq!(kinds(&steps), ["cut"]);
    // A VIP that could not be restricted at once let others in meanwhile.
    for vip in view.vips.values_mut() {
        vip.treatment.restricted = false;
    }
    let steps = step_to(&narrower, &mut view, &mut ids, &[]);
    assert_eq!(kinds(&steps), ["vip", "cut"]);
    let nobody = snapshot(&[allowing(&open, Some(&[]))]);
    let steps = step_to(&nobody, &mut view, &mut ids, &[]);
    assert_eq!(kinds(&steps), ["admit nobody", "cut"]);
    step_to(&narrower, &mut view, &mut ids, &[]);
    let steps = step_to(&snapshot(&[open]), &mut view, &mut ids, &[]);
    assert_eq!(kinds(&steps), ["vip", "admit nobody"]);
    step_to(&narrower, &mut view, &mut ids, &[]);
    let steps = step_to(&snapshot(&[]), &mut view, &mut ids, &[]);
    assert_eq!(kinds(&steps), ["no vip", "admit nobody"]);
    assert!(view.sources.is_empty() && view.vetted.is_empty());
}

/// While the backends of a service are not known, who may use it is all the same.
#[test]
fn a_pending_service_is_restricted_at_once() {
    let open = service("a", &[VIP], &[("10.0.0.1:80", 1)]);
    let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
    step_to(
        &snapshot(std::slice::from_ref(&open)),
        &mut view,
        &mut ids,
        &[],
    );
    let mut pending = ServiceState::clone(&allowing(&open, Some(&["10.0.0.0/8"])));
    pending.pending = true;
    pending.backends.clear();
    step_to(&snapshot(&[Arc::new(pending)]), &mut view, &mut ids, &[]);
    assert!(view.vips.values().all(|vip| vip.treatment.restricted));
    assert_eq!(view.sources.len(), 1);
    assert!(view.backends.values().all(|backend| backend.active));
}
