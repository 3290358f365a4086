//! What passes, and how.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::rig::{Backend, Got, Proxy, local, read_request, snapshot};
use crate::domain::{
    http::{
        exchange::{NoAnswer, Outcome},
        policy::{HttpPolicy, Timeouts},
    },
    service::Protocol,
};

pub(super) async fn before(backend: &Backend) -> Proxy {
    let policy = HttpPolicy::default();
    Proxy::start(&snapshot(policy, Protocol::Http, &[backend.address])).await
}

#[test]
fn heads_as_backends_get_them() {
    local(async {
        let backend = Backend::echoing().await;
        let proxy = before(&backend).await;
        let got = proxy
            .ask(
                "GET",
                "X-A: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Forwarded-For: 9.9.9.9\r\n\
                 TE: gzip, trailers\r\nExpect: 100-continue\r\nCookie: a=1\r\nCookie: b=2\r\n",
            )
            .await;
        assert_eq!(got.status, 200, "{got:?}");
        let seen = got.body.to_ascii_lowercase();
        assert!(seen.starts_with("get /x http/1.1\r\n"), "{seen}");
        for line in [
            "host: web",
            "x-a: 1",
            "te: trailers",
            "cookie: a=1; b=2",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: web",
            "forwarded: for=127.0.0.1;host=web;proto=http",
        ] {
            assert!(
                seen.contains(&format!("\r\n{line}\r\n")),
                "{line} in {seen}"
            );
        }
        for name in ["x-hop", "connection", "9.9.9.9", "expect", "keep-alive"] {
            assert!(!seen.contains(name), "{name} in {seen}");
        }
        let id = |text: &str| {
            let rest = text.split("x-request-id: ").nth(1).unwrap();
            rest.lines().next().unwrap().to_owned()
        };
        assert_eq!(id(&got.head), id(&seen));
        let record = proxy.record().await;
        assert_eq!(record.request_id, id(&seen));
        assert_eq!(record.outcome, Outcome::Answered);
        assert_eq!((record.status, record.sent), (200, got.body.len() as u64));
        assert_eq!(record.tries.len(), 1);
    });
}

#[test]
fn connections_are_used_again() {
    local(async {
        let backend = Backend::echoing().await;
        // None is opened in advance: what is counted is what requests open.
        let mut policy = HttpPolicy::default();
        policy.upstream.warm = 0;
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[backend.address])).await;
        for _ in 0..20 {
            assert_eq!(proxy.ask("GET", "").await.status, 200);
            assert_eq!(proxy.post("abc").await.status, 200);
        }
        assert_eq!(backend.connections(), 1);
    });
}

#[test]
fn bodies_of_every_framing() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n\
                           3\r\nabc\r\n0\r\nx-end: yes\r\n\r\n";
    local(async {
        for (answer, more, status, body) in [
            (
                CHUNKED,
                "TE: trailers\r\n",
                200,
                "3\r\nabc\r\n0\r\nx-end: yes\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                "",
                200,
                "abc",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", "", 204, ""),
            ("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "", 304, ""),
            (
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
                "",
                200,
                "a",
            ),
        ] {
            let backend = Backend::answering(answer).await;
            let proxy = before(&backend).await;
            for _ in 0..2 {
                let got = proxy.ask("GET", more).await;
                assert_eq!((got.status, got.body.as_str()), (status, body), "{answer}");
            }
            assert_eq!(backend.connections(), 1, "{answer}");
        }
        // Without a length: until the end of the connection.
        let backend = Backend::start(|mut stream, _| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").await;
        })
        .await;
        let got = before(&backend).await.ask("GET", "").await;
        assert!(got.body.contains("all of it"), "{got:?}");
        // The head of what GET would get.
        let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").await;
        let proxy = before(&backend).await;
        for _ in 0..2 {
            let got = proxy.ask("HEAD", "").await;
            assert_eq!((got.status, got.body.as_str()), (200, ""));
            assert!(got.head.contains("content-length: 7"), "{got:?}");
        }
        assert_eq!(backend.connections(), 1);
    });
}

#[test]
fn request_bodies_pass_with_their_trailers() {
    local(async {
        let backend = Backend::echoing().await;
        let proxy = before(&backend).await;
        let got = proxy
            .raw(
                "POST /up HTTP/1.1\r\nHost: web\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
                 Trailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nX-Forwarded-For: 9.9.9.9\r\nx-sum: 1\r\n\r\n",
            )
            .await;
        let seen = Got::read(&got).body.to_ascii_lowercase();
        assert!(
            seen.contains("\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n"),
            "{got}"
        );
        // A body is one whatever the method.
        for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PUT"] {
            let request = format!(
                "{method} /up HTTP/1.1\r\nHost: web\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n"
            );
            let got = Got::read(&proxy.raw(&request).await);
            let seen = got.body.to_ascii_lowercase();
            let whole = seen.contains("\r\ntransfer-encoding: chunked\r\n")
                && seen.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
            assert!(
                whole || method == "HEAD" && got.status == 200,
                "{method}: {got:?}"
            );
        }
        let large = "x".repeat(300_000);
        let got = proxy.post(&large).await;
        assert!(got.body.ends_with(&large), "{}", got.head);
        assert!(got.body.contains("content-length: 300000"));
    });
}

