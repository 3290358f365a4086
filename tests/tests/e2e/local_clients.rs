//! Local clients: processes on the node, in a cgroup of the test's own, whose calls to VIPs are
//! sent to backends. The node has no route to the VIPs: what is not translated gets nowhere.

use std::collections::BTreeMap;

use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    cgroup::Cgroup,
    namespace::Namespace,
    talk::Talker,
    topology::Topology,
};

use crate::scene::{METRICS, hosts, reply, sample};

/// What a call without a route to its address fails with.
pub(crate) const NO_ROUTE: &str = "NetworkUnreachable";

/// The node with its backends, and a cgroup for local clients. Dropped from the top down.
pub(crate) struct Local {
    pub(crate) agent: Agent,
    pub(crate) backends: Vec<Backend>,
    pub(crate) cgroup: Cgroup,
    pub(crate) topology: Topology,
}

/// A service: its VIPs, protocol and health check, and backends by number, with weight.
pub(crate) fn service(
    name: &str,
    lines: &str,
    topology: &Topology,
    backends: &[(u8, u32)],
) -> String {
    let rows: String = backends
        .iter()
        .flat_map(|(number, weight)| {
            [
                topology.backend_address(*number),
                topology.backend_address6(*number),
            ]
            .map(|address| format!("  {{ address = \"{address}\", weight = {weight} }},\n"))
        })
        .collect();
    format!("[[service]]\nname = \"{name}\"\n{lines}\nbackends = [\n{rows}]\n\n")
}

impl Local {
    /// `count` backends, and the services that `config` makes of them.
    pub(crate) fn new(count: usize, config: impl Fn(&Topology) -> String) -> Self {
        let (topology, backends) = hosts(count);
        let cgroup = Cgroup::new("local").unwrap();
        let tables = format!("[metrics]\nlisten = \"{METRICS}\"\n\n{}", config(&topology));
        let agent = Setup::new(&topology)
            .node(&format!(
                "local_clients = true\ncgroup = \"{}\"",
                cgroup.path().display()
            ))
            .config(&tables)
            .start()
            .unwrap();
        Self {
            agent,
            backends,
            cgroup,
            topology,
        }
    }

    /// A local client in a namespace.
    pub(crate) fn talker(&self, namespace: &Namespace, name: &str) -> Talker {
        Talker::start(
            namespace,
            Some(&self.cgroup),
            self.topology.directory(),
            name,
        )
        .unwrap()
    }

    fn scrape(&self, metric: &str, labels: &[&str]) -> f64 {
        let scrape = self.agent.metrics(METRICS.parse().unwrap()).unwrap();
        sample(&scrape, metric, labels).unwrap_or_default()
    }
}

/// TCP and UDP services on the same VIPs.
pub(crate) fn both(topology: &Topology, backends: &[(u8, u32)]) -> String {
    let vips = "vip = [\"198.51.100.10:80\", \"[2001:db8:100::10]:80\"]";
    let udp = format!("{vips}\nprotocol = \"udp\"");
    service("echo", vips, topology, backends) + &service("datagrams", &udp, topology, backends)
}

/// The VIP in each form that a program may write it.
const FORMS: [(&str, &str); 3] = [
    ("198.51.100.10:80", "0.0.0.0:0"),
    ("[2001:db8:100::10]:80", "[::]:0"),
    ("[::ffff:198.51.100.10]:80", "[::]:0"),
];

