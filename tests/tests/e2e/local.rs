//! Backends on the node itself: containers behind a bridge, and processes on the node's own
//! addresses. And clients among them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::atomic::AtomicU64,
    time::Duration,
};

use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    bridge::{BRIDGE, Bridge},
    client::Client,
    link,
    namespace::Namespace,
    process::wait_for,
    topology::Topology,
};

use crate::scene::{METRICS, PATIENCE, VIP, VIP6, address, config, entry, sample};

/// The two services on the VIPs, TCP and UDP, with these backends. Nobody is taken out for what is
/// not answered: the tests make links lose packets for a while, and wait for every backend.
pub(crate) fn services(backends: &[SocketAddr]) -> String {
    let rows: String = backends
        .iter()
        .map(|backend| entry(*backend, "v1"))
        .collect();
    let udp = format!(
        "[[service]]\nname = \"echo-udp\"\nvip = [\"{VIP}\", \"{VIP6}\"]\n\
         protocol = \"udp\"\nbackends = [\n{rows}]\n"
    );
    let tcp = format!("health = {{ kind = \"none\", passive = false }}\nbackends = [\n{rows}]");
    config(&tcp, &udp)
}

/// Waits until these, and no others, answer through both VIPs.
pub(crate) fn wait_until_served(agent: &Agent, client: &Namespace, backends: usize) {
    let client = Client::new(client).patience(Duration::from_millis(500));
    for vip in [VIP, VIP6] {
        wait_for(&format!("all backends through {vip}"), PATIENCE, || {
            agent.process().ensure_running()?;
            let tcp = client.spread(address(vip), 40, 4);
            let udp = client.spread_udp(address(vip), 40, 4);
            let all = [tcp, udp]
                .iter()
                .all(|spread| spread.failed() == 0 && spread.backends.len() == backends);
            Ok(all.then_some(()))
        })
        .unwrap_or_else(|error| {
            panic!(
                "{error:#}: {:?} {:?}\n{}",
                client.spread(address(vip), 10, 2),
                client.spread_udp(address(vip), 10, 2),
                agent.process().tail()
            )
        });
    }
}

/// Transfers both ways through both VIPs, and datagrams; each packet counts once.
pub(crate) fn transfers(agent: &Agent, client: &Namespace) {
    const BYTES: u64 = 50_000_000;
    let client = Client::new(client).patience(PATIENCE);
    for vip in [VIP, VIP6] {
        client
            .download(address(vip), BYTES, None, &AtomicU64::new(0))
            .unwrap();
        client.upload(address(vip), BYTES).unwrap();
    }
    let counted = |reason: &str| {
        let scrape = agent.metrics(address(METRICS)).unwrap();
        sample(&scrape, "lb_packets_total", &[reason]).unwrap()
    };
    let reasons = [
        "reason=\"request\"",
        "reason=\"reply\"",
        "reason=\"unresolved_next_hop\"",
    ];
    std::thread::sleep(Duration::from_millis(200));
    let before = reasons.map(counted);
    for vip in [VIP, VIP6] {
        assert_eq!(client.spread_udp(address(vip), 200, 4).failed(), 0);
    }
    let after = reasons.map(counted);
    let grown: Vec<f64> = before.iter().zip(after).map(|(b, a)| a - b).collect();
    // A datagram that is sent again for want of an answer counts again; twice each would be 800.
    let [requests, replies, unresolved] = grown.as_slice() else {
        panic!("{grown:?}")
    };
    assert!((400.0..420.0).contains(requests), "{reasons:?}: {grown:?}");
    assert!((400.0..420.0).contains(replies), "{reasons:?}: {grown:?}");
    assert_eq!(*unresolved, 0.0);
}

/// Containers as backends: the agent attaches to the bridge by itself.
#[test]
fn containers_behind_a_bridge() {
    for mode in ["native", "off"] {
        let topology = Topology::new(0).unwrap();
        let bridge = Bridge::new(topology.node(), 2).unwrap();
        link::offload(topology.client(), "eth0").unwrap();
        link::offload(topology.node(), "to-client").unwrap();
        let backends = start_in(&bridge, &topology);
        let addresses = [Bridge::addresses(1), Bridge::addresses(2)].concat();
        let mut agent = Setup::new(&topology)
            .node(&format!("xdp_mode = \"{mode}\""))
            .config(&services(&addresses))
            .start()
            .unwrap();
        wait_until_served(&agent, topology.client(), 2);
        transfers(&agent, topology.client());

        // Containers as clients: of the other, and of themselves.
        for container in bridge.containers() {
            wait_until_served(&agent, container, 2);
        }
        transfers(&agent, &bridge.containers()[0]);

        agent.kill9().unwrap();
        let client = Client::new(topology.client());
        assert_eq!(client.spread(address(VIP), 40, 4).failed(), 0);
        agent.restart().unwrap();
        wait_until_served(&agent, topology.client(), 2);
        agent.stop().unwrap();
        let pins = agent.pins().display().to_string();
        let removed = agent.command(&["detach", "--bpf-dir", &pins]).unwrap();
        let line = format!("{BRIDGE} (tc ingress)");
        assert!(removed.contains(&line), "{removed}");
        drop(backends);
    }
}

