//! Who takes over from whom, of whole services and of subsets.

use super::{
    rig::{Rig, target, versions},
    *,
};

/// A resolver of subsets up to `count`, of which `spare` takes over for `subset`.
fn spare_for(subset: &str, count: u8) -> Resolver {
    Resolver {
        subsets: versions(count),
        failover: BTreeMap::from([(subset.into(), vec![target("spare", None, None)])]),
        ..Resolver::default()
    }
}

#[test]
fn failover_begins_with_the_last_usable_backend_and_ends_with_the_first() {
    let mut rig = Rig::new("");
    rig.resolver(
        "echo",
        Resolver {
            failover: BTreeMap::from([(
                "*".into(),
                vec![
                    target("spare", None, None),
                    target("echo", None, Some("dc2")),
                ],
            )]),
            ..Resolver::default()
        },
    );
    rig.list("echo", "1 2!");
    rig.list("spare", "3!");
    rig.list("echo@dc2", "1 4");
    rig.shares();
    assert_eq!(rig.shares(), "n/1=100");
    rig.list("echo", "1! 2!");
    // Of the same name on a node of another datacenter.
    assert_eq!(rig.shares(), "n/1@echo@dc2=50 n/4=50");
    assert!(
        rig.notes().contains("echo, datacenter dc2 takes over"),
        "{}",
        rig.notes()
    );
    rig.list("spare", "3");
    assert_eq!(rig.shares(), "n/3=100");
    rig.list("echo", "1! 2");
    assert_eq!(rig.shares(), "n/2=100");
    assert_eq!(rig.notes(), "");
}

#[test]
fn failover_of_a_subset_takes_its_share_only() {
    let mut rig = Rig::new("");
    rig.resolver("echo", spare_for("v2", 2));
    rig.splitter("echo", &[(9000, "", "v1"), (1000, "", "v2")]);
    rig.list("echo", "1 2!");
    rig.list("spare", "3");
    rig.shares();
    assert_eq!(rig.shares(), "n/1=90 n/3=10 by service-splitter");
    rig.list("echo", "1! 2");
    assert_eq!(rig.shares(), "n/2=100 by service-splitter");
}

/// Routes lead to subsets that no split gives anything.
#[test]
fn failover_of_a_subset_that_only_routes_lead_to() {
    let route = |subset: &str| Route {
        fits: Fits::default(),
        to: Destination {
            subset: Some(subset.into()),
            ..Destination::default()
        },
    };
    let mut rig = Rig::new("protocol = \"http\"\n");
    rig.resolver("echo", spare_for("*", 3));
    let routes = vec![route("v2")];
    rig.entry(EntryKind::Router, "echo", Some(ConfigEntry::Router(routes)));
    rig.splitter("echo", &[(10_000, "", "v1")]);
    rig.list("echo", "1 2! 3!");
    rig.list("spare", "4");
    rig.shares();
    assert_eq!(rig.shares(), "n/1=100 by service-splitter");
    let snapshot = rig.desired.snapshot();
    let subset = |id: &str| {
        let mut backends = snapshot.services["echo"].backends.iter();
        let found = backends.find(|backend| backend.id().to_string() == id);
        found.and_then(|backend| backend.subset.clone())
    };
    assert_eq!(subset("n/4").as_deref(), Some("v2"), "{}", rig.notes());
    assert!(rig.notes().contains("subset v2 has no usable backend"));
    assert!(!rig.notes().contains("v3"), "{}", rig.notes());
    // Without a split it cannot be done, and is told.
    rig.resolver("echo", spare_for("v2", 2));
    rig.entry(EntryKind::Splitter, "echo", None);
    rig.shares();
    assert!(
        rig.notes()
            .contains("the failover of subset v2 is not followed"),
        "{}",
        rig.notes()
    );
}

/// A redirect into a subset has the failover of that subset.
#[test]
fn failover_of_a_subset_that_is_redirected_to() {
    let mut rig = Rig::new("");
    let redirect = Resolver {
        redirect: Some(target("real", Some("v1"), None)),
        ..Resolver::default()
    };
    rig.resolver("echo", redirect);
    rig.resolver("real", spare_for("v1", 2));
    rig.list("real", "1! 2");
    rig.list("spare", "3");
    rig.shares();
    assert_eq!(rig.shares(), "n/3=100");
}
