//! Hosts and cables.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use lb_tests::{
    client::{Client, RequestError},
    link,
    namespace::Namespace,
    topology::Topology,
};

use crate::PATIENCE;

#[test]
fn neighbours_reach_each_other_and_nobody_else() {
    let topology = Topology::new(2).unwrap();
    let _backends = [1, 2].map(|number| topology.start_echo(number).unwrap());
    let node = Client::new(topology.node());
    for (number, name) in [(1, "b1"), (2, "b2")] {
        for address in [
            topology.backend_address(number),
            topology.backend_address6(number),
        ] {
            let response = node.get(address, "/").unwrap();
            assert_eq!(response.backend(), Some(name), "{address}");
        }
    }
    // The node does not forward and the backends have no way back: nothing comes by itself.
    let outsider = Client::new(topology.client()).patience(Duration::from_millis(300));
    for address in [
        topology.backend_address(1),
        topology.backend_address6(1),
        "198.51.100.10:80".parse().unwrap(),
        "[2001:db8:100::10]:80".parse().unwrap(),
    ] {
        let error = outsider.get(address, "/").unwrap_err();
        assert!(
            matches!(
                error,
                RequestError::Connect(_) | RequestError::ConnectTimeout(_)
            ),
            "{address}: {error}"
        );
    }
}

#[test]
fn links_are_fit_for_xdp() {
    let topology = Topology::new(1).unwrap();
    let mut ends = vec![(topology.client(), "eth0".to_owned())];
    ends.push((&topology.backends()[0], "eth0".to_owned()));
    assert_eq!(topology.node_interfaces(), ["to-client", "to-b1"]);
    for interface in topology.node_interfaces() {
        ends.push((topology.node(), interface));
    }
    for (host, interface) in ends {
        let features = host.tool("ethtool", &["-k", &interface]).unwrap();
        for wanted in ["tx-checksumming: off", "generic-receive-offload: on"] {
            assert!(
                features.lines().any(|line| line.trim() == wanted),
                "{interface} of {}: not {wanted}",
                host.name()
            );
        }
    }
    let host = &topology.backends()[0];
    link::set_mtu(host, "eth0", 1300).unwrap();
    assert!(
        host.tool("ip", &["link", "show", "eth0"])
            .unwrap()
            .contains("mtu 1300")
    );
}

#[test]
fn the_second_client_address_is_used_only_on_demand() {
    let topology = Topology::new(0).unwrap();
    // The node answers by itself here, to tell which address it sees.
    let sources = [
        (
            topology.client_addresses(),
            SocketAddr::new("10.77.0.1".parse().unwrap(), 9),
        ),
        (
            topology.client_addresses6(),
            SocketAddr::new("fd77::1".parse().unwrap(), 9),
        ),
    ];
    for ([first, second], node) in sources {
        // Bound once: a child that another test is just starting may hold a closed socket open
        // for a moment.
        let server = topology
            .node()
            .run(|| std::net::UdpSocket::bind(node).unwrap());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let seen = |client: Option<std::net::IpAddr>| {
            topology.client().run(|| {
                let any = client.map_or(SocketAddr::new(unspecified(node), 0), |ip| (ip, 0).into());
                let socket = std::net::UdpSocket::bind(any).unwrap();
                socket.send_to(b"who am I?", node).unwrap();
            });
            server.recv_from(&mut [0; 64]).unwrap().1.ip()
        };
        assert_eq!(seen(None), first);
        assert_eq!(seen(Some(second)), second);
    }
}

fn unspecified(like: SocketAddr) -> std::net::IpAddr {
    match like {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[test]
fn commands_and_closures_run_inside() {
    let host = Namespace::new("inside").unwrap();
    let outside = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let inside = host.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert_ne!(inside, outside);
    let seen = host.tool("readlink", &["/proc/self/ns/net"]).unwrap();
    assert_eq!(Path::new(seen.trim()), inside);
    assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), outside);
}
