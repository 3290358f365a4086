//! What the scripted controller answers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use lb_common::{entry::Counter, flow, socket::SocketStats, verdict::Verdict};

use crate::{
    controller::{
        BackendCounters, FlowTableUse, InterfaceStatus, LocalClientsStatus, Status,
        handle::Counters,
    },
    domain::{
        backend::{CatalogHealth, Instance, InstanceId},
        block::parse_prefix,
        drift::DriftRecord,
        health::Observed,
        http::exchange::Outcome,
        kernel::Attempts,
        registration::RegistrarStatus,
        service::{Catalog, Forwarding, Origin, Protocol, ServiceSpec},
        shift::{Phase, Shift, ShiftState},
        snapshot::{BackendState, Held, ServiceState, Snapshot},
        split::{ActiveSplit, Shares, SplitSource},
        sync::WatchStatus,
    },
    proxy::telemetry::counts::{Counts, Finished},
};

fn counter(packets: u64) -> Counter {
    Counter {
        packets,
        bytes: packets * 100,
    }
}

fn counters(packets: u64) -> BackendCounters {
    BackendCounters {
        inbound: counter(packets),
        outbound: counter(packets + 1),
        flows: packets + 2,
        live_flows: packets + 3,
        attempts: Attempts {
            accepted: packets,
            refused: packets + 4,
            unanswered: packets + 5,
            reset: packets + 6,
        },
    }
}

pub(crate) fn status() -> Status {
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let watch = |last_success, error: Option<&str>, errors| WatchStatus {
        last_success,
        error: error.map(str::to_owned),
        errors,
        ..WatchStatus::default()
    };
    let mut used = [0; flow::State::COUNT];
    used[flow::State::Free as usize] = 900;
    used[flow::State::Established as usize] = 24;
    Status {
        node_drain: None,
        drains: Vec::new(),
        version: 17,
        started,
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            mode: "native",
            adopted: true,
        }],
        local_clients: Some(LocalClientsStatus {
            cgroup: "/sys/fs/cgroup".into(),
            adopted: false,
            stats: SocketStats {
                translated: 12,
                refused: 3,
            },
        }),
        consul: None,
        docker: Some(RegistrarStatus {
            containers: 3,
            wanted: Some(4),
            registered: 2,
            engine_errors: 5,
            consul_error: Some("refused".into()),
            consul_errors: 6,
            registrations: 7,
            deregistrations: 8,
            warnings: ["a".to_owned(), "b".to_owned()].into(),
            refusals: vec!["c".into()],
            ..RegistrarStatus::default()
        }),
        watches: BTreeMap::from([
            ("health/echo".into(), watch(Some(started), None, 4)),
            (
                "health/stale".into(),
                watch(Some(started), Some("timed out"), 5),
            ),
            ("health/never".into(), watch(None, None, 0)),
        ]),
        flows4: FlowTableUse { slots: 1024, used },
        flows6: FlowTableUse::default(),
        evictions: lb_common::entry::EvictionStats {
            closed: 2,
            half_open: 7,
        },
        verdicts: vec![
            (Verdict::DropBlocked, counter(7)),
            (Verdict::ForwardRequest, counter(1_000_000_000_000)),
        ],
        blocks: 2,
        problems: Vec::new(),
        maglev_rebuilds: (
            Duration::from_micros(1500),
            Duration::from_millis(2500),
            1234,
        ),
        drift: DriftRecord {
            repairs: BTreeMap::from([("backend", 2)]),
            ..DriftRecord::default()
        },
        last_apply: Duration::from_millis(3),
    }
}

fn backend(id: &str, address: &str, health: CatalogHealth, observed: Observed) -> BackendState {
    BackendState {
        instance: Instance {
            id: InstanceId(id.into()),
            address: address.parse().unwrap(),
            weight: 1,
            tags: Default::default(),
            meta: Default::default(),
            subset: None,
            detail: None,
            health,
        },
        subset: None,
        observed,
        ejection: None,
        ramp: None,
        drain: None,
        held: None,
        weight: 100,
        reason: "".into(),
    }
}

