//! What XDP hands over to tc: packets to a neighbour that is not known, and to interfaces that take
//! none from XDP, and those whose checksum is yet to be computed.

use std::{io::Write, net::UdpSocket, process::Stdio, sync::atomic::AtomicU64, time::Duration};

use lb_tests::{agent::Setup, namespace::Namespace, process::wait_for, topology::Topology};

use crate::{
    local::{services, transfers, wait_until_served},
    scene::{METRICS, PATIENCE, Scene, VIP, VIP6, address, sample, udp_service},
    without_xdp::nothing_is_altered,
};

/// Packets of local stacks, as containers' are, whose transport checksum is left to a device: what XDP
/// sends without one no host would accept.
#[test]
fn checksums_that_are_yet_to_be_computed() {
    const BYTES: u64 = 20_000_000;
    let mut scene = Scene::listed_on("", &["v1", "v2"], "", &udp_service(2));
    let topology = &scene.topology;
    for host in topology.backends().iter().chain([topology.client()]) {
        host.tool("ethtool", &["-K", "eth0", "tx", "on"]).unwrap();
    }
    let status = scene.agent.command(&["status"]).unwrap();
    assert!(status.contains("to-client (native)"), "{status}");
    let client = scene.client().patience(PATIENCE);
    for vip in [VIP, VIP6] {
        nothing_is_altered(&client, vip, BYTES);
    }
    let load = scene.load(400.0);
    for _ in 0..5 {
        scene.agent.kill9().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        scene.agent.restart().unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    // From a host like that to one that computes by itself, and back.
    scene
        .topology
        .client()
        .tool("ethtool", &["-K", "eth0", "tx", "off"])
        .unwrap();
    for vip in [VIP, VIP6] {
        assert_eq!(client.spread(address(vip), 200, 4).failed(), 0);
        client
            .download(address(vip), BYTES, None, &AtomicU64::new(0))
            .unwrap();
    }
    let lost = sample(&scene.scrape(), "lb_packets_total", &["action=\"drop\""]);
    assert_eq!(lost, Some(0.0));
}

/// What a local stack sends by a veth or a tap is for tc, and so is the interface, unless XDP is asked
/// for by name.
#[test]
fn local_stacks_are_left_to_tc() {
    let topology = Topology::new(1).unwrap();
    let node = topology.node();
    for command in ["tuntap add dev machine mode tap", "link set machine up"] {
        let words: Vec<&str> = command.split(' ').collect();
        node.tool("ip", &words).unwrap();
    }
    let _backend = topology.start_echo(1).unwrap();
    let agent = Setup::new(&topology)
        .interfaces(&["to-client", "to-b1", "machine"])
        .node("xdp_mode = \"auto\"")
        .config(&services(&[topology.backend_address(1)]))
        .start()
        .unwrap();
    let status = agent.command(&["status"]).unwrap();
    for shown in ["to-client (tc)", "to-b1 (tc)", "machine (tc)"] {
        assert!(status.contains(shown), "{shown}: {status}");
    }
}

/// Makes the node forget the link address of the first backend, which no longer tells it. `family`:
/// `-4` or `-6`.
pub(crate) fn lose_neighbour(topology: &Topology, family: &str, what: &str) {
    let node = topology.node();
    set_deaf(&topology.backends()[0], true);
    node.tool("ip", &[family, "neigh", "flush", "dev", "to-b1"])
        .unwrap();
    // Long enough for the agent to see it.
    std::thread::sleep(Duration::from_millis(500));
    let neighbours = node
        .tool("ip", &[family, "neigh", "show", "dev", "to-b1"])
        .unwrap();
    assert!(!neighbours.contains("lladdr"), "{what}: {neighbours}");
}

/// Makes a host deaf to questions for its link address, or hear them again.
pub(crate) fn set_deaf(host: &Namespace, deaf: bool) {
    let rules = if deaf {
        "table netdev deaf {\n chain ingress {\n type filter hook ingress device eth0 priority 0;\n\
         ether type arp drop\n icmpv6 type nd-neighbor-solicit drop\n }\n}\n"
    } else {
        "delete table netdev deaf\n"
    };
    let mut nft = host
        .command("nft")
        .unwrap()
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    nft.stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(nft.wait().unwrap().success());
}

/// The one datagram that a client sends while the backend's link address is unknown waits for it
/// in the kernel, and is answered.
#[test]
fn the_first_packet_to_an_unknown_neighbour_is_not_lost() {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    let addresses = [topology.backend_address(1), topology.backend_address6(1)];
    let agent = Setup::new(&topology)
        .config(&services(&addresses))
        .start()
        .unwrap();
    wait_until_served(&agent, topology.client(), 1);
    for (family, vip) in [("-4", VIP), ("-6", VIP6)] {
        let vip = address(vip);
        let backend = &topology.backends()[0];
        lose_neighbour(&topology, family, family);
        let socket = topology.client().run(|| {
            let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any).unwrap()
        });
        socket.connect(vip).unwrap();
        socket.send(b"first").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        set_deaf(backend, false);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 32];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"b1:first", "{family}");
        wait_until_served(&agent, topology.client(), 1);
    }
    let scrape = agent.metrics(address(METRICS)).unwrap();
    let lost = sample(
        &scrape,
        "lb_packets_total",
        &["reason=\"unresolved_next_hop\""],
    );
    assert_eq!(lost, Some(0.0), "{scrape}");
}

/// A backend that is a client of its own service, by the one interface that it has: it gets itself
/// or the other.
#[test]
fn a_backend_calls_its_own_vip() {
    for mode in ["native", "off"] {
        let topology = Topology::new(2).unwrap();
        let _backends = [1, 2].map(|number| topology.start_echo(number).unwrap());
        let addresses = [
            topology.backend_address(1),
            topology.backend_address(2),
            topology.backend_address6(1),
            topology.backend_address6(2),
        ];
        let agent = Setup::new(&topology)
            .node(&format!("xdp_mode = \"{mode}\""))
            .config(&services(&addresses))
            .start()
            .unwrap();
        wait_until_served(&agent, topology.client(), 2);
        for (backend, v4, v6) in [(0, "10.77.1.1", "fd77:1::1"), (1, "10.77.2.1", "fd77:2::1")] {
            let backend = &topology.backends()[backend];
            let add = |words: &[&str]| backend.tool("ip", words).unwrap();
            add(&["route", "add", "198.51.100.0/24", "via", v4]);
            add(&["-6", "route", "add", "2001:db8:100::/64", "via", v6]);
            wait_until_served(&agent, backend, 2);
            transfers(&agent, backend);
        }
    }
}

/// A veth whose peer does not poll loses what XDP redirects to it; the agent sees when it stops
/// and when it begins again.
#[test]
fn peers_that_do_not_poll() {
    let topology = Topology::new(2).unwrap();
    let _backends = [1, 2].map(|number| topology.start_echo(number).unwrap());
    let addresses = [
        topology.backend_address(1),
        topology.backend_address(2),
        topology.backend_address6(1),
        topology.backend_address6(2),
    ];
    let agent = Setup::new(&topology)
        .config(&services(&addresses))
        .start()
        .unwrap();
    wait_until_served(&agent, topology.client(), 2);
    for state in ["off", "on"] {
        for host in [topology.client(), &topology.backends()[0]] {
            host.tool("ethtool", &["-K", "eth0", "gro", state]).unwrap();
        }
        wait_until_served(&agent, topology.client(), 2);
        transfers(&agent, topology.client());
    }
    wait_for("a calm agent", PATIENCE, || {
        Ok((agent.cli(&["status"])?.code == 0).then_some(()))
    })
    .unwrap();
}
