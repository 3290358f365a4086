//! What Consul's entries make of a service, and services that publish themselves: facts in, weights
//! and sentences out.

use rig::{Rig, target, versions};

use super::*;
use crate::domain::{
    backend::CatalogHealth,
    config_entry::ResolverSubset,
    detail::Detail,
    filter::Filter,
    route::{Destination, Fits},
    sync::{CatalogState, KeyValue, Listed, Topic},
};

mod destinations;
mod failover;
mod rig;

#[test]
fn the_precedence_of_splits() {
    let mut rig = Rig::new(
        "subsets = { v1 = { filter = \"Service.Meta.version == 1\" }, \
         v2 = { meta = { version = \"2\" } } }\nsplit = { v1 = 50, v2 = 50 }",
    );
    rig.list("echo", "1 2");
    assert_eq!(rig.shares(), "n/1=50 n/2=50 by file");
    rig.resolver(
        "echo",
        Resolver {
            default_subset: Some("v1".into()),
            subsets: versions(2),
            ..Resolver::default()
        },
    );
    assert_eq!(rig.shares(), "n/1=50 n/2=50 by file");
    rig.splitter("echo", &[(9000, "", "v1"), (1000, "", "v2")]);
    assert_eq!(rig.shares(), "n/1=90 n/2=10 by service-splitter");
    rig.key("split/echo", "v1=80 v2=20");
    assert_eq!(rig.shares(), "n/1=80 n/2=20 by consul-kv");
    let cli = Shares::parse(&["v1=70", "v2=30"]).unwrap();
    rig.desired.splits.insert("echo".into(), cli);
    assert_eq!(rig.shares(), "n/1=70 n/2=30 by cli");
    // And all the way back.
    rig.desired.splits.clear();
    rig.key("split/echo", "v1=80 v3=20");
    assert_eq!(rig.shares(), "n/1=90 n/2=10 by service-splitter");
    assert!(
        rig.problems().contains("no subset v3"),
        "{}",
        rig.problems()
    );
    rig.key("split/echo", "nonsense");
    assert_eq!(rig.shares(), "n/1=90 n/2=10 by service-splitter");
    assert!(
        rig.problems().contains("lb/split/echo"),
        "{}",
        rig.problems()
    );
    rig.entry(EntryKind::Splitter, "echo", None);
    assert_eq!(rig.shares(), "n/1=50 n/2=50 by file");
}

#[test]
fn a_default_subset_takes_all_and_others_none() {
    let mut rig = Rig::new("");
    rig.list("echo", "1 2 3");
    assert_eq!(rig.shares(), "n/1=33 n/2=33 n/3=33");
    let mut resolver = Resolver {
        default_subset: Some("v2".into()),
        subsets: versions(2),
        ..Resolver::default()
    };
    rig.resolver("echo", resolver.clone());
    assert_eq!(rig.shares(), "n/2=100 by service-resolver");
    resolver.default_subset = Some("v9".into());
    rig.resolver("echo", resolver.clone());
    assert_eq!(rig.shares(), "n/1=33 n/2=33 n/3=33");
    assert!(
        rig.problems().contains("default subset v9"),
        "{}",
        rig.problems()
    );
    // A filter that cannot be used has no members, and the others their shares.
    resolver.default_subset = None;
    resolver.subsets.get_mut("v1").unwrap().filter = Err("the filter `x` …".into());
    rig.resolver("echo", resolver);
    rig.splitter("echo", &[(9000, "", "v1"), (1000, "", "v2")]);
    assert_eq!(rig.shares(), "n/2=100 by service-splitter");
    assert!(
        rig.problems().contains("subset v1 of echo"),
        "{}",
        rig.problems()
    );
}

/// Until Consul has said of which nodes they are, the others' traffic stays where it is.
#[test]
fn a_filter_that_asks_about_nodes_counts_once_they_are_known() {
    let mut rig = Rig::new("");
    rig.list("echo", "1 2");
    assert_eq!(rig.shares(), "n/1=50 n/2=50");
    let plain = Topic::instances("echo", None);
    assert!(rig.desired.topics().contains(&plain));
    let mut subsets = versions(1);
    subsets.get_mut("v1").unwrap().filter = Ok(Some(Filter::parse("Node.Meta.zone == 2").unwrap()));
    let resolver = Resolver {
        default_subset: Some("v1".into()),
        subsets,
        ..Resolver::default()
    };
    rig.resolver("echo", resolver);
    assert_eq!(rig.shares(), "n/1=50 n/2=50");
    let topics = rig.desired.topics();
    assert!(!topics.contains(&plain), "{topics:?}");
    let detailed = Topic::Instances {
        service: "echo".into(),
        datacenter: None,
        detail: true,
    };
    assert!(topics.contains(&detailed), "{topics:?}");
    // Between the two watches nothing is listed.
    rig.catalog.services.remove("echo");
    assert_eq!(rig.shares(), "n/1=50 n/2=50");
    rig.list("echo", "1 2");
    let list = rig.catalog.services.get_mut("echo").unwrap();
    for (zone, instance) in (1..).zip(Arc::make_mut(list)) {
        instance.detail = Some(Arc::new(Detail {
            node_meta: [("zone".to_owned(), i32::to_string(&zone))].into(),
            ..Detail::default()
        }));
    }
    assert_eq!(rig.shares(), "n/2=100 by service-resolver");
    rig.catalog.services.remove("echo");
    assert_eq!(rig.shares(), "n/2=100 by service-resolver");
}