/// TCP, connected and unconnected UDP, in each form of the address: a backend answers, and what
/// the client sees is the VIP.
#[test]
fn every_kind_of_call_in_every_form() {
    let local = Local::new(2, |topology| both(topology, &[(1, 1), (2, 1)]));
    let talker = local.talker(local.topology.node(), "talker");
    let names = ["b1", "b2"];
    for (vip, any) in FORMS {
        assert_eq!(talker.request(&format!("tcp t {vip}")).unwrap(), vip);
        let first = talker.request("ask t").unwrap();
        assert!(names.contains(&&*first), "{vip}: {first}");
        assert_eq!(talker.request("ask t").unwrap(), first);
        assert_eq!(talker.request("peer t").unwrap(), vip);

        talker.request(&format!("udp c {any}")).unwrap();
        let peer = talker.request(&format!("connect c {vip}")).unwrap();
        assert_eq!(peer, vip);
        let answer = talker.request("send c one").unwrap();
        assert!(
            names
                .iter()
                .any(|name| answer == format!("{name}:one {vip}")),
            "{vip}: {answer}"
        );

        // A conversation stays with its backend; the one of another socket is another.
        let mut spoken = BTreeMap::new();
        for socket in 0..12 {
            talker.request(&format!("udp u{socket} {any}")).unwrap();
            let ask = |word| {
                talker
                    .request(&format!("sendto u{socket} {vip} {word}"))
                    .unwrap()
            };
            let answer = ask("one");
            let (name, _) = answer.split_once(':').unwrap();
            for word in ["two", "three", "four"] {
                assert_eq!(ask(word), format!("{name}:{word} {vip}"));
            }
            *spoken.entry(name.to_owned()).or_insert(0) += 1;
        }
        assert_eq!(spoken.len(), 2, "{vip}: {spoken:?}");
    }
    // For each form: one by TCP, one connected, twelve conversations.
    let flows = |service: &str| {
        let label = format!("service=\"{service}\"");
        local.scrape("lb_service_flows_total", &[&label])
    };
    assert_eq!(flows("echo"), 3.0);
    assert_eq!(flows("datagrams"), 39.0);
    assert_eq!(local.scrape("lb_local_translated_total", &[]), 42.0);
    assert_eq!(local.scrape("lb_local_refused_total", &[]), 0.0);
    let status = local.agent.command(&["status"]).unwrap();
    let line = format!(
        "in {}: 42 sent to a backend, 0 refused",
        local.cgroup.path().display()
    );
    assert!(status.contains(&line), "{status}");
}

/// Other destinations, and processes outside the cgroup, notice nothing.
#[test]
fn who_is_not_meant_is_left_alone() {
    let local = Local::new(1, |topology| both(topology, &[(1, 1)]));
    let directory = local.topology.directory();
    let inside = local.talker(local.topology.node(), "inside");
    let outside = Talker::start(local.topology.node(), None, directory, "outside").unwrap();
    for address in [
        local.topology.backend_address(1),
        local.topology.backend_address6(1),
    ] {
        let (address, any) = match address.is_ipv4() {
            true => (address.to_string(), "0.0.0.0:0"),
            false => (address.to_string(), "[::]:0"),
        };
        for talker in [&inside, &outside] {
            assert_eq!(
                talker.request(&format!("tcp t {address}")).unwrap(),
                address
            );
            assert_eq!(talker.request("ask t").unwrap(), "b1");
            talker.request(&format!("udp u {any}")).unwrap();
            let answer = talker
                .request(&format!("sendto u {address} hello"))
                .unwrap();
            assert_eq!(answer, format!("b1:hello {address}"));
            let peer = talker.request(&format!("connect u {address}")).unwrap();
            assert_eq!(peer, address);
            let answer = talker.request("send u hello").unwrap();
            assert_eq!(answer, format!("b1:hello {address}"));
        }
    }
    // A socket that was sent to the backend, and then goes there by itself, is its own.
    inside.request("udp u 0.0.0.0:0").unwrap();
    let direct = local.topology.backend_address(1).to_string();
    for peer in ["198.51.100.10:80", &direct, "198.51.100.10:80"] {
        assert_eq!(inside.request(&format!("connect u {peer}")).unwrap(), peer);
        assert_eq!(inside.request("send u x").unwrap(), format!("b1:x {peer}"));
    }
    let refused = |talker: &Talker, words: &str| talker.request(words).unwrap_err();
    // Another port, another address, and nobody's cgroup.
    assert_eq!(refused(&inside, "tcp t 198.51.100.10:81"), NO_ROUTE);
    assert_eq!(refused(&inside, "tcp t 198.51.100.11:80"), NO_ROUTE);
    assert_eq!(refused(&inside, "sendto u 198.51.100.11:80 x"), NO_ROUTE);
    assert_eq!(refused(&outside, "tcp t 198.51.100.10:80"), NO_ROUTE);
    assert_eq!(refused(&outside, "sendto u 198.51.100.10:80 x"), NO_ROUTE);
}

