//! Backends that hold the VIP and answer clients by a way of their own, past the node.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    link::{self, End},
    process::wait_for,
    topology::Topology,
};

use crate::{
    scene::{METRICS, PATIENCE, VIP, VIP6, address, reply, sample},
    tc::{lose_neighbour, set_deaf},
};

/// Hosts whose backends hold the VIPs, and are connected to the client directly as well.
struct Hosts {
    backends: Vec<Backend>,
    topology: Topology,
}

/// Where backend `number` listens besides the VIPs: for probes.
fn own_addresses(topology: &Topology, number: u8) -> [SocketAddr; 2] {
    let own = [
        topology.backend_address(number),
        topology.backend_address6(number),
    ];
    own.map(|own| SocketAddr::new(own.ip(), 80))
}

fn hosts(count: u8) -> Hosts {
    let topology = Topology::new(usize::from(count)).unwrap();
    let client = topology.client();
    // What comes for the VIP comes by another interface than its answer leaves by.
    let loose = |host: &lb_tests::namespace::Namespace| {
        host.sysctl("ipv4.conf.all.rp_filter", "0").unwrap();
        host.sysctl("ipv4.conf.eth0.rp_filter", "0").unwrap();
    };
    loose(client);
    let mut backends = Vec::new();
    for number in 1..=count {
        let host = &topology.backends()[usize::from(number) - 1];
        loose(host);
        let net = |text: String| text.parse().unwrap();
        let direct = format!("direct-b{number}");
        link::connect(
            End {
                namespace: client,
                interface: &direct,
                addresses: &[
                    net(format!("10.78.{number}.1/24")),
                    net(format!("fd78:{number}::1/64")),
                ],
            },
            End {
                namespace: host,
                interface: "eth1",
                addresses: &[
                    net(format!("10.78.{number}.2/24")),
                    net(format!("fd78:{number}::2/64")),
                ],
            },
        )
        .unwrap();
        client
            .sysctl(&format!("ipv4.conf.{direct}.rp_filter"), "0")
            .unwrap();
        for (clients, via) in [
            ("10.77.0.0/24", format!("10.78.{number}.1")),
            ("fd77::/64", format!("fd78:{number}::1")),
        ] {
            link::route(host, clients.parse().unwrap(), via.parse().unwrap()).unwrap();
        }
        let add = |words: &[&str]| {
            let command = [&["address", "add"][..], words, &["dev", "lo"]].concat();
            host.tool("ip", &command).unwrap();
        };
        add(&["198.51.100.10/32"]);
        // To be listened on at once.
        add(&["2001:db8:100::10/128", "nodad"]);
        let [own4, own6] = own_addresses(&topology, number);
        let addresses = [own4, own6, address(VIP), address(VIP6)];
        let name = format!("b{number}");
        backends.push(Backend::start(host, &name, &addresses, topology.directory()).unwrap());
    }
    Hosts { backends, topology }
}

impl Hosts {
    /// The balancing agent, with the service forwarded this way.
    fn balance(&self, forwarding: &str, mode: &str) -> Agent {
        let rows: String = (1..=self.backends.len())
            .flat_map(|number| own_addresses(&self.topology, u8::try_from(number).unwrap()))
            .map(|own| format!("  {{ address = \"{own}\" }},\n"))
            .collect();
        let config = format!(
            "[[service]]\nname = \"echo\"\nvip = [\"{VIP}\", \"{VIP6}\"]\n\
             forwarding = \"{forwarding}\"\nbackends = [\n{rows}]\n\
             health = {{ kind = \"http\", path = \"/health\", interval = \"200ms\", timeout = \"100ms\", \
             rise = 1, fall = 2 }}\n\n\
             [[service]]\nname = \"datagrams\"\nvip = [\"{VIP}\", \"{VIP6}\"]\nprotocol = \"udp\"\n\
             forwarding = \"{forwarding}\"\nbackends = [\n{rows}]\n\n[metrics]\nlisten = \"{METRICS}\"\n"
        );
        Setup::new(&self.topology)
            .node(&format!("xdp_mode = \"{mode}\""))
            .config(&config)
            .start()
            .unwrap()
    }

    /// An agent on each backend's host, which takes off the header around packets for the VIPs.
    fn hold(&self, mode: &str) -> Vec<Agent> {
        let hosts = (1..).zip(self.topology.backends());
        let start = |(number, host)| {
            let node = format!(
                "xdp_mode = \"{mode}\"\n\
                 decapsulate = [\"198.51.100.10\", \"2001:db8:100::10\"]\n\
                 decapsulate_from = [\"10.77.{number}.1\", \"fd77:{number}::1\"]"
            );
            Setup::new(&self.topology)
                .host(host, &format!("holder-{number}"))
                .interfaces(&["eth0"])
                .node(&node)
                .config(&format!("[metrics]\nlisten = \"{METRICS}\""))
                .start()
                .unwrap()
        };
        hosts.map(start).collect()
    }

    /// Waits until every backend answers on each VIP, and nothing fails.
    fn wait_until_served(&self) {
        let client = lb_tests::client::Client::new(self.topology.client())
            .patience(Duration::from_millis(500));
        for vip in [VIP, VIP6] {
            wait_for(
                &format!("all backends to answer through {vip}"),
                PATIENCE,
                || {
                    let spread = client.spread(address(vip), 60, 4);
                    let all = spread.backends.len() == self.backends.len() && spread.failed() == 0;
                    Ok(all.then_some(()))
                },
            )
            .unwrap();
        }
    }

