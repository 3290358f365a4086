//! What is read from configurations without a fault.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use super::{
    super::{NatPorts, NewFlows, NodeConfig, Publish, RunAs, XdpMode},
    EXAMPLE, NODE, expand, read,
};
use crate::domain::{
    backend::{CatalogHealth, Instance, InstanceId},
    gate::GateSpec,
    passive::PassiveSpec,
    service::{
        Affinity, Catalog, Forwarding, HealthPolicy, ProbeKind, ProbeSpec, Protocol, SubsetRule,
        TlsSpec,
    },
    split::Shares,
};

#[test]
fn the_smallest_file_takes_every_default() {
    let config = read(NODE, &[("CONSUL_HTTP_ADDR", "consul:8500")]).unwrap();
    assert_eq!(config.consul, None);
    assert_eq!(config.metrics.listen.to_string(), "127.0.0.1:9180");
    assert!(config.services.is_empty());
    let node = config.node;
    assert_eq!(node.socket(), Path::new("/run/lb-agent/agent.sock"));
    assert_eq!(node.interfaces, ["eth0"]);
    assert_eq!(node.xdp_mode, XdpMode::Auto);
    assert_eq!(node.state_dir, Path::new("/var/lib/lb-agent"));
    assert_eq!(node.bpf_dir, Path::new("/sys/fs/bpf/lb-agent"));
    assert_eq!(node.flow_slots, lb_common::maps::DEFAULT_FLOW_SLOTS);
    assert_eq!(node.nat_ports, NatPorts::Auto);
    assert!(!node.local_clients);
    assert_eq!(node.cgroup, None);
    assert_eq!(node.user, RunAs::Auto);
    assert!(node.decapsulate.is_empty() && node.decapsulate_from.is_empty());
}

#[test]
fn every_key_of_the_node_is_read() {
    let text = "[node]\ninterfaces = [\"eth0\", \"bond0.12\"]\nxdp_mode = \"native\"\n\
                announce = [\"eth0\"]\nstate_dir = \"/a\"\nruntime_dir = \"/b\"\nbpf_dir = \"/c\"\nflow_slots = 4096\nnew_flows = 50000\n\
                nat_ports = \"40000-59999\"\nlocal_clients = true\ncgroup = \"/d\"\n\
                decapsulate = [\"198.51.100.10\", \"2001:db8::10\"]\n\
                decapsulate_from = [\"10.0.0.1/8\", \"::/0\"]\n\
                user = \"balancer\"\ndrift_check = \"30s\"\n[metrics]\nlisten = \"[::]:9180\"";
    let config = read(text, &[]).unwrap();
    assert_eq!(
        config.node,
        NodeConfig {
            interfaces: vec!["eth0".into(), "bond0.12".into()],
            announce: vec!["eth0".into()],
            xdp_mode: XdpMode::Native,
            state_dir: "/a".into(),
            runtime_dir: "/b".into(),
            bpf_dir: "/c".into(),
            flow_slots: 4096,
            new_flows: NewFlows::PerSecond(50_000),
            nat_ports: NatPorts::Range {
                first: 40_000,
                last: 59_999
            },
            local_clients: true,
            cgroup: Some("/d".into()),
            decapsulate: vec![
                "198.51.100.10".parse().unwrap(),
                "2001:db8::10".parse().unwrap()
            ],
            decapsulate_from: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()],
            user: RunAs::User("balancer".into()),
            drift_check: Duration::from_secs(30),
        }
    );
    assert_eq!(config.metrics.listen.to_string(), "[::]:9180");
}

#[test]
fn filters_and_datacenters() {
    let text = format!(
        "{NODE}\n[consul]\nauto_publish = [\"198.51.100.0/24\"]\n[[service]]\nname = \"echo\"\n\
         vip = [\"198.51.100.10:80\"]\nconsul = {{ service = \"echo\", datacenter = \"dc2\" }}\n\
         subsets = {{ v1 = {{ filter = \"v1 in Service.Tags\", tag = \"a\" }} }}"
    );
    let config = read(&text, &[]).unwrap();
    let within = Publish::Within(vec!["198.51.100.0/24".parse().unwrap()]);
    assert_eq!(config.consul.unwrap().auto_publish, within);
    let service = &config.services[0];
    let catalog = Catalog::Consul {
        service: "echo".into(),
        datacenter: Some("dc2".into()),
    };
    assert_eq!(service.catalog, catalog);
    let rule = &service.subsets["v1"];
    assert_eq!(
        rule.filter.as_ref().unwrap().to_string(),
        "v1 in Service.Tags"
    );
}

