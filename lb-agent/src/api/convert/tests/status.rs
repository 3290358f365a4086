//! The agent as a whole.

use super::*;

#[test]
fn status_adds_up() {
    let mut used = [0; State::COUNT];
    used[State::Free as usize] = 900;
    used[State::HalfOpen as usize] = 10;
    used[State::Established as usize] = 20;
    let agent = Status {
        drift: Default::default(),
        node_drain: None,
        drains: Vec::new(),
        version: 7,
        started: at(100),
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            mode: "native",
            adopted: true,
        }],
        docker: None,
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
