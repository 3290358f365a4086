//! A path that is narrower in one place, where a router says so: what it says reaches the sender,
//! through the translation.
//!
//! ```text
//!   client ---- router ~~~~ router ---- node ---- router ~~~~ router ---- backend
//! ```
//!
//! One of the links in waves is narrow at a time. Its two routers tell those on their own side: the
//! one towards the node tells the node, about packets that were translated.

use std::{net::SocketAddr, sync::atomic::AtomicU64};

use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    client::Client,
    link::{self, End, MTU},
    namespace::Namespace,
    process::wait_for,
    topology::Topology,
};

use crate::scene::{METRICS, PATIENCE, VIP, VIP6, address, config, sample};

/// Narrow, yet wide enough for IPv6 (RFC 8200, section 5).
const NARROW: u32 = 1300;
/// Bytes of each transfer: many packets.
const BYTES: u64 = 3_000_000;

/// Everything in a row. Dropped from the top down.
struct Path {
    agent: Agent,
    _backend: Backend,
    client: Namespace,
    _far: [Namespace; 3],
    _topology: Topology,
}

/// Two hosts and their cable: addresses of both ends on link number `number`, and its MTU.
fn connect(left: (&Namespace, &str), right: (&Namespace, &str), number: u8, mtu: u32) {
    let nets = |host: u8| {
        [
            format!("10.78.{number}.{host}/24").parse().unwrap(),
            format!("fd78:{number}::{host}/64").parse().unwrap(),
        ]
    };
    let (near, far) = (nets(1), nets(2));
    let end = |(namespace, interface), addresses| End {
        namespace,
        interface,
        addresses,
    };
    link::connect(end(left, &near), end(right, &far)).unwrap();
    for (namespace, interface) in [left, right] {
        if mtu != MTU {
            link::set_mtu(namespace, interface, mtu).unwrap();
        }
    }
}

/// Routes to a network of each family, through a host of each.
fn route(host: &Namespace, to: [&str; 2], via: [&str; 2]) {
    for (to, via) in to.into_iter().zip(via) {
        link::route(host, to.parse().unwrap(), via.parse().unwrap()).unwrap();
    }
}

impl Path {
    /// With these MTUs between the routers on the client's side and on the backend's.
    fn new(client_side: u32, backend_side: u32) -> Self {
        // Those beside the node are the first routers.
        let topology = Topology::new(1).unwrap();
        let (near, behind) = (topology.client(), &topology.backends()[0]);
        let [client, outer, inner, backend] = ["far-client", "outer", "inner", "far-backend"]
            .map(|label| Namespace::new(label).unwrap());
        connect((near, "out"), (&outer, "in"), 1, client_side);
        connect((&outer, "out"), (&client, "eth0"), 2, MTU);
        connect((behind, "out"), (&inner, "in"), 3, backend_side);
        connect((&inner, "out"), (&backend, "eth0"), 4, MTU);
        for router in [near, &outer, behind, &inner] {
            router.sysctl("ipv4.ip_forward", "1").unwrap();
            router.sysctl("ipv6.conf.all.forwarding", "1").unwrap();
        }
        let vips = ["198.51.100.0/24", "2001:db8:100::/64"];
        let clients = ["10.78.2.0/24", "fd78:2::/64"];
        let backends = ["10.78.4.0/24", "fd78:4::/64"];
        let node = ["10.77.1.0/24", "fd77:1::/64"];
        route(&client, vips, ["10.78.2.1", "fd78:2::1"]);
        route(&outer, vips, ["10.78.1.1", "fd78:1::1"]);
        route(near, clients, ["10.78.1.2", "fd78:1::2"]);
        route(topology.node(), clients, ["10.77.0.2", "fd77::2"]);
        route(topology.node(), backends, ["10.77.1.2", "fd77:1::2"]);
        route(behind, backends, ["10.78.3.2", "fd78:3::2"]);
        route(&inner, node, ["10.78.3.1", "fd78:3::1"]);
        route(&backend, node, ["10.78.4.1", "fd78:4::1"]);
        let addresses: [SocketAddr; 2] = ["10.78.4.2:8080", "[fd78:4::2]:8080"].map(address);
        let echo = Backend::start(&backend, "far", &addresses, topology.directory()).unwrap();
        let rows = addresses.map(|address| format!("{{ address = \"{address}\" }}"));
        let service = format!("backends = [{}]", rows.join(", "));
        let agent = Setup::new(&topology)
            .config(&config(&service, ""))
            .start()
            .unwrap();
        let path = Self {
            agent,
            _backend: echo,
            client,
            _far: [outer, inner, backend],
            _topology: topology,
        };
        for vip in [VIP, VIP6] {
            wait_for(&format!("an answer through {vip}"), PATIENCE, || {
                Ok(Client::new(&path.client).get(address(vip), "/").ok())
            })
            .unwrap();
        }
        path
    }

    /// ICMP errors that were translated so far.
    fn errors(&self) -> f64 {
        let scrape = self.agent.metrics(address(METRICS)).unwrap();
        sample(&scrape, "lb_packets_total", &["reason=\"icmp_error\""]).unwrap()
    }
}

/// Uploads over a link that is narrow on the backend's side, downloads over one on the client's:
/// the router's word is about translated packets, and without it nothing would arrive.
#[test]
fn senders_learn_of_a_narrow_link_on_either_side() {
    for (client_side, backend_side) in [(NARROW, MTU), (MTU, NARROW)] {
        let path = Path::new(client_side, backend_side);
        let client = Client::new(&path.client).patience(PATIENCE);
        for vip in [VIP, VIP6] {
            let before = path.errors();
            let to = address(vip);
            let what = format!("{vip}, {client_side} and {backend_side} wide");
            client
                .download(to, BYTES, None, &AtomicU64::new(0))
                .unwrap_or_else(|error| panic!("download, {what}: {error}"));
            client
                .upload(to, BYTES)
                .unwrap_or_else(|error| panic!("upload, {what}: {error}"));
            let told = path.errors() - before;
            assert!(told >= 1.0, "{what}: nobody was told through the node");
            eprintln!("{what}: both ways, {told} errors translated");
        }
    }
}
