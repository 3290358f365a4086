//! What the messages say of a service with one backend of every kind.

mod health;
mod status;

use std::sync::Arc;

use lb_common::socket::SocketStats;

use self::health::ejection;
use super::*;
use crate::{
    controller::{InterfaceStatus, LocalClientsStatus},
    domain::{
        backend::{Instance, InstanceId},
        kernel::Attempts,
        passive::{Ejection, Witness},
        service::{Forwarding, Origin, Protocol, ServiceSpec, SubsetRule},
        service::{HealthPolicy, ProbeKind, ProbeSpec, TlsSpec},
        snapshot::{Drain, Held},
        split::{ActiveSplit, Shares, SplitSource},
    },
};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn backend(host: u8, subset: &str, weight: u32, health: CatalogHealth) -> BackendState {
    BackendState {
        instance: Instance {
            id: InstanceId(format!("node{host}/echo").into()),
            address: ([10, 1, 0, host], 8080).into(),
            weight: 10,
            tags: Default::default(),
            meta: Default::default(),
            subset: None,
            detail: None,
            health,
        },
        subset: (!subset.is_empty()).then(|| subset.to_owned()),
        observed: Observed::Unknown,
        ejection: None,
        ramp: None,
        drain: None,
        held: None,
        weight,
        reason: format!("weight {weight}").into(),
    }
}

fn state(backends: Vec<BackendState>, split: Option<&[&str]>) -> ServiceState {
    ServiceState {
        spec: Arc::new(ServiceSpec {
            name: "echo".into(),
            vips: vec!["[2001:db8::10]:80".parse().unwrap()],
            protocol: Protocol::Tcp,
            forwarding: Forwarding::Nat,
            affinity: Default::default(),
            allow: None,
            catalog: Catalog::Consul {
                service: "echo-in-consul".into(),
                datacenter: None,
            },
            subsets: BTreeMap::from([("v2".into(), SubsetRule::default())]),
            split: Some(Shares::parse(&["v2=1"]).unwrap()),
            probe: Some(ProbeSpec {
                kind: ProbeKind::Http {
                    path: "/health".into(),
                    host: None,
                    status: vec![(200, 299), (401, 401)],
                    body: Some("ok".into()),
                    tls: Some(TlsSpec {
                        ca_cert: Some("/etc/ca.pem".into()),
                        ..Default::default()
                    }),
                },
                ..Default::default()
            }),
            gate: Default::default(),
            health: HealthPolicy::default(),
            http: Default::default(),
            origin: Origin {
                file: "config.toml".into(),
                line: 12,
            },
        }),
        backends,
        split: split.map(|words| ActiveSplit {
            shares: Shares::parse(words).unwrap(),
            source: SplitSource::Cli,
            origin: "split set".into(),
            fallback: Vec::new(),
        }),
        splits: Default::default(),
        shift: None,
        panic: false,
        pending: false,
        notes: Vec::new(),
        routes: Default::default(),
        steering: Default::default(),
        router: Default::default(),
    }
}

#[test]
fn moments_before_and_after_1970() {
    assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_micros(1_999)), 1);
    assert_eq!(unix_ms(UNIX_EPOCH), 0);
    assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_millis(5)), -5);
}

#[test]
fn a_backend_carries_every_factor_of_its_weight() {
    let mut out = backend(2, "v1", 0, CatalogHealth::Critical("dead".into()));
    out.observed = Observed::Unhealthy {
        since: at(5),
        reason: "timed out".into(),
    };
    out.drain = Some(Drain::begun(at(6)));
    out.held = Some(Held {
        since: at(7),
        until: at(8),
    });
    out.ejection = Some(ejection());
    out.ramp = Some(3);
    let fine = backend(3, "", 5, CatalogHealth::Passing);
    let traffic = BackendCounters {
        inbound: Counter {
            packets: 1,
            bytes: 2,
        },
        outbound: Counter {
            packets: 3,
            bytes: 4,
        },
        flows: 5,
        live_flows: 6,
        attempts: Attempts {
            accepted: 7,
            refused: 8,
            unanswered: 9,
            reset: 0,
        },
    };
    let mut counters = Counters::default();
    let key = ("echo".to_owned(), fine.id().clone(), fine.address());
    counters.backends.insert(key, traffic);
    let got = backends(&state(vec![out, fine], None), &counters);
    assert_eq!(
        got[0],
        proto::Backend {
            service: "echo".into(),
            id: "node2/echo".into(),
            address: "10.1.0.2:8080".into(),
            subset: Some("v1".into()),
            registered_weight: 10,
            reason: "weight 0".into(),
            health: "unhealthy".into(),
            catalog_health: "critical".into(),
            catalog_detail: "dead".into(),
            observed: "unhealthy".into(),
            observed_reason: "timed out".into(),
            observed_since_unix_ms: Some(5_000),
            draining_since_unix_ms: Some(6_000),
            held_until_unix_ms: Some(8_000),
            counters: Some(proto::Counters::default()),
            enabled: false,
            disabled_reason: "draining".into(),
            ejected_until_unix_ms: Some(33_000),
            ejected_reason: "5 connections in a row failed: refused".into(),
            slow_start_percent: Some(30),
            ..Default::default()
        }
    );
    assert_eq!((got[1].share_percent, &got[1].subset), (100.0, &None));
    assert_eq!(
        got[1].counters,
        Some(proto::Counters {
            packets_in: 1,
            bytes_in: 2,
            packets_out: 3,
            bytes_out: 4,
            flows_created: 5,
            flows_live: 6,
            connections_refused: 8,
            connections_unanswered: 9,
        })
    );
}