fn start_in(bridge: &Bridge, topology: &Topology) -> Vec<Backend> {
    (1..)
        .zip(bridge.containers())
        .map(|(number, container)| {
            let addresses = Bridge::addresses(number);
            let name = format!("c{number}");
            Backend::start(container, &name, &addresses, topology.directory()).unwrap()
        })
        .collect()
}

/// Where a process of the node listens.
const OWN: &str = "10.77.0.1:8080";
/// The same for IPv6.
const OWN6: &str = "[fd77::1]:8080";

/// A process of the node beside a backend elsewhere; reached from outside and from containers.
#[test]
fn processes_of_the_node() {
    for mode in ["native", "off"] {
        let topology = Topology::new(1).unwrap();
        let bridge = Bridge::new(topology.node(), 1).unwrap();
        if mode == "off" {
            link::offload(topology.client(), "eth0").unwrap();
            link::offload(topology.node(), "to-client").unwrap();
        }
        let own = [OWN, OWN6].map(address);
        let process = Backend::start(topology.node(), "own", &own, topology.directory()).unwrap();
        let other = topology.start_echo(1).unwrap();
        let addresses = [
            own[0],
            own[1],
            topology.backend_address(1),
            topology.backend_address6(1),
        ];
        let mut agent = Setup::new(&topology)
            .interfaces(&["to-client", "to-b1", BRIDGE])
            .node(&format!(
                "xdp_mode = \"{}\"",
                if mode == "off" { "off" } else { "auto" }
            ))
            .config(&services(&addresses))
            .start()
            .unwrap();
        let status = agent.command(&["status"]).unwrap();
        assert!(status.contains("br0 (tc)"), "{status}");
        wait_until_served(&agent, topology.client(), 2);
        transfers(&agent, topology.client());
        // A client behind tc, backends behind XDP and on the node.
        wait_until_served(&agent, &bridge.containers()[0], 2);
        transfers(&agent, &bridge.containers()[0]);
        // Without the VIP it is reached as ever.
        let direct = Client::new(topology.client());
        for address in own {
            let answer = direct.get(address, "/").unwrap();
            assert_eq!(answer.backend(), Some("own"));
        }
        agent.kill9().unwrap();
        assert_eq!(direct.spread(address(VIP), 40, 4).failed(), 0);
        agent.restart().unwrap();
        wait_until_served(&agent, topology.client(), 2);
        drop((process, other));
    }
}

/// A process of the node sees the client's own address and port.
#[test]
fn a_process_sees_its_client() {
    let topology = Topology::new(0).unwrap();
    let own = [OWN, OWN6].map(address);
    let listeners = own.map(|own| topology.node().run(|| TcpListener::bind(own)).unwrap());
    let sockets = own.map(|own| topology.node().run(|| UdpSocket::bind(own)).unwrap());
    let agent = Setup::new(&topology)
        .config(&services(&own))
        .start()
        .unwrap();
    for (index, vip) in [VIP, VIP6].into_iter().map(address).enumerate() {
        let connected = wait_for("a connection", PATIENCE, || {
            agent.process().ensure_running()?;
            let connect = || std::net::TcpStream::connect_timeout(&vip, Duration::from_secs(2));
            Ok(topology.client().run(connect).ok())
        });
        let mut stream = connected.unwrap();
        let (mut accepted, peer) = listeners[index].accept().unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
        accepted.write_all(b"own").unwrap();
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"own");

        let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = topology.client().run(|| UdpSocket::bind(any)).unwrap();
        socket.connect(vip).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        sockets[index].set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"who am I").unwrap();
        let (_, peer) = sockets[index].recv_from(&mut [0; 16]).unwrap();
        assert_eq!(peer, socket.local_addr().unwrap());
        sockets[index].send_to(b"you", peer).unwrap();
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 3);
    }
}