/// Connections spread by weight: 1 to 1 to 2.
#[test]
fn connections_spread_by_weight() {
    let local = Local::new(3, |topology| both(topology, &[(1, 1), (2, 1), (3, 2)]));
    let talker = local.talker(local.topology.node(), "talker");
    let mut counts = BTreeMap::new();
    for _ in 0..800 {
        talker.request("tcp t 198.51.100.10:80").unwrap();
        *counts.entry(talker.request("ask t").unwrap()).or_insert(0) += 1;
    }
    for (name, expected) in [("b1", 200.0_f64), ("b2", 200.0), ("b3", 400.0)] {
        let deviation = (expected * (1.0 - expected / 800.0)).sqrt();
        let found = f64::from(counts[name]);
        assert!((found - expected).abs() < 5.0 * deviation, "{counts:?}");
    }
}

/// A service of which all backends are drained refuses; UDP conversations leave a draining backend
/// at once. One backend behind two VIPs, and one on the node itself, work.
#[test]
fn drained_shared_and_local_backends() {
    let own = "10.77.1.1:8080";
    let local = Local::new(2, |topology| {
        let other = service(
            "other",
            "vip = [\"198.51.100.12:80\", \"[2001:db8:100::12]:80\"]\nprotocol = \"udp\"",
            topology,
            &[(1, 1)],
        );
        let own = format!(
            "[[service]]\nname = \"own\"\nvip = [\"198.51.100.13:80\"]\n\
             backends = [{{ address = \"{own}\" }}]\n\n"
        );
        both(topology, &[(1, 1), (2, 1)]) + &other + &own
    });
    let node = local.topology.node();
    let _own = Backend::start(
        node,
        "own",
        &[own.parse().unwrap()],
        local.topology.directory(),
    );
    let talker = local.talker(node, "talker");
    assert_eq!(
        talker.request("tcp o 198.51.100.13:80").unwrap(),
        "198.51.100.13:80"
    );
    assert_eq!(talker.request("ask o").unwrap(), "own");

    let second = local.topology.backend_address(2).to_string();
    local
        .agent
        .command(&["drain", "datagrams", &second, "--force"])
        .unwrap();
    talker.request("udp u 0.0.0.0:0").unwrap();
    for vip in ["198.51.100.10:80", "198.51.100.12:80", "198.51.100.10:80"] {
        let answer = talker.request(&format!("sendto u {vip} x")).unwrap();
        assert_eq!(answer, format!("b1:x {vip}"));
    }
    local
        .agent
        .command(&["undrain", "datagrams", &second])
        .unwrap();
    let first = local.topology.backend_address(1).to_string();
    local
        .agent
        .command(&["drain", "datagrams", &first])
        .unwrap();
    let answer = talker.request("sendto u 198.51.100.10:80 x").unwrap();
    assert_eq!(answer, "b2:x 198.51.100.10:80");

    local
        .agent
        .command(&["drain", "datagrams", &second, "--force"])
        .unwrap();
    let error = talker.request("sendto u 198.51.100.10:80 x").unwrap_err();
    assert_eq!(error, "PermissionDenied");
    let error = talker.request("connect u 198.51.100.10:80").unwrap_err();
    assert_eq!(error, "PermissionDenied");
    assert_eq!(local.scrape("lb_local_refused_total", &[]), 2.0);
    let status = reply(&local.agent, &["status"]);
    assert_eq!(status["local_clients"]["refused"], 2, "{status}");
}
