//! What the messages say of a service with one backend of every kind.

use std::sync::Arc;

use lb_common::socket::SocketStats;

use super::*;
use crate::{
    controller::{InterfaceStatus, LocalClientsStatus},
    domain::{
        backend::{Instance, InstanceId},
        service::{Forwarding, Origin, Protocol, ServiceSpec, SubsetRule},
        snapshot::{Drain, Held},
        split::{ActiveSplit, Shares, SplitSource},
    },
};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn backend(host: u8, subset: &str, weight: u32, health: CatalogHealth) -> BackendState {
    let address = std::net::SocketAddr::from(([10, 1, 0, host], 8080));
    BackendState {
        instance: Instance {
            id: InstanceId(format!("node{host}/echo")),
            address,
            weight: 10,
            tags: Default::default(),
            meta: Default::default(),
            subset: None,
            health,
        },
        subset: (!subset.is_empty()).then(|| subset.to_owned()),
        observed: Observed::Unknown,
        drain: None,
        held: None,
        weight,
        reason: format!("weight {weight}"),
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
                    status: (200, 399),
                },
                ..Default::default()
            }),
            gate: Default::default(),
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
    }
}

#[test]
fn moments_before_and_after_1970() {
    assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_micros(1_999)), 1);
    assert_eq!(unix_ms(UNIX_EPOCH), 0);
    assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_millis(5)), -5);
}

/// Rows of what catalog and probes say, and what it comes to.
#[test]
fn health_is_one_word() {
    let healthy = Observed::Healthy { since: at(1) };
    let unhealthy = Observed::Unhealthy {
        since: at(2),
        reason: "connection refused".into(),
    };
    let warning = || CatalogHealth::Warning("slow".into());
    let critical = || CatalogHealth::Critical("dead".into());
    let maintenance = || CatalogHealth::Maintenance("new disk".into());
    let rows = [
        (CatalogHealth::Passing, Observed::Unknown, "healthy"),
        (CatalogHealth::Passing, healthy.clone(), "healthy"),
        (CatalogHealth::Passing, unhealthy.clone(), "unhealthy"),
        (warning(), healthy.clone(), "warning"),
        (warning(), unhealthy.clone(), "unhealthy"),
        (critical(), healthy.clone(), "unhealthy"),
        (critical(), Observed::Unknown, "unhealthy"),
        (maintenance(), healthy, "maintenance"),
        (maintenance(), unhealthy, "maintenance"),
    ];
    for (catalog, observed, word) in rows {
        let mut state = backend(1, "", 1, catalog);
        state.observed = observed;
        assert_eq!(health(&state), word, "{state:?}");
    }
}

#[test]
fn a_backend_carries_every_factor_of_its_weight() {
    let mut out = backend(2, "v1", 0, CatalogHealth::Critical("dead".into()));
    out.observed = Observed::Unhealthy {
        since: at(5),
        reason: "timed out".into(),
    };
    out.drain = Some(Drain { since: at(6) });
    out.held = Some(Held {
        since: at(7),
        until: at(8),
    });
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
            weight: 0,
            share_percent: 0.0,
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
        }
    );
    assert_eq!(got[1].share_percent, 100.0);
    assert_eq!(got[1].subset, None);
    assert_eq!(
        got[1].counters,
        Some(proto::Counters {
            packets_in: 1,
            bytes_in: 2,
            packets_out: 3,
            bytes_out: 4,
            flows_created: 5,
            flows_live: 6,
        })
    );
}

#[test]
fn a_service_counts_its_backends() {
    let mut drained = backend(4, "v2", 0, CatalogHealth::Passing);
    drained.drain = Some(Drain { since: at(1) });
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
            status_max: Some(399),
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
    assert_eq!(split.split, None);
    assert_eq!(split.subsets[0].share_percent, 0.0);
}

#[test]
fn status_adds_up() {
    let mut used = [0; 9];
    used[State::Free as usize] = 900;
    used[State::HalfOpen as usize] = 10;
    used[State::Established as usize] = 20;
    let agent = Status {
        version: 7,
        started: at(100),
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            mode: "native",
            adopted: true,
        }],
        local_clients: Some(LocalClientsStatus {
            cgroup: "/sys/fs/cgroup".into(),
            adopted: true,
            stats: SocketStats {
                translated: 12,
                refused: 3,
            },
        }),
        consul: None,
        watches: BTreeMap::from([(
            "health/echo".into(),
            WatchStatus {
                last_success: Some(at(150)),
                errors: 2,
                ..Default::default()
            },
        )]),
        flows4: FlowTableUse { slots: 1024, used },
        flows6: FlowTableUse::default(),
        evictions: Default::default(),
        verdicts: vec![(
            Verdict::DropBlocked,
            Counter {
                packets: 1,
                bytes: 60,
            },
        )],
        blocks: 3,
        problems: vec!["trouble".into()],
        maglev_rebuilds: (Duration::from_millis(2), Duration::from_millis(9), 4),
        last_apply: Duration::from_micros(70),
    };
    let services = [
        ("echo", vec![backend(1, "", 1, CatalogHealth::Passing)]),
        ("dns", vec![]),
    ];
    let snapshot = Snapshot {
        version: 7,
        services: services
            .into_iter()
            .map(|(name, backends)| (name.to_owned(), Arc::new(state(backends, None))))
            .collect(),
    };
    let got = status(&agent, &snapshot, at(160));
    assert_eq!(got.agent_version, env!("CARGO_PKG_VERSION"));
    assert_eq!((got.started_unix_ms, got.now_unix_ms), (100_000, 160_000));
    assert_eq!(
        got.catalog,
        Some(proto::CatalogCounts {
            services: 2,
            services_healthy: 1,
            backends: 1,
            backends_healthy: 1,
        })
    );
    assert_eq!(got.watches[0].last_success_unix_ms, Some(150_000));
    assert_eq!(got.watches[0].last_change_unix_ms, None);
    assert_eq!(got.flow_tables[0].used, 30, "free slots are not used");
    assert_eq!(
        got.flow_tables[0].used_by_state,
        BTreeMap::from([("established".into(), 20), ("half_open".into(), 10)])
    );
    assert_eq!(got.flow_tables[1].family, "ipv6");
    assert_eq!(got.verdicts[0].action, "drop");
    assert_eq!(got.verdicts[0].name, "blocked");
    assert_eq!(got.verdicts[0].help, "The source is on the block list.");
    assert_eq!(
        got.maglev_rebuilds,
        Some(proto::MaglevRebuilds {
            count: 4,
            last_us: 2_000,
            total_us: 9_000,
        })
    );
    assert_eq!((got.block_rules, got.last_apply_us), (3, 70));
    assert_eq!(got.problems, ["trouble"]);
    assert_eq!(
        got.local_clients,
        Some(proto::LocalClients {
            cgroup: "/sys/fs/cgroup".into(),
            adopted: true,
            translated: 12,
            refused: 3,
        })
    );
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
