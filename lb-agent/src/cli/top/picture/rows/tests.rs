//! From two looks to rows.

use super::*;
use crate::api::proto::{BackendChange, BlockEntry, BlockRule, Shift, Split};

const TWO_SECONDS: Duration = Duration::from_secs(2);

fn counters(packets: u64, flows_created: u64) -> Counters {
    Counters {
        packets_in: packets,
        packets_out: packets / 2,
        bytes_in: packets * 100,
        flows_created,
        flows_live: 7,
        ..Default::default()
    }
}

fn service(name: &str, packets: u64) -> Service {
    Service {
        name: name.into(),
        counters: Some(counters(packets, packets / 10)),
        ..Default::default()
    }
}

fn backend(id: &str, packets: u64) -> Backend {
    Backend {
        id: id.into(),
        address: "10.1.0.2:80".into(),
        counters: Some(counters(packets, 0)),
        ..Default::default()
    }
}

#[test]
fn rates_belong_to_their_service_wherever_it_stands() {
    let before = Look {
        services: vec![service("a", 100), service("gone", 1), service("b", 200)],
        ..Look::default()
    };
    let after = Look {
        services: vec![service("b", 240), service("new", 50), service("a", 10)],
        ..Look::default()
    };
    let rows = services(Some(&before), &after, TWO_SECONDS);
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), row.traffic.packets_per_second))
        .collect();
    // The counters of `a` began anew.
    assert_eq!(told, [("b", Some(30.0)), ("new", None), ("a", None)]);
    let b = rows[0].traffic;
    assert_eq!(b.bytes_per_second, Some(2000.0));
    assert_eq!((b.new_flows_per_second, b.flows), (Some(2.0), 7));
}

#[test]
fn backends_have_rates_only_if_they_were_asked_for_before() {
    let look = |of: &str, packets| Look {
        backends_of: Some(of.into()),
        backends: vec![backend("b1", packets)],
        ..Look::default()
    };
    let rate = |before: Option<&Look>, after: &Look| {
        backends(before, after, TWO_SECONDS)[0]
            .traffic
            .packets_per_second
    };
    let (echo, later, web) = (look("echo", 100), look("echo", 120), look("web", 90));
    assert_eq!(rate(Some(&echo), &later), Some(15.0));
    assert_eq!(rate(Some(&web), &later), None);
    assert_eq!(rate(None, &later), None);
}

#[test]
fn splits_and_shifts_are_told_in_short() {
    let shares = || Split {
        shares: [("v1".into(), 90), ("v2".into(), 10)].into(),
        ..Default::default()
    };
    let shift = |phase: &str, to| Shift {
        subset: "v2".into(),
        phase: phase.into(),
        to_percent: to,
        ..Default::default()
    };
    let rows = [
        (None, None, ""),
        (Some(shares()), None, "v1=90 v2=10"),
        (
            Some(shares()),
            Some(shift("stepping", Some(50))),
            "v1=90 v2=10, v2 → 50%",
        ),
        (
            Some(shares()),
            Some(shift("returned", None)),
            "v1=90 v2=10, v2 returned",
        ),
    ];
    for (split, shift, expected) in rows {
        let service = Service {
            split,
            shift,
            ..Default::default()
        };
        assert_eq!(super::split(&service), expected);
    }
}

#[test]
fn the_gravest_condition_is_told() {
    let rows = [
        (Backend::default(), ""),
        (
            Backend {
                slow_start_percent: Some(40),
                ..Default::default()
            },
            "slow start 40%",
        ),
        (
            Backend {
                slow_start_percent: Some(40),
                held_until_unix_ms: Some(1),
                ..Default::default()
            },
            "held",
        ),
        (
            Backend {
                held_until_unix_ms: Some(1),
                ejected_until_unix_ms: Some(1),
                ..Default::default()
            },
            "ejected",
        ),
        (
            Backend {
                ejected_until_unix_ms: Some(1),
                disabled_reason: "draining".into(),
                ..Default::default()
            },
            "draining",
        ),
    ];
    for (backend, expected) in rows {
        assert_eq!(condition(&backend), expected);
    }
}

#[test]
fn blocks_have_rates_and_ends_events_the_latest_first() {
    let entry = |prefix: &str, dropped_packets, expires_unix_ms| BlockEntry {
        rule: Some(BlockRule {
            prefix: prefix.into(),
            expires_unix_ms,
            ..Default::default()
        }),
        dropped_packets,
        ..Default::default()
    };
    let change = |at_unix_ms, to: &str| BackendChange {
        at_unix_ms,
        to: to.into(),
        ..Default::default()
    };
    let before = Look {
        blocks: vec![entry("192.0.2.7/32", 10, None)],
        ..Look::default()
    };
    let mut after = Look {
        blocks: vec![
            entry("192.0.2.7/32", 30, Some(61_000)),
            entry("192.0.2.8/32", 5, None),
        ],
        changes: vec![change(10_000, "unhealthy"), change(40_000, "healthy")],
        ..Look::default()
    };
    after.status.now_unix_ms = 50_000;
    let told: Vec<_> = blocks(Some(&before), &after, TWO_SECONDS)
        .iter()
        .map(|row| (row.packets_per_second, row.expires_in_ms))
        .collect();
    assert_eq!(told, [(Some(10.0), Some(11_000)), (None, None)]);
    let told: Vec<_> = events(&after)
        .into_iter()
        .map(|row| (row.to, row.age_ms))
        .collect();
    assert_eq!(
        told,
        [("healthy".into(), 10_000), ("unhealthy".into(), 40_000)]
    );
}