#[test]
fn a_splitter_may_send_a_share_to_another_service() {
    let mut rig = Rig::new("");
    rig.list("echo", "1 2");
    rig.splitter("echo", &[(7500, "", ""), (2500, "other", "")]);
    assert_eq!(rig.shares(), "n/1=50 n/2=50 by service-splitter");
    let topics = rig.desired.topics();
    assert!(
        topics.contains(&Topic::instances("other", None)),
        "{topics:?}"
    );
    rig.list("other", "3");
    assert_eq!(rig.shares(), "n/1=37 n/2=37 n/3=25 by service-splitter");
    rig.splitter("echo", &[(5000, "", ""), (5000, "other", "v4")]);
    rig.resolver(
        "other",
        Resolver {
            subsets: versions(4),
            ..Resolver::default()
        },
    );
    rig.list("other", "3 4");
    assert_eq!(rig.shares(), "n/1=25 n/2=25 n/4=50 by service-splitter");
}

#[test]
fn redirects_are_followed_but_not_in_circles() {
    let mut rig = Rig::new("");
    let redirect = |to: Target| Resolver {
        redirect: Some(to),
        ..Resolver::default()
    };
    rig.list("echo", "1");
    rig.resolver("echo", redirect(target("other", Some("v3"), None)));
    rig.shares();
    assert!(
        rig.desired
            .topics()
            .contains(&Topic::instances("other", None))
    );
    rig.list("other", "2 3");
    rig.resolver(
        "other",
        Resolver {
            subsets: versions(3),
            ..Resolver::default()
        },
    );
    // Once it is watched.
    rig.shares();
    assert_eq!(rig.shares(), "n/3=100");
    assert_eq!(
        rig.notes(),
        "service-resolver redirects it to other, subset v3"
    );
    rig.resolver("other", redirect(target("echo", None, None)));
    rig.shares();
    assert!(rig.problems().contains("in a circle"), "{}", rig.problems());
    rig.resolver("echo", redirect(target("echo", None, Some("dc2"))));
    rig.list("echo@dc2", "7");
    rig.shares();
    assert_eq!(rig.shares(), "n/7=100");
}

#[test]
fn entries_that_vanish_without_a_deletion_stay_in_force() {
    let mut rig = Rig::new("");
    rig.list("echo", "1 2");
    rig.resolver(
        "echo",
        Resolver {
            default_subset: Some("v1".into()),
            subsets: versions(1),
            ..Resolver::default()
        },
    );
    assert_eq!(rig.shares(), "n/1=100 by service-resolver");
    let listed = Listed {
        index: 1,
        values: Arc::default(),
    };
    rig.catalog.entries.insert(EntryKind::Resolver, listed);
    assert_eq!(rig.shares(), "n/1=100 by service-resolver");
    assert!(
        rig.problems().contains("1 service-resolver entries"),
        "{}",
        rig.problems()
    );
    assert!(rig.desired.next_deadline().is_some());
}

#[test]
fn a_service_publishes_itself_and_does_not_vanish_between_glance_and_watch() {
    let mut rig = Rig::new("");
    rig.list("echo", "1");
    let names = BTreeMap::from(["consul", "echo", "web"].map(|name| (name.to_owned(), vec![])));
    rig.catalog.names = Some(Listed {
        index: 1,
        values: Arc::new(names),
    });
    rig.shares();
    let glance = Topic::Glance("web".into());
    let watch = Topic::instances("web", None);
    let topics = rig.desired.topics();
    assert!(topics.contains(&glance) && !topics.contains(&watch));
    assert!(
        !topics.contains(&Topic::Glance("echo".into())),
        "it is watched"
    );
    assert!(!topics.contains(&Topic::Glance("consul".into())));

    let offer = |rig: &mut Rig, vip: &str| {
        rig.list("web", "5");
        let instances = rig.catalog.services.remove("web").unwrap();
        let mut instances = instances.to_vec();
        Arc::make_mut(&mut instances[0].meta).insert("lb-vip".into(), vip.into());
        Arc::new(instances)
    };
    let glanced = offer(&mut rig, "198.51.100.20:80");
    rig.catalog.glanced.insert("web".into(), glanced.clone());
    rig.shares();
    assert!(rig.desired.snapshot().services["web"].pending);
    let topics = rig.desired.topics();
    assert!(topics.contains(&watch) && topics.contains(&glance));
    // The watch answers; the glance is over.
    rig.catalog.services.insert("web".into(), glanced);
    rig.shares();
    assert!(!rig.desired.topics().contains(&glance));
    rig.catalog.glanced.clear();
    rig.shares();
    let snapshot = rig.desired.snapshot();
    let web = &snapshot.services["web"];
    assert_eq!(web.spec.vips, ["198.51.100.20:80".parse().unwrap()]);
    assert_eq!(web.spec.origin.to_string(), "consul meta of n/5");
    assert_eq!((web.pending, web.backends.len()), (false, 1));
    assert_eq!(rig.problems(), "");

    // An address outside of what the file allows, or of a backend, is refused.
    for (vip, part) in [
        (
            "203.0.113.1:80",
            "203.0.113.1:80 is in no prefix of `auto_publish`",
        ),
        ("10.0.0.1:80", "10.0.0.1:80 is where a backend listens"),
    ] {
        let offer = offer(&mut rig, vip);
        rig.catalog.services.insert("web".into(), offer);
        rig.shares();
        rig.shares();
        assert!(rig.problems().contains(part), "{}", rig.problems());
    }
    // And so is one of another service.
    let clash = offer(&mut rig, "198.51.100.10:80");
    rig.catalog.services.insert("web".into(), clash);
    rig.shares();
    rig.shares();
    assert!(!rig.desired.snapshot().services.contains_key("web"));
    let problems = rig.problems();
    assert!(
        problems.contains("198.51.100.10:80 (tcp) belongs to service echo"),
        "{problems}"
    );
}
