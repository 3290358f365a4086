//! What a stop waits for, and what it does not.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::sleep,
};

use super::rig::{Front, GET, GRACE, Kind, LONG, OK, SHORT, patient};
use crate::{
    config::proxy::Bounds,
    domain::http::policy::HttpPolicy,
    proxy::engine::tests::rig::{Backend, local, read_request},
};

/// What is no request yet, or none any more.
#[test]
fn a_stop_does_not_wait_for_what_is_no_request() {
    let hello: &[u8] = &[0x16, 3, 1, 2, 0, 1];
    let rows: [(&str, Kind, &[u8]); 5] = [
        ("nothing", Kind::Plain, b""),
        ("half a preface", Kind::Plain, b"PRI * HT"),
        ("half a handshake", Kind::Tls, hello),
        ("half a header of PROXY", Kind::Proxied, b"PROXY TCP4 "),
        ("nothing after PROXY", Kind::Proxied, b"PROXY UNKNOWN\r\n"),
    ];
    local(async {
        let backend = Backend::answering(OK).await;
        for (name, kind, bytes) in rows {
            let front = Front::start(patient(), kind, HttpPolicy::default(), backend.address);
            let mut client = front.sending(bytes).await;
            front.until_connections(1).await;
            front.tell_stop(LONG);
            assert_eq!(client.rest().await, "", "{name}");
            front.ended().await;
        }
        let front = Front::start(
            patient(),
            Kind::Plain,
            HttpPolicy::default(),
            backend.address,
        );
        let (mut calm, mut busy) = (front.connect().await, front.connect().await);
        calm.ask().await;
        for _ in 0..3 {
            busy.ask().await;
        }
        front.tell_stop(LONG);
        assert_eq!(calm.rest().await, "");
        assert_eq!(busy.rest().await, "");
        front.ended().await;
    });
}

/// A head that has begun has its time.
#[test]
fn a_stop_waits_for_heads() {
    local(async {
        let backend = Backend::answering(OK).await;
        let bounds = Bounds {
            head_timeout: SHORT,
            ..patient()
        };
        let policy = HttpPolicy::default();
        let front = Front::start(bounds, Kind::Plain, policy, backend.address);
        let mut whole = front.sending(&GET.as_bytes()[..20]).await;
        let mut half = front.sending(&GET.as_bytes()[..20]).await;
        front.until_connections(2).await;
        front.tell_stop(LONG);
        whole.send(&GET.as_bytes()[20..]).await;
        let got = whole.rest().await.to_ascii_lowercase();
        assert!(
            got.starts_with("http/1.1 200 ") && got.contains("connection: close"),
            "{got}"
        );
        let got = half.rest().await;
        assert!(got.starts_with("HTTP/1.1 408 "), "{got}");
        front.ended().await;
    });
}

/// Answers come, and who asks again right after the stop is answered too, for the last time.
#[test]
fn a_stop_waits_for_answers() {
    local(async {
        let backend = Backend::start(|mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                sleep(SHORT).await;
                if stream.write_all(OK.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let policy = HttpPolicy::default();
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        let mut again = front.connect().await;
        again.ask().await;
        let mut waiting = front.sending(GET.as_bytes()).await;
        front.until_connections(2).await;
        front.tell_stop(LONG);
        sleep(GRACE / 10).await;
        again.send(GET.as_bytes()).await;
        for client in [&mut waiting, &mut again] {
            let got = client.rest().await.to_ascii_lowercase();
            assert!(
                got.starts_with("http/1.1 200 ") && got.ends_with("ok"),
                "{got}"
            );
            assert!(got.contains("connection: close"), "{got}");
        }
        front.ended().await;
    });
}

/// Connections that have become another protocol are waited for as long as the stop has patience.
#[test]
fn a_stop_waits_for_tunnels_and_then_ends_them() {
    let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    local(async {
        let backend = Backend::start(|mut stream, _| async move {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                        Upgrade: echo\r\n\r\n";
            if read_request(&mut stream).await.is_some()
                && stream.write_all(head.as_bytes()).await.is_ok()
            {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        })
        .await;
        for goes_first in [true, false] {
            let policy = HttpPolicy::default();
            let front = Front::start(patient(), Kind::Plain, policy, backend.address);
            let mut client = front.sending(request.as_bytes()).await;
            client.expect("\r\n\r\n").await;
            assert_eq!(front.connections(), 1);
            let patience = if goes_first { LONG } else { GRACE * 3 };
            let begun = Instant::now();
            front.tell_stop(patience);
            sleep(GRACE * 2).await;
            client.send(b"still").await;
            client.expect("still").await;
            assert_eq!(front.connections(), 1);
            if goes_first {
                drop(client);
                front.ended().await;
                continue;
            }
            let end = client.0.read(&mut [0]).await;
            assert!(
                matches!(&end, Ok(0))
                    || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
            );
            front.ended().await;
            assert!(begun.elapsed() >= patience);
        }
        sleep(Duration::ZERO).await;
    });
}
