//! What people read of the agent.

use super::*;
use crate::api::proto::{CatalogCounts, Drift, Evictions, LocalClients, MaglevRebuilds};

fn busy() -> StatusResponse {
    let verdict = |action: &str, name: &str, packets| VerdictCount {
        action: action.into(),
        name: name.into(),
        help: "A sentence.".into(),
        packets,
        bytes: packets * 100,
    };
    StatusResponse {
        agent_version: "0.1.0".into(),
        snapshot_version: 42,
        now_unix_ms: 1_000_000,
        started_unix_ms: 940_000,
        interfaces: vec![
            Interface {
                name: "eth0".into(),
                mode: "native".into(),
                adopted: true,
            },
            Interface {
                name: "eth1".into(),
                mode: "generic".into(),
                adopted: false,
            },
        ],
        consul_address: Some("http://127.0.0.1:8500".into()),
        watches: vec![
            Watch {
                name: "health/echo".into(),
                last_success_unix_ms: Some(997_400),
                last_change_unix_ms: Some(950_000),
                index: 7,
                error: None,
                errors: 0,
            },
            Watch {
                name: "services".into(),
                errors: 3,
                error: Some("connection refused".into()),
                ..Default::default()
            },
        ],
        catalog: Some(CatalogCounts {
            services: 2,
            services_healthy: 1,
            backends: 5,
            backends_healthy: 3,
        }),
        flow_tables: vec![FlowTable {
            family: "ipv4".into(),
            slots: 1000,
            used: 40,
            used_by_state: [("established".into(), 30), ("half_open".into(), 10)].into(),
        }],
        evictions: Some(Evictions {
            closed: 2,
            half_open: 7,
        }),
        verdicts: vec![
            verdict("forward", "request", 12),
            verdict("drop", "internal", 0),
        ],
        block_rules: 1,
        maglev_rebuilds: Some(MaglevRebuilds {
            count: 2,
            last_us: 1500,
            total_us: 3000,
        }),
        last_apply_us: 800,
        drift: Some(Drift {
            repairs: [("backend".into(), 2), ("service".into(), 0)].into(),
            compared_unix_ms: Some(998_000),
            last_unix_ms: Some(940_000),
            last: Some("backend 7 was nothing".into()),
        }),
        problems: vec!["service `dns` has no healthy backend".into()],
        docker: None,
        local_clients: Some(LocalClients {
            cgroup: "/sys/fs/cgroup".into(),
            adopted: true,
            translated: 12,
            refused: 3,
        }),
        ..Default::default()
    }
}

#[test]
fn everything_is_shown_and_problems_come_last() {
    assert_eq!(
        text(&busy()),
        "\
agent          0.1.0, up 1m, state version 42
interfaces     eth0 (native, adopted), eth1 (generic)
local clients  in /sys/fs/cgroup (adopted): 12 sent to a backend, 3 refused
consul         http://127.0.0.1:8500
containers     not registered
services       1 of 2 with a healthy backend
backends       3 of 5 healthy
evictions      7 unanswered and 2 closed flows gave way to newer ones
block list     1 rule
maglev         2 rebuilds, the last took 1ms
drift          mended backend=2; 1m ago: backend 7 was nothing; compared 2s ago
last change    in the kernel after 800µs

WATCH        ANSWERED  CHANGED  ERRORS  LAST ERROR
health/echo    2s ago  50s ago       0  -
services        never    never       3  connection refused

FLOW TABLE  SLOTS  USED  USED%  STATES
ipv4         1000    40   4.0%  established=30 half_open=10

ACTION   VERDICT  PACKETS     BYTES  MEANING
forward  request       12  1.17 KiB  A sentence.

✗ service `dns` has no healthy backend
"
    );
}

#[test]
fn an_idle_agent_shows_no_empty_tables() {
    let mut status = busy();
    status.consul_address = None;
    status.watches.clear();
    status.verdicts.clear();
    status.interfaces.clear();
    status.local_clients = None;
    status.maglev_rebuilds = None;
    status.problems.clear();
    status.drift = Some(Drift {
        compared_unix_ms: Some(999_000),
        ..Default::default()
    });
    let text = text(&status);
    for expected in [
        "interfaces     none\n",
        "local clients  not served\n",
        "consul         not configured\n",
        "maglev         none built yet\n",
        "drift          none; compared 1s ago\n",
        "\nhealthy: nothing is known to be wrong\n",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(
        !text.contains("WATCH") && !text.contains("VERDICT"),
        "{text}"
    );
}
