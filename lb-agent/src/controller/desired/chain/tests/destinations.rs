//! Services that nothing but a service-router leads to.

use std::time::Duration;

use http::{HeaderMap, Method};

use super::{
    rig::{Rig, versions},
    *,
};
use crate::domain::{
    config_entry::{HashBy, OfRequests, Resolver},
    http::{
        policy::{Balance, By},
        routing::{RequestHead, RoutingTable},
    },
    route::{Destination, Fits, Text},
};

/// Requests below `/NAME/` go to the service of that name.
fn router(names: &[&str]) -> Option<ConfigEntry> {
    let routes = names.iter().map(|name| Route {
        fits: Fits {
            path: Some(Text::Prefix(format!("/{name}/"))),
            ..Fits::default()
        },
        to: Destination {
            service: Some((*name).to_owned()),
            ..Destination::default()
        },
    });
    Some(ConfigEntry::Router(routes.collect()))
}

/// Whom a request is for, and whether there is such a service.
fn found(rig: &Rig, host: &str, path: &str) -> Option<(String, bool)> {
    let table = RoutingTable::build(&rig.desired.snapshot());
    let (method, headers) = (Method::GET, HeaderMap::new());
    let head = RequestHead {
        host,
        path,
        query: None,
        method: &method,
        headers: &headers,
    };
    let found = table.find(&head)?;
    Some((found.service.to_string(), found.exists))
}

#[test]
fn a_destination_is_watched_and_served_and_has_no_host() {
    let mut rig = Rig::new("protocol = \"http\"\n");
    rig.list("echo", "1");
    assert_eq!(rig.shares(), "n/1=100");
    let watch = Topic::instances("api", None);
    assert!(!rig.desired.topics().contains(&watch));

    rig.entry(EntryKind::Router, "echo", router(&["api"]));
    rig.shares();
    assert!(rig.desired.topics().contains(&watch));
    assert!(rig.desired.snapshot().services["api"].pending);
    rig.list("api", "3 4");
    let api = |rig: &mut Rig| {
        rig.shares();
        let snapshot = rig.desired.snapshot();
        let weights = snapshot.services["api"].backends.iter();
        weights.map(|one| one.weight > 0).collect::<Vec<_>>()
    };
    assert_eq!(api(&mut rig), [true, true]);
    // By its own resolver.
    let resolver = Resolver {
        default_subset: Some("v4".into()),
        subsets: versions(4),
        ..Resolver::default()
    };
    rig.resolver("api", resolver);
    assert_eq!(api(&mut rig), [false, true]);
    let spec = rig.desired.snapshot().services["api"].spec.clone();
    assert_eq!(spec.origin.to_string(), "service-router of echo in Consul");
    let there = |service: &str| Some((service.to_owned(), true));
    assert_eq!(found(&rig, "echo", "/api/x"), there("api"));
    assert_eq!(found(&rig, "echo", "/"), there("echo"));
    for host in ["api", "api.consul.localhost"] {
        assert_eq!(found(&rig, host, "/"), None, "{host}");
    }
    assert_eq!(rig.problems(), "");

    // The same value as long as nothing is different, and none without the route.
    rig.shares();
    let same = rig.desired.snapshot().services["api"].spec.origin.clone();
    assert_eq!(same, spec.origin);
    rig.entry(EntryKind::Router, "echo", router(&["echo"]));
    rig.shares();
    assert!(!rig.desired.snapshot().services.contains_key("api"));
    assert!(!rig.desired.topics().contains(&watch));
}

#[test]
fn who_has_a_place_of_its_own_keeps_it_and_connections_have_no_routes() {
    for (protocol, configured, expected) in [
        ("http", "", Some("service-router of echo in Consul")),
        ("tcp", "", None),
        (
            "http",
            "[[service]]\nname = \"api\"\nprotocol = \"http\"\nbackends = []\n",
            Some("test.toml"),
        ),
        (
            "http",
            "[[service]]\nname = \"mine\"\nprotocol = \"http\"\nconsul = { service = \"api\" }\n",
            None,
        ),
    ] {
        let mut rig = Rig::new(&format!("protocol = \"{protocol}\"\n{configured}"));
        rig.list("echo", "1");
        rig.entry(EntryKind::Router, "echo", router(&["api"]));
        rig.shares();
        let snapshot = rig.desired.snapshot();
        let api = snapshot.services.get("api");
        let origin = api.map(|api| api.spec.origin.to_string());
        let as_told = match (&origin, expected) {
            (Some(origin), Some(expected)) => origin.starts_with(expected),
            (origin, expected) => origin.is_none() && expected.is_none(),
        };
        assert!(as_told, "{protocol} {configured}: {origin:?}");
    }
    let mut rig = Rig::new("protocol = \"http\"\n");
    rig.entry(EntryKind::Router, "echo", router(&["not/a/name"]));
    rig.shares();
    let problems = rig.problems();
    assert!(
        problems.contains("routes to the service not/a/name lead nowhere"),
        "{problems}"
    );
}

