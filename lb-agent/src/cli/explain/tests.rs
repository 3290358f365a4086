//! Tests of `explain`.

use super::*;
use crate::api::proto::{Factor, Split, SplitLayer};

fn from(kind: &str, text: &str, at_unix_ms: Option<i64>) -> Origin {
    Origin {
        kind: kind.into(),
        text: text.into(),
        at_unix_ms,
        ..Default::default()
    }
}

fn factor(name: &str, value: f64, note: &str, origin: Origin) -> Factor {
    Factor {
        name: name.into(),
        value,
        note: note.into(),
        origin: Some(origin),
    }
}

fn layer(shares: &[(&str, u32)], source: &str, in_force: bool, idle: Option<&str>) -> SplitLayer {
    let shares = shares
        .iter()
        .map(|(name, share)| ((*name).to_owned(), *share));
    SplitLayer {
        split: Some(Split {
            shares: shares.collect(),
            source: source.into(),
            origin: "split set".into(),
        }),
        idle: idle.map(str::to_owned),
        in_force,
    }
}

fn echo() -> ExplainedService {
    let file = || from("file", "/etc/x.toml:9", None);
    ExplainedService {
        matched: "vip".into(),
        because: "198.51.100.10:80 (tcp) is its VIP".into(),
        routes: Vec::new(),
        treatment: Vec::new(),
        service: Some(Service {
            name: "echo".into(),
            protocol: "tcp".into(),
            split_layers: vec![
                layer(
                    &[("v9", 1)],
                    "consul-kv",
                    false,
                    Some("there is no subset v9"),
                ),
                layer(&[("v1", 90), ("v2", 10)], "cli", true, None),
                layer(&[("v1", 1)], "file", false, None),
            ],
            ..Default::default()
        }),
        backends: vec![Backend {
            address: "10.1.0.2:8080".into(),
            weight: 9_000_000,
            share_percent: 90.0,
            reason: "subset v1 has 90 of 100, weight 1 of 1 in it".into(),
            ..Default::default()
        }],
        explanation: Some(Explanation {
            split_origins: vec![
                from("consul-key", "Consul key lb/split/echo, index 7", None),
                from("cli", "command line, alice", Some(40_000)),
                file(),
            ],
            backends: vec![BackendExplanation {
                address: "10.1.0.2:8080".into(),
                factors: vec![
                    factor("registered", 1.0, "", file()),
                    factor(
                        "split",
                        0.9,
                        "subset v1 has 90 of 100",
                        from("cli", "command line, alice", Some(40_000)),
                    ),
                    factor(
                        "health",
                        1.0,
                        "its probes succeed",
                        from("probe", "the agent's probes", None),
                    ),
                ],
                flows: 3,
                kernel: Some(KernelBackend {
                    id: 4,
                    present: true,
                    active: true,
                    address: "10.1.0.2:8080".into(),
                    source: "10.1.0.1".into(),
                    interface: Some("eth1".into()),
                    mac: Some("02:00:00:00:00:01".into()),
                    ..Default::default()
                }),
                expected_percent: 90.0,
                slots: 3684,
                slots_percent: 90.01,
            }],
            vips: vec![KernelVip {
                vip: "198.51.100.10:80".into(),
                present: true,
                service: 2,
                slots: 4093,
                flags: 0,
            }],
            tables: vec![KernelTable {
                service: 2,
                present: true,
                map: 77,
                slots: 4093,
                foreign: 0,
            }],
        }),
    }
}

#[test]
fn every_factor_has_its_value_and_its_source() {
    let reply = ExplainResponse {
        services: vec![echo()],
        now_unix_ms: 100_000,
    };
    assert_eq!(
        text(&reply),
        "\
service echo (tcp): 198.51.100.10:80 (tcp) is its VIP

SPLIT        COUNTS                      SOURCE
v9=1         no: there is no subset v9   Consul key lb/split/echo, index 7
v1=90 v2=10  yes                         command line, alice, 1m ago (split set)
v1=1         no: another goes before it  /etc/x.toml:9

BACKEND        FACTOR        VALUE  BECAUSE                                                     SOURCE
10.1.0.2:8080  registered        1  -                                                           /etc/x.toml:9
10.1.0.2:8080  split           0.9  subset v1 has 90 of 100                                     command line, alice, 1m ago
10.1.0.2:8080  health            1  its probes succeed                                          the agent's probes
10.1.0.2:8080  = weight    9000000  subset v1 has 90 of 100, weight 1 of 1 in it                90.0% of new flows
10.1.0.2:8080  in kernel      3684  entry 4, active, by eth1 to 02:00:00:00:00:01, as 10.1.0.1  slots 90.0% for 90.0% asked, 3 flows

kernel: VIP 198.51.100.10:80 is service 2 with 4093 slots, flags 0
kernel: the Maglev table of service 2 is map 77 with 4093 slots
"
    );
}

#[test]
fn what_the_kernel_lacks_is_said() {
    let mut one = echo();
    let explanation = one.explanation.as_mut().unwrap();
    explanation.vips[0].present = false;
    explanation.tables[0].foreign = 5;
    let entry = explanation.backends[0].kernel.as_mut().unwrap();
    entry.address = "10.9.9.9:1".into();
    entry.interface = None;
    let shown = service(&one, 0);
    for expected in [
        "there is no VIP 198.51.100.10:80",
        "5 of which lead to none of its backends",
        "but of 10.9.9.9:1, no way there is known",
    ] {
        assert!(shown.contains(expected), "{shown}");
    }
    one.matched = "tag".into();
    assert!(
        service(&one, 0).contains("requests are for a proxy"),
        "{shown}"
    );
}

#[test]
fn what_is_asked_is_told_apart() {
    let ask = |subject: &str, path: Option<&str>| {
        request(Args {
            subject: subject.into(),
            path: path.map(str::to_owned),
            method: None,
            header: vec!["x-canary: 1".into()],
        })
    };
    assert_eq!(ask("echo", None).unwrap().service.as_deref(), Some("echo"));
    for address in ["198.51.100.10:80", "[2001:db8::1]:53/udp"] {
        assert_eq!(
            ask(address, None).unwrap().address.as_deref(),
            Some(address)
        );
    }
    let asked = ask("web.example", Some("/x")).unwrap();
    assert_eq!(
        (asked.host.as_deref(), asked.path.as_deref()),
        (Some("web.example"), Some("/x"))
    );
    let header = &asked.headers[0];
    assert_eq!((&*header.name, &*header.value), ("x-canary", "1"));
    for (subject, path) in [
        ("web", Some("x")),
        ("10.1.0.2:99999", None),
        ("web/x", None),
    ] {
        assert_eq!(ask(subject, path).unwrap_err().exit_code(), 2, "{subject}");
    }
}
