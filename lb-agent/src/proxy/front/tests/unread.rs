//! Requests that nobody reads to the end of their head are told of all the same.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};

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
fn rows() -> [(String, u16, Outcome); 10] {
    let get = |target: usize, header: usize| {
        let (target, header) = ("t".repeat(target), "v".repeat(header));
        format!("GET /{target} HTTP/1.1\r\nHost: web\r\nX-A: {header}\r\n\r\n")
    };
    let second = "GET / HTTP/1.1\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\nHost : web\r\n\r\n";
    let other = second.replace("HTTP/1.1\r\nHost : web", "HTTP/1.2\r\nHost: web");
    [
        ("\u{1}\u{2}\r\n\r\n".into(), 400, BadRequest),
        (
            "GET / HTTP/1.1\r\nHost: \u{1}\r\n\r\n".into(),
            400,
            BadRequest,
        ),
        ("GET / HTTP/1.1\nHost: web\n\n".into(), 400, BadRequest),
        (second.into(), 400, BadRequest),
        (
            "GET / HTTP/3.0\r\nHost: web\r\n\r\n".into(),
            505,
            BadRequest,
        ),
        (other, 505, BadRequest),
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
        let mut expected = BTreeMap::<u16, u64>::new();
        for (bytes, status, outcome) in rows() {
            let shown = &bytes[..bytes.len().min(60)];
            let mut client = front.connect().await;
            let own = client.0.local_addr().unwrap();
            // What is refused early is not taken whole.
            let _ = client.0.write_all(bytes.as_bytes()).await;
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
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), expected);
    });
}

/// An unknown version is answered behind what came before it, in whatever pieces that comes. Of one
/// that itself comes in pieces the library has seen too much.
#[test]
fn other_versions_in_pieces() {
    const BEFORE: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    const OTHER: &str = "GET / HTTP/2.0\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\n";
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        let both = format!("{BEFORE}{OTHER}");
        for cut in [0, 1, BEFORE.len(), BEFORE.len() + 1, BEFORE.len() + 11] {
            let mut client = front.sending(&both.as_bytes()[..cut]).await;
            sleep(Duration::from_millis(20)).await;
            client.send(&both.as_bytes()[cut..]).await;
            let got = client.rest().await;
            assert!(got.starts_with("HTTP/1.1 200 "), "{cut}: {got:?}");
            let (_, behind) = got.split_once("\r\n\r\nok").unwrap();
            assert!(behind.starts_with("HTTP/1.1 505 "), "{cut}: {got:?}");
            assert_eq!(behind.matches("HTTP/1.1").count(), 1, "{cut}: {got:?}");
        }
        // Who ends the connection by the first has no answer to the second.
        let both = both.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let mut client = front.sending(both.as_bytes()).await;
        let got = client.rest().await;
        assert!(
            got.starts_with("HTTP/1.1 200 ") && got.ends_with("ok"),
            "{got:?}"
        );
    });
}
