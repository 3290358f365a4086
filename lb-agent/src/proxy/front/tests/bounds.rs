//! What clients may send and hold.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::{
    super::Place,
    rig::{Client, Front, GET, Kind, OK, http2, patient},
};
use crate::{
    config::proxy::Bounds,
    domain::http::policy::{HttpPolicy, Limits},
    proxy::engine::tests::rig::{Backend, local},
};

/// Headers besides `Host`, how long each, and the status.
const HEADS: [(usize, usize, usize, u16); 7] = [
    (16, 15, 1, 200),
    (16, 16, 1, 431),
    (100, 99, 1, 200),
    (100, 100, 1, 431),
    (128, 127, 1, 200),
    (128, 128, 1, 431),
    (128, 20, 1000, 431),
];

#[test]
fn heads_are_bounded() {
    local(async {
        let backend = Backend::answering(OK).await;
        for (allowed, number, length, expected) in HEADS {
            let bounds = Bounds {
                headers: allowed,
                head: 16 * 1024,
                ..patient()
            };
            let policy = HttpPolicy::default();
            let front = Front::start(bounds, Kind::Plain, policy, backend.address);
            let value = "v".repeat(length);
            let mut head = "GET / HTTP/1.1\r\nHost: web\r\n".to_owned();
            // Those of HTTP/2 have no Host.
            let mut request = Request::get("http://web/").header("x-host", "web");
            for number in 0..number {
                head += &format!("x-{number}: {value}\r\n");
                request = request.header(format!("x-{number}"), &value);
            }
            let mut client = front.sending(format!("{head}\r\n").as_bytes()).await;
            let mut status = [0; 12];
            client.0.read_exact(&mut status).await.unwrap();
            let status = String::from_utf8_lossy(&status).into_owned();
            assert_eq!(status, format!("HTTP/1.1 {expected}"), "{allowed} {number}");
            let stream = TcpStream::connect(front.address).await.unwrap();
            let (mut client, _connection) = http2(stream, 65_535).await;
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{allowed} {number}");
        }
    });
}

/// At the bound nobody is accepted, and listeners without connections have no part in it.
#[test]
fn connections_are_bounded() {
    local(async {
        let backend = Backend::answering(OK).await;
        let bounds = Bounds {
            connections: 2,
            per_client: 2,
            ..patient()
        };
        let policy = HttpPolicy::default();
        let front = Front::start(bounds, Kind::Plain, policy, backend.address);
        let other = front.open(Place {
            service: None,
            proxy_protocol: false,
            tls: None,
        });
        let mut first = front.connect().await;
        first.ask().await;
        let mut second = Client(TcpStream::connect(other).await.unwrap());
        second.ask().await;
        for address in [front.address, other] {
            let mut third = Client(TcpStream::connect(address).await.unwrap());
            third.send(GET.as_bytes()).await;
            let mut byte = [0];
            let waits = timeout(Duration::from_millis(100), third.0.read(&mut byte)).await;
            assert!(waits.is_err(), "answered beyond the bound");
            // One goes, and it is served.
            drop(std::mem::replace(&mut second, third));
            second.expect("ok").await;
        }
    });
}

/// Who speaks for others is not counted as one client; those for whom it does are.
#[test]
fn clients_behind_the_proxy_protocol_are_counted_apart() {
    local(async {
        let backend = Backend::answering(OK).await;
        let bounds = Bounds {
            per_client: 1,
            ..patient()
        };
        let policy = HttpPolicy::default();
        let front = Front::start(bounds, Kind::Proxied, policy, backend.address);
        let mut open = Vec::new();
        for (client, is_served) in [
            ("TCP4 192.0.2.1 192.0.2.9 1 80", true),
            ("TCP4 192.0.2.2 192.0.2.9 1 80", true),
            ("TCP4 192.0.2.1 192.0.2.9 2 80", false),
            ("TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.9 2 80", false),
            ("UNKNOWN", true),
            ("UNKNOWN", true),
        ] {
            let header = format!("PROXY {client}\r\n");
            let mut one = front.sending(header.as_bytes()).await;
            if !is_served {
                assert_eq!(one.rest().await, "", "{client}");
                continue;
            }
            one.ask().await;
            open.push(one);
        }
        open.remove(0);
        front.until_connections(3).await;
        let mut again = front
            .sending(b"PROXY TCP4 192.0.2.1 192.0.2.9 3 80\r\n")
            .await;
        again.ask().await;
    });
}

/// A client that is refused while it still sends gets to know why.
#[test]
fn long_bodies_are_refused_audibly() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy {
            limits: Limits {
                body: Some(10),
                ..Limits::default()
            },
            ..HttpPolicy::default()
        };
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        for _ in 0..20 {
            let length = 600_000;
            let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n");
            let mut client = front.sending(head.as_bytes()).await;
            client.send(&vec![b'x'; length]).await;
            let got = client.rest().await;
            assert!(got.starts_with("HTTP/1.1 413 "), "{got:?}");
        }
    });
}

/// A backend may send as many as a client, and 100 where clients may not.
#[test]
fn heads_of_answers_are_bounded() {
    local(async {
        // Allowed of clients, headers of the answer, and the status.
        for (allowed, number, expected) in [
            (16, 100, 200),
            (16, 101, 502),
            (100, 101, 502),
            (300, 300, 200),
            (300, 301, 502),
        ] {
            let more: String = (1..number)
                .map(|number| format!("X-{number}: 1\r\n"))
                .collect();
            let answer = format!("HTTP/1.1 200 OK\r\n{more}Content-Length: 2\r\n\r\nok");
            let backend = Backend::answering(answer.leak()).await;
            let bounds = Bounds {
                headers: allowed,
                ..patient()
            };
            let policy = HttpPolicy::default();
            let front = Front::start(bounds, Kind::Plain, policy, backend.address);
            let closing = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            let got = front.sending(closing.as_bytes()).await.rest().await;
            let status = format!("HTTP/1.1 {expected} ");
            assert!(got.starts_with(&status), "{allowed} {number}: {got:?}");
            assert!(expected != 200 || got.contains(&format!("x-{}: 1", number - 1)));
        }
    });
}
