//! Clients that take their time.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::rig::{Client, Front, GET, Kind, LONG, OK, SHORT, http2, patient, rest};
use crate::{
    config::proxy::Bounds,
    domain::http::policy::{HttpPolicy, Timeouts},
    proxy::engine::tests::rig::{Backend, SOON, local, read_request},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The time of a head is short, that between requests is not.
fn short_heads() -> Bounds {
    Bounds {
        head_timeout: SHORT,
        ..patient()
    }
}

fn short_pauses() -> Bounds {
    Bounds {
        keep_alive: SHORT,
        ..patient()
    }
}

/// What begins and does not go on ends by the bound of heads, and is told so if it is HTTP/1.
#[test]
fn heads_have_their_time() {
    let hello: &[u8] = &[0x16, 3, 1, 2, 0, 1];
    let rows: [(&str, Kind, &[u8], &str); 7] = [
        ("nothing", Kind::Plain, b"", ""),
        ("half a preface", Kind::Plain, &PREFACE[..16], ""),
        ("half a greeting", Kind::Plain, PREFACE, "_"),
        (
            "half a head",
            Kind::Plain,
            &GET.as_bytes()[..20],
            "HTTP/1.1 408 ",
        ),
        ("half a handshake", Kind::Tls, hello, ""),
        ("half a header of PROXY", Kind::Proxied, b"PROXY TCP4 ", ""),
        ("a header of PROXY", Kind::Proxied, b"PROXY UNKNOWN\r\n", ""),
    ];
    local(async {
        let backend = Backend::answering(OK).await;
        for (name, kind, bytes, expected) in rows {
            let front = Front::start(short_heads(), kind, HttpPolicy::default(), backend.address);
            let begun = Instant::now();
            let mut client = front.sending(bytes).await;
            let got = client.rest().await;
            assert!(begun.elapsed() >= SHORT, "{name}: {got:?}");
            // What is told of HTTP/2 is not text.
            if expected != "_" {
                assert!(got.starts_with(expected), "{name}: {got:?}");
                assert!(got.is_empty() == expected.is_empty(), "{name}: {got:?}");
            }
            front.until_connections(0).await;
        }
    });
}

#[test]
fn nothing_after_a_handshake_ends() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(short_heads(), Kind::Tls, policy, backend.address);
        for protocols in [&["h2"][..], &["http/1.1"], &[]] {
            let begun = Instant::now();
            let mut stream = front.connect_tls(protocols).await;
            rest(&mut stream).await;
            assert!(begun.elapsed() >= SHORT, "{protocols:?}");
        }
    });
}

/// Bytes of a head do not renew its time, neither of the first nor of a later one.
#[test]
fn heads_byte_by_byte_end() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(short_heads(), Kind::Plain, policy, backend.address);
        for before in [0, 1, 3] {
            let mut client = front.connect().await;
            for _ in 0..before {
                client.ask().await;
            }
            let begun = Instant::now();
            let (mut read, mut write) = client.0.into_split();
            let drip = async {
                write
                    .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nX: ")
                    .await?;
                loop {
                    write.write_all(b"x").await?;
                    sleep(SHORT / 20).await;
                }
                #[expect(unreachable_code, reason = "it names the type of errors")]
                std::io::Result::Ok(())
            };
            let (got, _) = tokio::join!(rest(&mut read), timeout(SOON, drip));
            assert!(begun.elapsed() >= SHORT, "{got:?}");
            assert!(got.starts_with("HTTP/1.1 408 "), "{got:?}");
        }
    });
}

#[test]
fn pauses_between_requests_have_their_time() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(short_pauses(), Kind::Plain, policy, backend.address);
        let mut client = front.connect().await;
        for requests in [1, 2, 3] {
            for _ in 0..requests {
                client.ask().await;
            }
            let begun = Instant::now();
            sleep(SHORT / 2).await;
            // Whoever comes again in time is served.
            if requests < 3 {
                continue;
            }
            assert_eq!(client.rest().await, "");
            assert!(begun.elapsed() >= SHORT);
        }
        front.until_connections(0).await;
    });
}

/// Pings are no requests.
#[test]
fn idle_connections_of_http2_are_told_to_go() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(short_pauses(), Kind::Plain, policy, backend.address);
        for requests in [0, 2] {
            let stream = TcpStream::connect(front.address).await.unwrap();
            let begun = Instant::now();
            let (mut client, connection) = http2(stream, 65_535).await;
            for _ in 0..requests {
                let request = Request::get("http://web/").body(Empty::<Bytes>::new());
                let response = client.send_request(request.unwrap()).await.unwrap();
                response.into_body().collect().await.unwrap();
            }
            let ended = timeout(SOON, connection).await.expect("it goes on");
            // GOAWAY without an error is none.
            ended.unwrap().unwrap();
            assert!(begun.elapsed() >= SHORT);
        }
        // A greeting without anything else, not even answers to pings.
        let bounds = Bounds {
            head_timeout: SHORT,
            ..short_pauses()
        };
        let policy = HttpPolicy::default();
        let front = Front::start(bounds, Kind::Plain, policy, backend.address);
        let mut raw = front.sending(&[PREFACE, SETTINGS].concat()).await;
        let mut got = Vec::new();
        let read = raw.0.read_to_end(&mut got);
        let _ = timeout(SOON, read).await.expect("it goes on");
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0];
        assert!(got.windows(9).any(|head| head == goaway), "{got:?}");
    });
}

