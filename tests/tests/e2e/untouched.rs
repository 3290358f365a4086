//! What is not for a service passes as if the programs were not there.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::FromRawFd,
    thread,
    time::Duration,
};

use lb_tests::{client::RequestError, namespace::Namespace};

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, sample};

/// A port of the node's own, among those that flows may be translated to.
const OWN_PORT: u16 = 9000;

/// How long a client waits for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(500);

/// TCP, UDP and echo requests to the node's own addresses, from the client, from a backend and the
/// other way round.
#[test]
fn the_nodes_own_services_are_reached() {
    let scene = Scene::listed(&["v1", "v1"], "", "");
    let topology = &scene.topology;
    let node = topology.node();
    let before = scene.scrape();
    for (any, hosts) in [
        (
            "0.0.0.0",
            [
                (topology.client(), "10.77.0.1", "10.77.0.2"),
                (&topology.backends()[0], "10.77.1.1", "10.77.1.2"),
            ],
        ),
        (
            "[::]",
            [
                (topology.client(), "fd77::1", "fd77::2"),
                (&topology.backends()[0], "fd77:1::1", "fd77:1::2"),
            ],
        ),
    ] {
        for (host, on_node, on_host) in hosts {
            let on_node: IpAddr = on_node.parse().unwrap();
            let on_host: IpAddr = on_host.parse().unwrap();
            for (server, at, client) in [(node, on_node, host), (host, on_host, node)] {
                let to = SocketAddr::new(at, OWN_PORT);
                tcp_and_udp(server, &format!("{any}:{OWN_PORT}"), client, to);
                client.sysctl("ipv4.ping_group_range", "0 0").unwrap();
                client.run(|| ping(at)).unwrap_or_else(|error| {
                    panic!("{at} did not answer {}'s ping: {error}", client.name())
                });
            }
        }
    }
    let after = scene.scrape();
    let grown = |metric: &str, labels: &[&str]| {
        sample(&after, metric, labels).unwrap() - sample(&before, metric, labels).unwrap()
    };
    assert_eq!(grown("lb_service_flows_total", &[]), 0.0);
    assert_eq!(grown("lb_packets_total", &["action=\"drop\""]), 0.0);
    assert!(grown("lb_packets_total", &["action=\"pass\""]) > 0.0);
    // The backends serve, and are asked by the node itself, as before.
    let direct = lb_tests::client::Client::new(node);
    for (number, backend) in (1..).zip(&scene.backends) {
        for to in [
            topology.backend_address(number),
            topology.backend_address6(number),
        ] {
            let answer = direct.get(to, "/").unwrap();
            assert_eq!(answer.backend(), Some(backend.name()));
        }
    }
}

/// An exchange of a few bytes over TCP and over UDP with a server that listens on `any`.
fn tcp_and_udp(server: &Namespace, any: &str, client: &Namespace, to: SocketAddr) {
    let listener = server.run(|| TcpListener::bind(any).unwrap());
    let datagrams = server.run(|| UdpSocket::bind(any).unwrap());
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let answer = client.run(|| {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&[7; 100_000]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        assert!(answer == [7; 100_000], "{} bytes", answer.len());

        scope.spawn(|| {
            let mut buffer = [0; 16];
            let (length, from) = datagrams.recv_from(&mut buffer).unwrap();
            datagrams.send_to(&buffer[..length], from).unwrap();
        });
        let answer = lb_tests::client::Client::new(client).udp(to, b"own");
        assert_eq!(answer.unwrap(), b"own");
    });
}

/// Sends one echo request (RFC 792, RFC 4443 section 4) and waits for the reply.
fn ping(to: IpAddr) -> io::Result<()> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8, 0),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128, 129),
    };
    // SAFETY: socket(2) takes three integers.
    let socket = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and nobody else's; to send and receive on it takes the same
    // calls as on a UDP socket.
    let socket = unsafe { UdpSocket::from_raw_fd(socket) };
    socket.set_read_timeout(Some(PATIENCE))?;
    // Type, code, then checksum and identifier, which the kernel fills in, sequence, data.
    let mut message = vec![request, 0, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(&[0xa5; 1000]);
    socket.send_to(&message, SocketAddr::new(to, 0))?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    assert_eq!(answer[0], reply, "type of the answer");
    assert_eq!(&answer[8..length], &message[8..], "data of the answer");
    Ok(())
}

/// A service is one address, port and protocol; at the others of its VIP nobody answers.
#[test]
fn other_ports_and_protocols_of_a_vip_are_nobodys() {
    let scene = Scene::listed(&["v1", "v1"], "", "");
    let client = scene.client().patience(SILENCE);
    for vip in [VIP, VIP6] {
        let vip = address(vip);
        // That of the backends, of their TCP echo, and any.
        for port in [8080, 8081, 81] {
            let error = client.get(SocketAddr::new(vip.ip(), port), "/");
            assert_eq!(
                error.unwrap_err(),
                RequestError::ConnectTimeout(SILENCE),
                "{vip}, port {port}"
            );
        }
        let error = client.udp(vip, b"anybody?").unwrap_err();
        assert_eq!(error, RequestError::AnswerTimeout(SILENCE), "UDP to {vip}");
        assert_eq!(client.get(vip, "/").unwrap().status, 200);
    }
}
