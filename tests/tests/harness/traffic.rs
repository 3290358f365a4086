//! The echo service, the client, and the load.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use lb_tests::{
    backend::TCP_ECHO_PORT,
    client::{Client, RequestError},
    load::{Load, Pace},
    namespace::Namespace,
    process::wait_for,
    topology::Topology,
};

use crate::PATIENCE;

#[test]
fn the_echo_service_answers_as_documented() {
    let topology = Topology::new(1).unwrap();
    let mut backend = topology.start_echo(1).unwrap();
    let client = Client::new(topology.node());
    let address = topology.backend_address(1);

    let root = client.get(address, "/").unwrap();
    let json: serde_json::Value = serde_json::from_slice(&root.body).unwrap();
    assert_eq!(json, serde_json::json!({"hostname": "b1", "text": "hello"}));

    let health = || client.get(address, "/health").unwrap().status;
    assert_eq!(health(), 200);
    backend.set_failing(true).unwrap();
    assert_eq!(health(), 503);
    assert_eq!(client.get(address, "/").unwrap().status, 200);
    backend.set_failing(false).unwrap();
    assert_eq!(health(), 200);

    let progress = AtomicU64::new(0);
    let length = 1_000_001;
    let got = client.download(address, length, None, &progress).unwrap();
    assert_eq!(got.backend(), Some("b1"));
    assert_eq!(progress.load(Ordering::Relaxed), length);
    assert_eq!(
        client.upload(address, length).unwrap().backend(),
        Some("b1")
    );
    assert_eq!(client.get(address, "/bytes/x").unwrap().status, 400);
    assert_eq!(client.get(address, "/nothing").unwrap().status, 404);

    for to in [address, topology.backend_address6(1)] {
        assert_eq!(client.udp(to, b"ping").unwrap(), b"b1:ping");
    }
    assert_eq!(client.spread_udp(address, 20, 4).of("b1"), 20);

    let echoed = topology.node().run(|| {
        use std::io::{Read, Write};
        let to = SocketAddr::new(address.ip(), TCP_ECHO_PORT);
        let mut stream = std::net::TcpStream::connect(to).unwrap();
        stream.write_all(b"plain").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(echoed, "plain");

    backend.process().kill().unwrap();
    assert_eq!(
        client.get(address, "/").unwrap_err(),
        RequestError::Connect(std::io::ErrorKind::ConnectionRefused)
    );
    backend.restart().unwrap();
    assert_eq!(client.get(address, "/").unwrap().backend(), Some("b1"));
    let status = backend.process().stop().unwrap();
    assert!(status.success(), "{}", backend.process().tail());
}

#[test]
fn a_download_can_be_made_to_last() {
    let topology = Topology::new(1).unwrap();
    let backend = topology.start_echo(1).unwrap();
    let client = Client::new(topology.node());
    let start = Instant::now();
    let (bytes, rate) = (200_000, 1_000_000);
    client
        .download(backend.address(), bytes, Some(rate), &AtomicU64::new(0))
        .unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

/// A service that sends something else than the pattern is found out.
#[test]
fn a_wrong_byte_fails_a_download() {
    use std::io::{Read, Write};
    let host = Namespace::new("liar").unwrap();
    let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let listener = host.run(|| std::net::TcpListener::bind(address).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let mut body = [0; 100];
            lb_tests::pattern::fill(0, &mut body);
            body[70] ^= 0x80;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
                .unwrap();
            stream.write_all(&body).unwrap();
        });
        let client = Client::new(&host);
        let outcome = client.download(address, 100, None, &AtomicU64::new(0));
        assert_eq!(outcome.unwrap_err(), RequestError::Corrupt(70));
    });
}

#[test]
fn a_chosen_port_can_be_used_again_at_once() {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    let mut client = Client::new(topology.node());
    client.options.source = Some("10.77.1.1:4242".parse().unwrap());
    client.options.reset = true;
    for _ in 0..20 {
        let response = client.get(topology.backend_address(1), "/").unwrap();
        assert_eq!(response.local_port, 4242);
    }
}

#[test]
fn load_tells_answers_from_failures() {
    let topology = Topology::new(1).unwrap();
    let backend = topology.start_echo(1).unwrap();
    let client = Client::new(topology.node());
    let pace = Pace {
        threads: 2,
        rate: Some(200.0),
    };
    let load = Load::start(&client, backend.address(), pace);
    let answered = |load: &Load, count| {
        wait_for("answers", PATIENCE, || {
            Ok((load.record().all().answered() >= count).then_some(()))
        })
        .unwrap();
    };
    answered(&load, 20);
    assert_eq!(load.record().all().failed(), 0);
    backend.process().kill().unwrap();
    let dead = load.now();
    wait_for("failures", PATIENCE, || {
        Ok((load.record().all().failed() >= 10).then_some(()))
    })
    .unwrap();
    let record = load.stop();
    let after = record.between(dead, Duration::MAX);
    assert_eq!(after.answered(), 0);
    assert!(after.failed() >= 9, "{after:?}");
    assert!(record.failures().all(|sample| sample.ended <= record.until));
    assert!(record.longest_gap(Duration::ZERO) >= record.until - dead);
}
