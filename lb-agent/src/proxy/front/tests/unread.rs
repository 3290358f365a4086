//! Requests that nobody reads to the end of their head are told of all the same.

use tokio::time::timeout;

use super::rig::{Front, Kind, OK, SHORT, patient};
use crate::{
    config::proxy::Bounds,
    domain::http::{
        exchange::{
            Outcome::{self, BadRequest, TimedOut},
            SpanContext,
        },
        policy::HttpPolicy,
    },
    proxy::engine::tests::rig::{Backend, SOON, local},
};

/// What is sent, and how that is answered and told.
fn rows() -> [(String, u16, Outcome); 8] {
    let get = |target: usize, header: usize| {
        let (target, header) = ("t".repeat(target), "v".repeat(header));
        format!("GET /{target} HTTP/1.1\r\nHost: web\r\nX-A: {header}\r\n\r\n")
    };
    let second = "GET / HTTP/1.1\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\nHost : web\r\n\r\n";
    [
        ("\u{1}\u{2}\r\n\r\n".into(), 400, BadRequest),
        (
            "GET / HTTP/1.1\r\nHost: \u{1}\r\n\r\n".into(),
            400,
            BadRequest,
        ),
        ("GET / HTTP/1.1\nHost: web\n\n".into(), 400, BadRequest),
        (second.into(), 400, BadRequest),
        (get(1, 200_000), 431, BadRequest),
        (get(65_534, 1), 414, BadRequest),
        (get(65_533, 100_000), 431, BadRequest),
        ("GET / HTTP/1.1\r\nHost:".into(), 408, TimedOut),
    ]
}

#[test]
fn they_are_counted_and_written_down() {
    local(async {
        let backend = Backend::answering(OK).await;
        let bounds = Bounds {
            head: 128 * 1024,
            head_timeout: SHORT,
            ..patient()
        };
        let policy = HttpPolicy::default();
        let mut front = Front::start(bounds, Kind::Plain, policy, backend.address);
        let mut expected = std::collections::BTreeMap::<u16, u64>::new();
        for (bytes, status, outcome) in rows() {
            let shown = &bytes[..bytes.len().min(60)];
            let mut client = front.connect().await;
            let own = client.0.local_addr().unwrap();
            // What is refused early is not taken whole.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client.0, bytes.as_bytes()).await;
            let got = client.rest().await;
            assert!(
                got.contains(&format!("HTTP/1.1 {status} ")),
                "{shown:?}: {got:?}"
            );
            drop(client);
            let told = async {
                loop {
                    let record = front.records.recv().await.unwrap();
                    // The first of two is served.
                    if record.status != 200 {
                        return record;
                    }
                }
            };
            let told = timeout(SOON, told).await.expect("nothing is told");
            assert_eq!((told.status, told.outcome), (status, outcome), "{shown:?}");
            assert_eq!((told.client, told.listener), (own, front.address));
            assert_eq!((&*told.method, told.trace), ("", SpanContext::NONE));
            *expected.entry(status).or_default() += 1;
        }
        let counts = front.facts.shared.telemetry().counts();
        let counted = counts.listener(front.address).unread.all();
        let counted = counted.into_iter().map(|(code, _, count)| (code, count));
        assert_eq!(
            counted.collect::<std::collections::BTreeMap<_, _>>(),
            expected
        );
    });
}