#[test]
fn the_connect_timeout_of_a_resolver_counts_unless_the_file_has_one() {
    for (configured, expected) in [
        ("", (700, By::Resolver)),
        ("timeouts = { connect = \"2s\" }\n", (2000, By::File)),
        ("timeouts = { connect = \"1s\" }\n", (1000, By::File)),
    ] {
        let mut rig = Rig::new(&format!("protocol = \"http\"\n{configured}"));
        rig.list("echo", "1");
        let resolver = Resolver {
            connect_timeout: Some(Duration::from_millis(700)),
            ..Resolver::default()
        };
        rig.resolver("echo", resolver);
        rig.shares();
        let http = rig.desired.snapshot().services["echo"].spec.http.clone();
        let found = (http.timeouts.connect.as_millis(), http.said.connect);
        assert_eq!(found, expected, "{configured}");
    }
}

#[test]
fn what_a_resolver_says_of_requests_counts_unless_the_file_does() {
    let usual = (Duration::from_secs(15), Balance::PeakEwma);
    let kept = (Duration::from_secs(2), Balance::Cookie("own".into()));
    let taken = (Duration::from_secs(5), Balance::Header("x-user".into()));
    for (keys, expected, by) in [
        ("protocol = \"http\"\n", taken, By::Resolver),
        (
            "protocol = \"http\"\ntimeouts = { total = \"2s\" }\nbalance = { cookie = \"own\" }\n",
            kept,
            By::File,
        ),
        (
            "protocol = \"http\"\ntimeouts = { total = \"15s\" }\nbalance = \"peak-ewma\"\n",
            usual,
            By::File,
        ),
        ("", (Duration::ZERO, Balance::default()), By::Nobody),
    ] {
        let mut rig = Rig::new(keys);
        rig.list("echo", "1");
        let resolver = Resolver {
            requests: Some(Box::new(OfRequests {
                timeout: Some(Duration::from_secs(5)),
                hash: Some(HashBy::Header("x-user".into())),
            })),
            ..Resolver::default()
        };
        rig.resolver("echo", resolver);
        rig.shares();
        let http = rig.desired.snapshot().services["echo"].spec.http.clone();
        assert_eq!((http.said.total, http.said.balance), (by, by), "{keys}");
        match keys {
            "" => assert!(
                rig.notes().contains("connections are balanced"),
                "{}",
                rig.notes()
            ),
            _ => assert_eq!((http.timeouts.total, http.balance.clone()), expected),
        }
    }
}

/// Noted once for a service whose requests are served, and no problem of it; what is left out is one.
#[test]
fn what_of_an_entry_is_ignored_is_told() {
    for (protocol, told) in [("http", true), ("tcp", false)] {
        let mut rig = Rig::new(&format!("protocol = \"{protocol}\"\n"));
        rig.list("echo", "1");
        let Some(ConfigEntry::Router(mut routes)) = router(&["echo", "echo", "echo"]) else {
            panic!("no router");
        };
        routes[0].to.ignored = vec!["RetryOn".into(), "RequestHeaders".into()];
        routes[2].to.ignored = vec!["RetryOn".into()];
        let routes = Some(ConfigEntry::Router(routes));
        rig.entry(EntryKind::Router, "echo", routes);
        let leg = Leg {
            share: 10_000,
            service: None,
            subset: None,
            ignored: vec!["RequestHeaders".into()],
        };
        let legs = Some(ConfigEntry::Splitter(vec![leg]));
        rig.entry(EntryKind::Splitter, "echo", legs);
        let resolver = Resolver {
            ignored: vec!["LoadBalancer".into()],
            left_out: vec!["target 1 of the Failover of * is left out: why".into()],
            ..Resolver::default()
        };
        rig.resolver("echo", resolver);
        rig.shares();
        let problems = rig.problems();
        assert!(
            problems.contains("service-resolver of echo in Consul target 1 of the Failover"),
            "{problems}"
        );
        let notes = rig.notes();
        for part in [
            "service-router of echo in Consul has RetryOn (route 1, 3), which is not supported",
            "service-router of echo in Consul has RequestHeaders (route 1), which",
            "service-splitter of echo in Consul has RequestHeaders (split 1), which",
        ] {
            assert_eq!(notes.matches(part).count(), usize::from(told), "{notes}");
        }
        assert!(notes.contains("service-resolver of echo in Consul has LoadBalancer, which"));
        assert!(!problems.contains("not supported"), "{problems}");
    }
}
