//! What the fake agent says of itself.

use super::*;

/// Service `echo` with a backend in each of its subsets, and `dns` without any.
pub(super) fn snapshot(drains: &BTreeMap<InstanceId, Drain>, split: Option<&Shares>) -> Snapshot {
    let service = |name: &str, backends: Vec<BackendState>| ServiceState {
        spec: Arc::new(ServiceSpec {
            name: name.into(),
            vips: vec!["198.51.100.10:80".parse().unwrap()],
            protocol: Protocol::Tcp,
            forwarding: Forwarding::Nat,
            affinity: Default::default(),
            allow: None,
            catalog: Catalog::Static(vec![]),
            subsets: backends
                .iter()
                .filter_map(|backend| Some((backend.subset.clone()?, SubsetRule::default())))
                .collect(),
            split: None,
            probe: None,
            gate: Default::default(),
            health: Default::default(),
            http: Default::default(),
            origin: Origin {
                file: "/etc/lb-agent/config.toml".into(),
                line: 7,
            },
        }),
        backends,
        split: None,
        splits: Default::default(),
        shift: None,
        panic: false,
        pending: false,
        notes: vec![],
        routes: Default::default(),
        steering: Default::default(),
        router: Default::default(),
    };
    let backend = |host: u8, subset: &str| {
        let address = std::net::SocketAddr::from(([10, 1, 0, host], 8080));
        let id = InstanceId(address.to_string().into());
        let drain = drains.get(&id).cloned();
        BackendState {
            subset: Some(subset.into()),
            observed: Observed::Unknown,
            ejection: None,
            ramp: None,
            weight: if drain.is_some() { 0 } else { 1 },
            reason: if drain.is_some() {
                "drained"
            } else {
                "weight 1"
            }
            .into(),
            drain,
            held: None,
            instance: Instance {
                id,
                address,
                weight: 1,
                tags: Default::default(),
                meta: Default::default(),
                subset: Some(subset.into()),
                detail: None,
                health: CatalogHealth::Passing,
            },
        }
    };
    let mut echo = service("echo", vec![backend(2, "v1"), backend(3, "v2")]);
    echo.split = split.map(|shares| ActiveSplit {
        shares: shares.clone(),
        source: SplitSource::Cli,
        origin: "split set".into(),
        fallback: Vec::new(),
    });
    let services = [service("dns", vec![]), echo];
    Snapshot {
        version: 1,
        services: services
            .into_iter()
            .map(|service| (service.spec.name.clone(), Arc::new(service)))
            .collect(),
    }
}

pub(super) fn status(mood: Mood, blocks: usize) -> Status {
    Status {
        node_drain: None,
        drains: Vec::new(),
        drift: Default::default(),
        version: 1,
        started: SystemTime::now(),
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            mode: "native",
            adopted: false,
        }],
        local_clients: None,
        consul: None,
        docker: None,
        watches: BTreeMap::new(),
        flows4: FlowTableUse::default(),
        flows6: FlowTableUse::default(),
        evictions: Default::default(),
        verdicts: vec![(
            Verdict::ForwardRequest,
            Counter {
                packets: 2,
                bytes: 120,
            },
        )],
        blocks,
        problems: if mood.troubled {
            vec!["service `dns` has no backend".into()]
        } else {
            vec![]
        },
        maglev_rebuilds: (Duration::ZERO, Duration::ZERO, 0),
        last_apply: Duration::ZERO,
    }
}

pub(super) fn counters() -> Counters {
    let echo = BackendCounters {
        inbound: Counter {
            packets: 5,
            bytes: 500,
        },
        flows: 2,
        live_flows: 1,
        ..Default::default()
    };
    Counters {
        services: BTreeMap::from([("echo".into(), echo)]),
        backends: BTreeMap::new(),
        returns: BTreeMap::new(),
        ejections: BTreeMap::new(),
    }
}

pub(super) fn history() -> Vec<Change> {
    let change = |from, to, reason: &str, source| Change {
        at: SystemTime::now(),
        service: "echo".into(),
        id: InstanceId("10.1.0.2:8080".into()),
        address: ([10, 1, 0, 2], 8080).into(),
        from,
        to,
        reason: reason.into(),
        source,
    };
    vec![
        change("unknown", "healthy", "a probe succeeded", Source::Probe),
        change("enabled", "draining", "by hand", Source::Operator),
    ]
}
