//! What people read of a service.

use super::*;
use crate::api::proto::{
    ConsideredRoute, Counters, HealthPolicy, Passive, Shift, Split, SplitLayer, Treatment,
};

fn echo() -> Service {
    Service {
        name: "echo".into(),
        protocol: "tcp".into(),
        forwarding: "nat".into(),
        vips: vec!["198.51.100.10:80".into(), "[2001:db8::10]:80".into()],
        origin: "/etc/lb-agent/config.toml:12".into(),
        consul_service: Some("echo".into()),
        probe: Some(Probe {
            kind: "http".into(),
            path: Some("/health".into()),
            statuses: vec!["200-299".into(), "401".into()],
            body: Some("ok".into()),
            tls: Some(Default::default()),
            port: Some(9000),
            interval_ms: 2000,
            timeout_ms: 500,
            rise: 2,
            fall: 3,
            ..Default::default()
        }),
        split: Some(Split {
            shares: [("v1".into(), 90), ("v2".into(), 10)].into(),
            source: "cli".into(),
            origin: "split set".into(),
        }),
        split_layers: vec![SplitLayer {
            split: Some(Split {
                shares: [("v1".into(), 100)].into(),
                source: "file".into(),
                origin: "/etc/lb-agent/config.toml:12".into(),
            }),
            idle: None,
            in_force: false,
        }],
        shift: Some(Shift {
            subset: "v2".into(),
            phase: "arrived".into(),
            base_shares: [("v1".into(), 100)].into(),
            percent: 10.0,
            ..Default::default()
        }),
        backends: 3,
        backends_healthy: 2,
        backends_active: 1,
        panic: false,
        affinity: "client".into(),
        restricted: true,
        allow: vec!["10.0.0.0/8".into(), "2001:db8::/32".into()],
        notes: vec![],
        routes: vec![],
        requests: None,
        counters: Some(Counters {
            packets_in: 1,
            bytes_in: 1024,
            packets_out: 2,
            bytes_out: 1024,
            flows_created: 9,
            flows_live: 4,
            ..Default::default()
        }),
        health: Some(HealthPolicy {
            panic_percent: 50,
            slow_start_ms: 30_000,
            passive: Some(Passive {
                failures: 5,
                eject_ms: 30_000,
                eject_max_ms: 300_000,
            }),
        }),
    }
}

#[test]
fn services_are_listed() {
    let plain = Service {
        name: "dns".into(),
        protocol: "udp".into(),
        vips: vec!["198.51.100.53:53".into()],
        ..Default::default()
    };
    let services = vec![plain, echo()];
    assert_eq!(
        list(&ListServicesResponse { services }),
        "\
NAME  PROTOCOL  VIP                                 BACKENDS  SPLIT        FLOWS  PACKETS     BYTES
dns   udp       198.51.100.53:53                         0/0  -                0        0       0 B
echo  tcp       198.51.100.10:80,[2001:db8::10]:80       2/3  v1=90 v2=10      4        3  2.00 KiB
"
    );
}

#[test]
fn a_service_is_shown_with_all_that_is_configured() {
    let reply = |service| GetServiceResponse {
        service: Some(service),
        backends: vec![],
        now_unix_ms: 0,
        explanation: None,
    };
    assert_eq!(
            show(&reply(echo())),
            "\
name          echo
protocol      tcp, forwarding nat
vip           198.51.100.10:80, [2001:db8::10]:80
allow         10.0.0.0/8, 2001:db8::/32
affinity      client; its address chooses the backend
configured    /etc/lb-agent/config.toml:12
catalog       Consul, service echo
probe         http GET /health expecting 200-299,401 and \"ok\" in the body over TLS on port 9000, every 2s, timeout 500ms, rise 2, fall 3
ejection      after 5 failures in a row, for 30s at first, 5m at most; all are used below 50% healthy
slow start    30s
split         v1=90 v2=10 (set by cli: split set)
not in force  v1=100 by file (/etc/lb-agent/config.toml:12)
shift         v2 has 10.0 % and is watched; if its gate fails, back to v1=100
backends      2 of 3 healthy, 1 taking new flows
flows         4 now, 9 so far
from clients  1 packet, 1.00 KiB
to clients    2 packets, 1.00 KiB

there are no backends
"
        );
    let bare = show(&reply(Service {
        panic: true,
        notes: vec!["service-resolver redirects it to other".into()],
        ..Default::default()
    }));
    for expected in [
        "catalog       the configuration file\n",
        "allow         everybody\n",
        "probe         none; the catalog's word counts\n",
        "split         none; backends share by their weights\n",
        "\n✗ too few backends are healthy, so all are used\n! service-resolver redirects it to other\n",
    ] {
        assert!(bare.contains(expected), "{bare}");
    }
}

/// Of a service that the proxy serves: how, and who says so.
#[test]
fn requests_are_shown_with_their_treatment() {
    let fact = |name: &str, value: &str, source: &str| Treatment {
        name: name.into(),
        value: value.into(),
        source: source.into(),
    };
    let requests = Requests {
        hosts: vec!["web.example".into(), "*.web.example".into()],
        routes: vec![ConsideredRoute {
            route: "/a* to subset v2".into(),
            source: "config".into(),
            misfit: None,
        }],
        treatment: vec![
            fact("timeout", "15s", "default"),
            fact("retries", "1, within 20 % of requests or 10/s", "c.toml:3"),
        ],
    };
    let reply = GetServiceResponse {
        service: Some(Service {
            requests: Some(requests),
            ..echo()
        }),
        ..Default::default()
    };
    let expected = "
there are no backends

also known as web.example, *.web.example

ROUTE             SOURCE
/a* to subset v2  config

REQUESTS  VALUE                               SOURCE
timeout   15s                                 default
retries   1, within 20 % of requests or 10/s  c.toml:3
";
    let text = show(&reply);
    assert!(text.ends_with(expected), "{text}");
}