/// The example of the documentation, with what this version has.
#[test]
fn the_example_is_valid() {
    let config = read(EXAMPLE, &[]).unwrap();
    let [service] = config.services.as_slice() else {
        panic!("{config:#?}")
    };
    assert_eq!(service.name, "echo");
    assert_eq!(service.vips, ["198.51.100.10:80".parse().unwrap()]);
    assert_eq!(service.protocol, Protocol::Tcp);
    assert_eq!(service.forwarding, Forwarding::Nat);
    assert_eq!(service.affinity, Affinity::Connection);
    assert_eq!(service.allow, None);
    let catalog = Catalog::Consul {
        service: "echo".into(),
        datacenter: None,
    };
    assert_eq!(service.catalog, catalog);
    let v1 = SubsetRule {
        tag: Some("v1".into()),
        ..SubsetRule::default()
    };
    let v2 = SubsetRule {
        meta: BTreeMap::from([("version".into(), "2".into())]),
        ..SubsetRule::default()
    };
    let subsets = BTreeMap::from([("v1".into(), v1), ("v2".into(), v2)]);
    assert_eq!(service.subsets, subsets);
    assert_eq!(
        service.split,
        Some(Shares::parse(&["v1=90", "v2=10"]).unwrap())
    );
    let probe = ProbeSpec {
        kind: ProbeKind::Http {
            path: "/health".into(),
            host: None,
            status: vec![(200, 399)],
            body: None,
            tls: None,
        },
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        port: None,
    };
    assert_eq!(service.probe, Some(probe));
    assert_eq!(service.origin.to_string(), "lb.toml:12");
}

/// Host bits do not count, and what stands twice counts once.
#[test]
fn who_may_use_a_service_and_what_chooses_its_backend() {
    let text = "NODE\n[[service]]\nname = \"a\"\nvip = [\"192.0.2.1:80\", \"[2001:db8::1]:80\"]\n\
                backends = []\naffinity = \"client\"\n\
                allow = [\"10.1.2.3/8\", \"10.0.0.0/8\", \"192.0.2.7\", \"::/0\"]";
    let config = read(&expand(text), &[]).unwrap();
    let service = &config.services[0];
    assert_eq!(service.affinity, Affinity::Client);
    let allow: Vec<String> = service
        .allow
        .iter()
        .flatten()
        .map(|net| net.to_string())
        .collect();
    assert_eq!(allow, ["10.0.0.0/8", "192.0.2.7/32", "::/0"]);
    let text = "NODE\nSERVICE\nbackends = []\naffinity = \"connection\"";
    let config = read(&expand(text), &[]).unwrap();
    assert_eq!(config.services[0].affinity, Affinity::Connection);
}

#[test]
fn the_catalog_in_the_file() {
    let text = expand(
        "NODE\n[[service]]\nname = \"dns\"\nprotocol = \"udp\"\n\
         vip = [\"192.0.2.1:53\", \"[2001:db8::1]:53\"]\nsplit = { v2 = 1 }\nbackends = [\n\
         { address = \"10.0.0.1:53\" },\n\
         { address = \"[2001:db8::2]:53\", weight = 0, subset = \"v2\", tags = [\"a\"], \
         meta = { k = \"v\" } },\n]",
    );
    let config = read(&text, &[]).unwrap();
    let instance = |address: &str| Instance {
        id: InstanceId(address.into()),
        address: address.parse::<SocketAddr>().unwrap(),
        weight: 1,
        tags: Default::default(),
        meta: Default::default(),
        subset: None,
        detail: None,
        health: CatalogHealth::Passing,
    };
    let instances = vec![
        instance("10.0.0.1:53"),
        Instance {
            weight: 0,
            subset: Some("v2".into()),
            detail: None,
            tags: vec!["a".into()].into(),
            meta: BTreeMap::from([("k".into(), "v".into())]).into(),
            ..instance("[2001:db8::2]:53")
        },
    ];
    let service = &config.services[0];
    assert_eq!(service.catalog, Catalog::Static(instances));
    assert_eq!(service.protocol, Protocol::Udp);
    assert_eq!(service.split.as_ref().unwrap().to_string(), "v2=1");
    assert_eq!(service.probe, None);
}

/// Rows of a health table and what is read from it: status range and timeout.
#[test]
fn health_defaults() {
    let rows = [
        ("kind = \"http\", path = \"/\"", Some((200, 399)), 1000),
        (
            "kind = \"http\", path = \"/?a=b\", status = 204",
            Some((204, 204)),
            1000,
        ),
        (
            "kind = \"http\", path = \"/\", status = \"204\"",
            Some((204, 204)),
            1000,
        ),
        (
            "kind = \"http\", path = \"/\", status = \"200-299\"",
            Some((200, 299)),
            1000,
        ),
        (
            "kind = \"http\", path = \"/\", host = \"a:80\"",
            Some((200, 399)),
            1000,
        ),
        ("kind = \"tcp\", interval = \"200ms\"", None, 200),
        (
            "kind = \"tcp\", timeout = \"5s\", rise = 100, fall = 1, port = 81",
            None,
            5000,
        ),
    ];
    for (health, status, timeout) in rows {
        let text = expand(&format!(
            "NODE\nSERVICE\nbackends = []\nhealth = {{ {health} }}"
        ));
        let config = read(&text, &[]).unwrap();
        let probe = config.services[0].probe.clone().unwrap();
        let found = match probe.kind {
            ProbeKind::Http { status, .. } => Some(status),
            ProbeKind::Tcp | ProbeKind::Grpc { .. } => None,
        };
        let status = status.map(|range| vec![range]);
        assert_eq!(found, status, "{health}");
        assert_eq!(probe.timeout, Duration::from_millis(timeout), "{health}");
    }
}