#[test]
fn refused_heads() {
    local(async {
        let backend = Backend::echoing().await;
        let proxy = before(&backend).await;
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: web\r\nHost: web\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: we b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
            (
                "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n",
                405,
            ),
            (
                "GET / HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
                404,
            ),
            (
                "GET http://web/ HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
                200,
            ),
            (
                "GET / HTTP/1.1\r\nHost: web.consul.localhost:80\r\nConnection: close\r\n\r\n",
                200,
            ),
            (
                "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
                501,
            ),
            (
                "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                400,
            ),
        ] {
            let request = request.replace("Host: we b\r\n", "Host: we b\r\nConnection: close\r\n");
            let request = request.replace(
                "Host: web\r\nHost: web\r\n",
                "Host: web\r\nHost: web\r\nConnection: close\r\n",
            );
            let got = Got::read(&proxy.raw(&request).await);
            assert_eq!(got.status, status, "{request}: {got:?}");
        }
    });
}

#[test]
fn an_upgrade_is_a_tunnel() {
    local(async {
        let backend = Backend::start(|mut stream, _| async move {
            let request = read_request(&mut stream).await.unwrap().to_ascii_lowercase();
            assert!(request.contains("connection: upgrade\r\n"), "{request}");
            assert!(request.contains("upgrade: echo\r\n"), "{request}");
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly";
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.write_all(b"end").await;
        })
        .await;
        let proxy = before(&backend).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with("\r\n\r\nearly") {
            stream.read_exact(&mut byte).await.expect(&text);
            text.push(byte[0].into());
        }
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        stream.write_all(b"through").await.unwrap();
        // One half ends, the other goes on.
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "throughend");
        assert_eq!(proxy.record().await.outcome, Outcome::Upgraded);
    });
}

#[test]
fn an_answer_that_breaks_off_is_cut_for_the_client_too() {
    local(async {
        let backend = Backend::start(|mut stream, _| async move {
            read_request(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
                .await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        })
        .await;
        let proxy = before(&backend).await;
        let got = proxy.ask("GET", "").await;
        assert_eq!((got.status, got.body.as_str()), (200, "abc"));
        assert_eq!(proxy.record().await.outcome, Outcome::BackendBrokeOff);
    });
}

/// An answer that waits for the rest of its request is not idle while that comes.
#[test]
fn a_request_that_moves_keeps_its_answer() {
    const IDLE: std::time::Duration = std::time::Duration::from_millis(200);
    local(async {
        let backend = Backend::start(|mut stream, _| async move {
            let mut got = Vec::new();
            let mut buffer = [0; 1024];
            let mut answered = false;
            while !got.ends_with(b"\r\n0\r\n\r\n") {
                let read = stream.read(&mut buffer).await.unwrap();
                if read == 0 {
                    return;
                }
                got.extend_from_slice(&buffer[..read]);
                if !std::mem::replace(&mut answered, true) {
                    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
            }
            let _ = stream.write_all(b"1\r\nb\r\n0\r\n\r\n").await;
        })
        .await;
        let policy = HttpPolicy {
            timeouts: Timeouts {
                idle: IDLE,
                ..Timeouts::default()
            },
            ..HttpPolicy::default()
        };
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[backend.address])).await;
        // (whether all of it is sent) → the answer's end, and how it ended
        for (whole, end, outcome) in [
            (true, "1\r\na\r\n1\r\nb\r\n0\r\n\r\n", Outcome::Answered),
            (false, "1\r\na\r\n", Outcome::Idle),
        ] {
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            let head = "POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..8 {
                stream.write_all(b"1\r\nx\r\n").await.unwrap();
                tokio::time::sleep(IDLE / 3).await;
            }
            if whole {
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text).await;
            assert!(text.ends_with(end), "{whole}: {text}");
            assert_eq!(proxy.record().await.outcome, outcome, "{whole}");
        }
    });
}

#[test]
fn a_client_that_goes_takes_its_request_with_it() {
    local(async {
        let (gone, seen) = tokio::sync::oneshot::channel();
        let gone = std::cell::RefCell::new(Some(gone));
        let backend = Backend::start(move |mut stream, _| {
            let gone = gone.borrow_mut().take();
            async move {
                read_request(&mut stream).await;
                // Its end is seen: nobody waits for the answer.
                let _ = stream.read(&mut [0]).await;
                let _ = gone.unwrap().send(());
            }
        })
        .await;
        let proxy = before(&backend).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        drop(stream);
        seen.await.unwrap();
        let record = proxy.record().await;
        assert_eq!(record.outcome, Outcome::ClientGone);
        // The backend was told of a span: it is recorded.
        let ends: Vec<_> = record.tries.iter().map(|one| &one.result).collect();
        assert_eq!(ends, [&Err(NoAnswer::client_gone())]);
    });
}