pub(crate) fn snapshot() -> Snapshot {
    let since = SystemTime::UNIX_EPOCH;
    let spec = ServiceSpec {
        name: "echo".into(),
        vips: vec!["198.51.100.10:80".parse().unwrap()],
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
            file: "config.toml".into(),
            line: 1,
        },
    };
    let unhealthy = Observed::Unhealthy {
        since,
        reason: "connection refused".into(),
    };
    let backends = vec![
        BackendState {
            subset: Some("v1".into()),
            ..backend(
                "node-a/echo-1",
                "10.1.0.2:8080",
                CatalogHealth::Critical("TTL expired".into()),
                Observed::Healthy { since },
            )
        },
        BackendState {
            weight: 0,
            held: Some(Held {
                since,
                until: since,
            }),
            ..backend(
                "node-a/\"odd\"\\id",
                "10.1.0.3:8080",
                CatalogHealth::Passing,
                unhealthy,
            )
        },
        backend(
            "c",
            "[fd00::4]:80",
            CatalogHealth::Maintenance(String::new()),
            Observed::Unknown,
        ),
        backend(
            "d",
            "10.1.0.5:80",
            CatalogHealth::Critical("TTL expired".into()),
            Observed::Unknown,
        ),
    ];
    let echo = ServiceState {
        spec: Arc::new(spec),
        backends,
        split: Some(ActiveSplit {
            shares: Shares::parse(&["v1=1", "v2=3"]).unwrap(),
            source: SplitSource::Cli,
            origin: "split set".into(),
            fallback: Vec::new(),
        }),
        splits: Default::default(),
        shift: Some(ShiftState {
            shift: Shift {
                subset: "v2".into(),
                base: Shares::parse(&["v1=1"]).unwrap(),
                shares: Shares::parse(&["v1=1", "v2=3"]).unwrap(),
                began: since,
                phase: Phase::Arrived,
            },
            failed: 0,
            last: None,
        }),
        panic: true,
        pending: false,
        notes: Vec::new(),
        routes: Default::default(),
        steering: Default::default(),
        router: Default::default(),
    };
    Snapshot {
        version: 17,
        services: BTreeMap::from([("echo".into(), Arc::new(echo))]),
    }
}

pub(crate) fn all_counters() -> Counters {
    let key = |id: &str, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        ("echo".to_owned(), InstanceId(id.into()), address)
    };
    Counters {
        services: BTreeMap::from([
            ("echo".into(), counters(50)),
            ("vanished".into(), counters(60)),
        ]),
        returns: BTreeMap::from([("echo".into(), 2)]),
        backends: BTreeMap::from([
            (key("node-a/echo-1", "10.1.0.2:8080"), counters(40)),
            (key("node-a/vanished", "10.1.0.9:8080"), counters(10)),
        ]),
        ejections: BTreeMap::from([("echo".into(), 3), ("vanished".into(), 4)]),
    }
}

pub(crate) fn blocked(prefix: &str, packets: u64) -> (IpNet, Counter) {
    (parse_prefix(prefix).unwrap(), counter(packets))
}

/// Two requests of one route, on a backend and on none.
pub(crate) fn counts() -> Arc<Counts> {
    let counts = Arc::<Counts>::default();
    let address: SocketAddr = "10.1.0.2:8080".parse().unwrap();
    let listener = counts.listener("[::]:80".parse().unwrap());
    listener.handshakes_failed.fetch_add(1, Relaxed);
    for (code, outcome) in [
        (400, Outcome::BadRequest),
        (408, Outcome::TimedOut),
        (400, Outcome::BadRequest),
    ] {
        listener.unread.add(code, outcome);
    }
    let service = counts.service(&"web".into());
    service.pool(address);
    let route = service.route(&"/a".into());
    for (thread, backend, status, outcome) in [
        (0, Some(address), 200, Outcome::Answered),
        (1, None, 503, Outcome::NoBackend),
    ] {
        let finished = Finished {
            grpc: Some(Some(14)),
            status,
            outcome,
            received: 1,
            sent: 2,
            total: Duration::from_millis(3),
            first_byte: Some(Duration::from_millis(2)),
            overhead: Some(Duration::from_micros(20)),
        };
        let share = route.share(thread);
        share.finish(&share.backend("v1".into(), backend), &finished);
    }
    counts
}