    /// Requests and long transfers through the agent, and what it counts of them.
    fn check(&self, agent: &Agent, what: &str) {
        self.wait_until_served();
        let client = lb_tests::client::Client::new(self.topology.client());
        for vip in [VIP, VIP6].map(address) {
            let spread = client.spread(vip, 200, 8);
            assert_eq!(spread.failed(), 0, "{what}: {spread:?}");
            let received = std::sync::atomic::AtomicU64::new(0);
            client.download(vip, 20_000_000, None, &received).unwrap();
        }
        let scrape = agent.metrics(address(METRICS)).unwrap();
        let count = |reason: &str| {
            let label = format!("reason=\"{reason}\"");
            sample(&scrape, "lb_packets_total", &[&label]).unwrap()
        };
        assert!(count("request") > 1000.0, "{what}");
        // The answers took their own way.
        assert_eq!(count("reply"), 0.0, "{what}");
        let flows = reply(agent, &["flow", "list"]);
        for flow in flows.as_array().into_iter().flatten() {
            assert!(flow["backend"].as_str().unwrap().ends_with(":80"), "{flow}");
        }
    }

    /// A backend that stops answering gets no new connections, one that answers again does.
    fn follow_health(&self) {
        self.backends[0].set_failing(true).unwrap();
        let client = lb_tests::client::Client::new(self.topology.client());
        wait_for("the failing backend to be left", PATIENCE, || {
            let spread = client.spread(address(VIP), 60, 4);
            assert_eq!(spread.failed(), 0, "{spread:?}");
            Ok((!spread.backends.contains_key("b1")).then_some(()))
        })
        .unwrap();
        self.backends[0].set_failing(false).unwrap();
        self.wait_until_served();
    }
}

/// By link address alone, to real hosts that hold the VIP.
#[test]
fn by_link_address() {
    for mode in ["native", "off"] {
        let hosts = hosts(2);
        let agent = hosts.balance("dsr-l2", mode);
        hosts.check(&agent, mode);
        hosts.follow_health();
        let shown = reply(&agent, &["service", "show", "echo"]);
        assert_eq!(shown["service"]["forwarding"], "dsr-l2");
    }
}

/// Within another header, which an agent on each backend's host takes off.
#[test]
fn within_a_header_that_an_agent_takes_off() {
    for (balancing, holding) in [("native", "native"), ("native", "off"), ("off", "native")] {
        let hosts = hosts(2);
        let holders = hosts.hold(holding);
        let agent = hosts.balance("dsr-ipip", balancing);
        let what = format!("{balancing}, {holding}");
        hosts.check(&agent, &what);
        for holder in &holders {
            let scrape = holder.metrics(address(METRICS)).unwrap();
            let freed = sample(&scrape, "lb_packets_total", &["reason=\"decapsulated\""]);
            assert!(freed.unwrap() > 100.0, "{what}: {freed:?}");
        }
    }
}

/// The one datagram that a client sends while the backend's link address is unknown waits for it
/// in the kernel: that of the backend, not of the VIP.
#[test]
fn the_first_packet_to_an_unknown_neighbour() {
    for (forwarding, mode) in [
        ("dsr-l2", "native"),
        ("dsr-l2", "off"),
        ("dsr-ipip", "native"),
        ("dsr-ipip", "off"),
    ] {
        let hosts = hosts(1);
        let _holders = hosts.hold("native");
        let _agent = hosts.balance(forwarding, mode);
        hosts.wait_until_served();
        let backend = &hosts.topology.backends()[0];
        for (family, vip) in [("-4", VIP), ("-6", VIP6)] {
            let what = format!("{forwarding}, {mode}, {family}");
            let vip = address(vip);
            lose_neighbour(&hosts.topology, family, &what);
            let socket = hosts.topology.client().run(|| {
                let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                UdpSocket::bind(any).unwrap()
            });
            socket.connect(vip).unwrap();
            socket.send(b"first").unwrap();
            std::thread::sleep(Duration::from_millis(200));
            set_deaf(backend, false);
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = [0; 32];
            let length = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(&buffer[..length], b"b1:first", "{what}");
            hosts.wait_until_served();
        }
    }
}

/// A backend that only a router leads to cannot be reached by its link address, and `status` says so.
#[test]
fn a_backend_behind_a_router_is_a_problem() {
    let hosts = hosts(1);
    let agent = hosts.balance("dsr-l2", "native");
    hosts.wait_until_served();
    let problems = || {
        let output = agent.cli(&["-o", "json", "status"]).unwrap();
        let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        status["problems"].to_string()
    };
    assert!(!problems().contains("router"), "{}", problems());
    let node = hosts.topology.node();
    node.tool("ip", &["route", "add", "10.77.1.2/32", "via", "10.77.0.2"])
        .unwrap();
    wait_for("the router to be told of", PATIENCE, || {
        let expected =
            "backend 10.77.1.2:80 is behind the router 10.77.0.2, which dsr-l2 cannot pass";
        Ok(problems().contains(expected).then_some(()))
    })
    .unwrap();
}