/// A backend whose answer does not end, and a service with little patience.
/// Answers what the number of broken off answers is.
async fn endless() -> (Backend, HttpPolicy, Rc<Cell<u32>>) {
    let broken_off = Rc::new(Cell::new(0));
    let counted = Rc::clone(&broken_off);
    let backend = Backend::start(move |mut stream, _| {
        let counted = Rc::clone(&counted);
        async move {
            if read_request(&mut stream).await.is_some() {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n";
                let mut sent = stream.write_all(head).await;
                while sent.is_ok() {
                    sent = stream.write_all(&[b'x'; 65_536]).await;
                }
                counted.set(counted.get() + 1);
            }
        }
    })
    .await;
    let policy = HttpPolicy {
        timeouts: Timeouts {
            idle: SHORT,
            ..Timeouts::default()
        },
        ..HttpPolicy::default()
    };
    (backend, policy, broken_off)
}

#[test]
fn who_does_not_read_ends() {
    local(async {
        let (backend, policy, _) = endless().await;
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        let mut client = front.sending(GET.as_bytes()).await;
        front.until_connections(1).await;
        let begun = Instant::now();
        // As long as it reads, it may be slow.
        let mut buffer = vec![0; 1 << 20];
        while begun.elapsed() < SHORT * 4 {
            assert!(client.0.read(&mut buffer).await.unwrap() > 0);
            sleep(SHORT / 10).await;
        }
        let begun = Instant::now();
        front.until_connections(0).await;
        assert!(begun.elapsed() >= SHORT / 2, "too early");
    });
}

/// By flow control a client can keep one stream waiting while it reads others.
#[test]
fn streams_that_are_not_read_are_reset() {
    local(async {
        let (backend, policy, broken_off) = endless().await;
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        let stream = TcpStream::connect(front.address).await.unwrap();
        let (mut client, _connection) = http2(stream, 65_535).await;
        for number in 1..=2 {
            let request = Request::get("http://web/").body(Empty::<Bytes>::new());
            let response = client.send_request(request.unwrap()).await.unwrap();
            let mut body = response.into_body();
            let begun = Instant::now();
            while begun.elapsed() < SHORT * 2 {
                body.frame().await.unwrap().unwrap();
                sleep(SHORT / 30).await;
            }
            let begun = Instant::now();
            while broken_off.get() < number {
                assert!(begun.elapsed() < SOON, "the stream stays");
                sleep(SHORT / 30).await;
            }
            assert!(begun.elapsed() >= SHORT / 2, "too early");
            assert_eq!(front.connections(), 1);
        }
    });
}

/// What has rested between requests goes on as if it had not: after pauses, in pieces, with
/// bodies, and several at once.
#[test]
fn connections_go_on_after_rests() {
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
    let chunked =
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    local(async {
        let backend = Backend::answering(OK).await;
        let bounds = Bounds {
            head_timeout: Duration::from_secs(5),
            keep_alive: LONG,
            ..Bounds::default()
        };
        for kind in [Kind::Plain, Kind::Proxied] {
            let front = Front::start(bounds.clone(), kind, HttpPolicy::default(), backend.address);
            let mut client = front.connect().await;
            if kind == Kind::Proxied {
                client.send(b"PROXY UNKNOWN\r\n").await;
            }
            for pause in [0, 1, 150] {
                for request in [GET, post, GET, chunked, GET] {
                    for cut in [0, 1, request.len() - 1] {
                        client.send(&request.as_bytes()[..cut]).await;
                        sleep(Duration::from_millis(pause)).await;
                        client.send(&request.as_bytes()[cut..]).await;
                        client.expect("ok").await;
                    }
                }
            }
            let several = [GET, post, GET, &GET[..10]].concat();
            client.send(several.as_bytes()).await;
            let mut got = String::new();
            while got.matches("200 OK").count() < 3 {
                got += &client.expect("ok").await;
            }
            sleep(Duration::from_millis(150)).await;
            client.send(&GET.as_bytes()[10..]).await;
            client.expect("ok").await;
            let Client(stream) = client;
            drop(stream);
            front.until_connections(0).await;
        }
    });
}
