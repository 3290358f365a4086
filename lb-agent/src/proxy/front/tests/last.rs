//! The last answer of a connection: its end comes along with it, and nothing is kept for that.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};

use super::{
    super::visit::is_last,
    rig::{CLOSING, Front, Kind, OK, patient},
};
use crate::{
    domain::http::policy::HttpPolicy,
    proxy::engine::tests::rig::{Backend, SOON, local, read_request},
};

const OLD: &[u8] = b"GET / HTTP/1.0\r\nHost: web\r\n\r\n";

/// What the kernel keeps for more goes after 200 ms by itself; the quickest of a few tells.
const TRIES: u32 = 5;
const KEPT: Duration = Duration::from_millis(150);

#[test]
fn only_who_says_so_and_nothing_else() {
    let rows: [(Version, &[&str], bool); 9] = [
        (Version::HTTP_11, &[], false),
        (Version::HTTP_11, &["close"], true),
        (Version::HTTP_11, &["Close"], true),
        (Version::HTTP_11, &["keep-alive"], false),
        (Version::HTTP_11, &["close, upgrade"], false),
        (Version::HTTP_11, &["close", "keep-alive"], false),
        (Version::HTTP_10, &[], true),
        (Version::HTTP_10, &["keep-alive"], false),
        (Version::HTTP_2, &["close"], false),
    ];
    for (version, values, expected) in rows {
        let mut headers = HeaderMap::new();
        for value in values {
            let name = HeaderName::from_static("connection");
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(
            is_last(version, &headers),
            expected,
            "{version:?} {values:?}"
        );
    }
}

/// Whoever has read the answer sees at once that it was the last.
#[test]
fn the_end_comes_with_the_answer() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        for request in [CLOSING, OLD] {
            let mut quickest = Duration::MAX;
            for _ in 0..TRIES {
                let begun = Instant::now();
                let client = front.sending(request).await;
                let mut got = [0; 4096];
                let end = timeout(SOON, async {
                    client.0.readable().await.unwrap();
                    let length = client.0.try_read(&mut got).unwrap();
                    assert!(got[..length].ends_with(b"\r\n\r\nok"), "{length} bytes");
                    client.0.try_read(&mut got)
                });
                assert_eq!(end.await.unwrap().unwrap(), 0);
                quickest = quickest.min(begun.elapsed());
            }
            assert!(quickest < KEPT, "{quickest:?}");
        }
    });
}

/// What comes in pieces goes on in pieces, also if it is the last.
#[test]
fn pieces_go_as_they_come() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none";
    local(async {
        let go_on = Rc::new(Cell::new(false));
        let told = Rc::clone(&go_on);
        let backend = Backend::start(move |mut stream, _| {
            let told = Rc::clone(&told);
            async move {
                while read_request(&mut stream).await.is_some() {
                    stream.write_all(HEAD.as_bytes()).await.unwrap();
                    while !told.get() {
                        sleep(Duration::from_millis(1)).await;
                    }
                    stream.write_all(b"two").await.unwrap();
                }
            }
        })
        .await;
        let policy = HttpPolicy::default();
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        let mut quickest = Duration::MAX;
        for _ in 0..TRIES {
            go_on.set(false);
            let begun = Instant::now();
            let mut client = front.sending(CLOSING).await;
            client.expect("one").await;
            quickest = quickest.min(begun.elapsed());
            go_on.set(true);
            assert_eq!(client.rest().await, "two");
        }
        assert!(quickest < KEPT, "{quickest:?}");
    });
}