/// The health table of a service, as it is read.
fn health(inside: &str) -> (Option<ProbeKind>, HealthPolicy) {
    let text = expand(&format!(
        "NODE\nSERVICE\nbackends = []\nhealth = {{ {inside} }}"
    ));
    let service = read(&text, &[]).unwrap().services.remove(0);
    let probe = service.probe.as_ref().map(|probe| probe.kind.clone());
    (probe, service.health.clone())
}

/// What can be asked of a backend besides a path and a status.
#[test]
fn kinds_of_probes() {
    let kind = |inside: &str| health(inside).0;
    assert_eq!(kind("kind = \"none\""), None);
    let http = |status, body: Option<&str>, tls| {
        Some(ProbeKind::Http {
            path: "/".into(),
            host: None,
            status,
            body: body.map(str::to_owned),
            tls,
        })
    };
    let usual = || vec![(200, 399)];
    assert_eq!(
        kind("kind = \"http\", path = \"/\", status = [204, \"300-399\"], body = \"up\""),
        http(vec![(204, 204), (300, 399)], Some("up"), None)
    );
    let plain = "kind = \"http\", path = \"/\"";
    assert_eq!(
        kind(&format!("{plain}, tls = false")),
        http(usual(), None, None)
    );
    assert_eq!(
        kind(&format!("{plain}, tls = true")),
        http(usual(), None, Some(TlsSpec::default()))
    );
    assert_eq!(
        kind(&format!(
            "{plain}, tls = {{ server_name = \"a.example\", ca_cert = \"/ca\", \
             client_cert = \"/c\", client_key = \"/k\" }}"
        )),
        http(
            usual(),
            None,
            Some(TlsSpec {
                server_name: Some("a.example".into()),
                ca_cert: Some("/ca".into()),
                identity: Some(("/c".into(), "/k".into())),
                insecure: false,
            })
        )
    );
    let grpc = |service: &str, tls| {
        Some(ProbeKind::Grpc {
            service: service.into(),
            host: None,
            tls,
        })
    };
    assert_eq!(kind("kind = \"grpc\""), grpc("", None));
    let insecure = TlsSpec {
        insecure: true,
        ..TlsSpec::default()
    };
    assert_eq!(
        kind("kind = \"grpc\", service = \"shop.v1.Cart\", tls = { insecure = true }"),
        grpc("shop.v1.Cart", Some(insecure))
    );
}

/// Panic, slow start and ejection, with what counts where nothing is said.
#[test]
fn what_else_decides_on_health() {
    let policy = |inside: &str| health(&format!("kind = \"tcp\"{inside}")).1;
    assert_eq!(policy(""), HealthPolicy::default());
    assert_eq!(policy(", passive = true"), HealthPolicy::default());
    assert_eq!(policy(", passive = {}"), HealthPolicy::default());
    let seconds = Duration::from_secs;
    assert_eq!(
        policy(", panic = 0, slow_start = \"0s\", passive = false"),
        HealthPolicy {
            panic: 0,
            slow_start: Duration::ZERO,
            passive: None,
        }
    );
    let passive = |inside| policy(inside).passive.unwrap();
    assert_eq!(
        passive(", passive = { failures = 3, eject = \"10s\", eject_max = \"1m\" }"),
        PassiveSpec {
            failures: 3,
            base: seconds(10),
            longest: seconds(60),
        }
    );
    // A longer first one alone is no mistake.
    assert_eq!(
        passive(", passive = { eject = \"10m\" }"),
        PassiveSpec {
            failures: 5,
            base: seconds(600),
            longest: seconds(600),
        }
    );
}

#[test]
fn xdp_can_be_left_off() {
    let config = read("[node]\ninterfaces = [\"eth0\"]\nxdp_mode = \"off\"", &[]).unwrap();
    assert_eq!(config.node.xdp_mode, XdpMode::Off);
}

#[test]
fn gates_and_tables_are_read() {
    let service = "[[service]]\nname = \"echo\"\nvip = [\"192.0.2.1:80\"]\nbackends = []\n";
    let text = format!(
        "{NODE}\n[dtab]\n{service}gate = {{ window = \"5s\", fail = 3, healthy = 70, errors = 2, \
         latency = \"250ms\", connections = 50, cooldown = \"0s\" }}"
    );
    let config = read(&text, &[]).unwrap();
    let dtab = config.dtab.unwrap();
    assert_eq!(dtab.listen.to_string(), "127.0.0.1:4180");
    assert_eq!(dtab.namespace, "default");
    let gate = GateSpec {
        window: Duration::from_secs(5),
        fail: 3,
        healthy: 70,
        errors: 2,
        latency: Some(Duration::from_millis(250)),
        connections: 50,
        cooldown: Duration::ZERO,
    };
    assert_eq!(config.services[0].gate, gate);
    let plain = read(&format!("{NODE}\n{service}"), &[]).unwrap();
    assert_eq!(plain.dtab, None);
    assert_eq!(plain.services[0].gate, GateSpec::default());
}
