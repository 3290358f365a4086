//! What passes of traces, how the proxy's own time is told, and how much it takes of what nobody reads.

use std::time::Duration;

use hyper::body::Frame;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    forwarding::before,
    http2::{call, client, stream},
    rig::{Backend, Proxy, SOON, local, read_request, snapshot},
};
use crate::domain::{
    http::{exchange::Outcome, policy::HttpPolicy},
    service::Protocol,
};

/// Where the proxy makes no spans, it makes up no trace, and what came of one goes on as it is.
#[test]
fn traces_of_others_pass_as_they_are() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    local(async {
        let backend = Backend::echoing().await;
        let proxy = before(&backend).await;
        for (more, expected, trace) in [
            ("", &[][..], None),
            ("Trace-Foo: 1\r\n", &["trace-foo: 1"], None),
            (
                &format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n"),
                &[&format!("traceparent: {PARENT}"), "tracestate: a=1"],
                Some(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
            ),
            (
                "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1\r\n",
                &["b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"],
                Some(0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7),
            ),
        ] {
            let got = proxy.ask("GET", more).await.body.to_ascii_lowercase();
            let traced = |line: &&str| line.starts_with("trace") || line.starts_with("b3:");
            let seen: Vec<&str> = got.lines().filter(traced).collect();
            assert_eq!(seen, expected, "{more}");
            let record = proxy.record().await;
            assert_eq!(record.trace.trace, trace.unwrap_or(0), "{more}");
            assert_eq!(record.trace.span, 0, "{more}");
            assert_eq!(record.parent.is_some(), trace.is_some(), "{more}");
        }
    });
}

/// What the proxy does before it asks a backend is its own time, what the backend takes is not.
#[test]
fn the_overhead_is_all_but_the_backend() {
    local(async {
        let slow = Backend::start(|mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        })
        .await;
        let proxy = before(&slow).await;
        assert_eq!(proxy.ask("GET", "").await.status, 200);
        let record = proxy.record().await;
        let prepared = record.prepared.unwrap();
        let overhead = record.overhead().unwrap();
        assert!(!prepared.is_zero() && prepared <= overhead);
        assert!(record.first_byte.unwrap() - overhead >= Duration::from_millis(200));
    });
}

/// What a client uploads to a backend that does not read stays with the client, over both versions.
#[test]
fn uploads_that_nobody_reads_take_little_memory() {
    const PIECE: usize = 64 << 10;
    const ALL: u64 = 64 << 20;
    // With the buffers of the kernel on both sides of the proxy.
    const MOST: u64 = 16 << 20;
    local(async {
        let deaf = Backend::start(|stream, _| async move {
            tokio::time::sleep(3 * SOON).await;
            drop(stream);
        })
        .await;
        // Nothing moves any more: that ends it.
        let mut policy = HttpPolicy::default();
        policy.timeouts.idle = Duration::from_secs(1);
        let patience = Duration::from_millis(400);
        let piece = vec![b'x'; PIECE];
        let in_bounds = async |proxy: &Proxy| {
            let record = proxy.record().await;
            // It is the backend that takes nothing, and that counts as its failure.
            assert_eq!(record.outcome, Outcome::TimedOut);
            let failed = proxy.shared.signals();
            let failed = failed.first().map(|signal| signal.tally.failed);
            assert_eq!(failed, Some(1));
            assert!(
                record.received > 0 && record.received < MOST,
                "{}",
                record.received
            );
        };

        let proxy = Proxy::start(&snapshot(policy.clone(), Protocol::Http, &[deaf.address])).await;
        let mut upload = TcpStream::connect(proxy.address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {ALL}\r\n\r\n");
        upload.write_all(head.as_bytes()).await.unwrap();
        while let Ok(written) = tokio::time::timeout(patience, upload.write_all(&piece)).await {
            written.unwrap();
        }
        in_bounds(&proxy).await;

        // A backend of HTTP/2 that never opens its windows beyond those that it begins with.
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[deaf.address])).await;
        let mut sender = client(&proxy).await;
        let (pieces, body) = stream();
        let asking = sender.send_request(call("/x", body));
        let writing = async {
            loop {
                let piece = Frame::data(piece.clone().into());
                if tokio::time::timeout(patience, pieces.send(Ok(piece)))
                    .await
                    .is_err()
                {
                    break;
                }
            }
            in_bounds(&proxy).await;
        };
        let _ = tokio::join!(asking, writing);
    });
}