#[test]
fn a_service_counts_its_backends() {
    let mut drained = backend(4, "v2", 0, CatalogHealth::Passing);
    drained.drain = Some(Drain::begun(at(1)));
    let state = state(
        vec![
            backend(1, "v1", 3, CatalogHealth::Passing),
            backend(2, "v1", 1, CatalogHealth::Warning("slow".into())),
            backend(3, "v2", 0, CatalogHealth::Critical("dead".into())),
            drained,
        ],
        Some(&["v1=90", "v2=10"]),
    );
    let got = service(&state, &Counters::default());
    assert_eq!(
        (got.backends, got.backends_healthy, got.backends_active),
        (4, 3, 2),
        "a drained backend is healthy, but not active"
    );
    assert_eq!(got.vips, ["[2001:db8::10]:80"]);
    assert_eq!(got.origin, "config.toml:12");
    assert_eq!(got.consul_service.as_deref(), Some("echo-in-consul"));
    assert_eq!(
        got.probe,
        Some(proto::Probe {
            kind: "http".into(),
            path: Some("/health".into()),
            host: None,
            status_min: Some(200),
            status_max: Some(401),
            statuses: vec!["200-299".into(), "401".into()],
            body: Some("ok".into()),
            grpc_service: None,
            tls: Some(proto::ProbeTls {
                ca_cert: Some("/etc/ca.pem".into()),
                ..Default::default()
            }),
            port: None,
            interval_ms: 5_000,
            timeout_ms: 1_000,
            rise: 2,
            fall: 3,
        })
    );
    assert_eq!(got.split.unwrap().source, "cli");
}

/// A subset is shown whether a rule, the split or a backend names it, with what it really takes.
#[test]
fn a_split_shows_what_each_subset_takes() {
    let state = state(
        vec![
            backend(1, "v1", 30, CatalogHealth::Passing),
            backend(2, "v1", 10, CatalogHealth::Passing),
            backend(3, "v1", 0, CatalogHealth::Critical("dead".into())),
            backend(4, "v3", 0, CatalogHealth::Passing),
        ],
        Some(&["v1=90", "v0=10"]),
    );
    let got = service_split(&state);
    assert_eq!(got.configured_shares, BTreeMap::from([("v2".into(), 1)]));
    let rows: Vec<_> = got
        .subsets
        .iter()
        .map(|s| {
            let backends = (s.backends_active, s.backends);
            (s.subset.as_str(), s.share, s.share_percent, backends)
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("v0", Some(10), 0.0, (0, 0)),
            ("v1", Some(90), 100.0, (2, 3)),
            ("v2", None, 0.0, (0, 0)),
            ("v3", None, 0.0, (0, 1)),
        ]
    );
}

#[test]
fn a_service_without_backends_divides_by_nothing() {
    let state = state(vec![], None);
    assert_eq!(service(&state, &Counters::default()).backends_active, 0);
    let split = service_split(&state);
    assert_eq!((split.split, split.subsets[0].share_percent), (None, 0.0));
}

#[test]
fn a_rule_keeps_its_end_and_its_catch() {
    let entry = BlockEntry {
        rule: BlockRule {
            prefix: "192.0.2.0/24".parse().unwrap(),
            reason: "scan".into(),
            added: at(10),
            expires: Some(at(20)),
            origin: crate::domain::block::Origin::Operator,
        },
        dropped: Counter {
            packets: 1,
            bytes: 2,
        },
    };
    let got = block_entry(&entry);
    assert_eq!((got.dropped_packets, got.dropped_bytes), (1, 2));
    assert_eq!(
        got.rule,
        Some(proto::BlockRule {
            prefix: "192.0.2.0/24".into(),
            reason: "scan".into(),
            added_unix_ms: 10_000,
            expires_unix_ms: Some(20_000),
            origin: "operator".into(),
        })
    );
}
