//! How long a connection that became another protocol may rest.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    resilience::quick,
    rig::{Backend, Proxy, SOON, local, read_request, snapshot},
};
use crate::domain::service::Protocol;

const IDLE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(100);
/// With pauses between them they take twice what the connection may rest.
const WORDS: usize = 6;
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n";

/// Who talks, with pauses, before all is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talks {
    Nobody,
    Client,
    Backend,
    Both,
}

impl Talks {
    fn client(self) -> bool {
        matches!(self, Self::Client | Self::Both)
    }

    fn backend(self) -> bool {
        matches!(self, Self::Backend | Self::Both)
    }
}

async fn talk(to: &mut (impl AsyncWrite + Unpin), talks: bool) {
    for _ in 0..if talks { WORDS } else { 0 } {
        sleep(PAUSE).await;
        to.write_all(b"word").await.unwrap();
    }
}

/// Whatever moves keeps it, in either direction alone; then it ends for both, and not before its
/// time.
#[test]
fn silent_tunnels_end() {
    local(async {
        for talks in [Talks::Nobody, Talks::Client, Talks::Backend, Talks::Both] {
            let (ended, mut end) = tokio::sync::mpsc::channel(1);
            let backend = Backend::start(move |mut stream, _| {
                let ended = ended.clone();
                async move {
                    read_request(&mut stream).await.unwrap();
                    stream.write_all(SWITCHED.as_bytes()).await.unwrap();
                    let (mut from, mut to) = stream.split();
                    let mut came = Vec::new();
                    // Whether it is a reset is all the same.
                    let (_, _) = tokio::join!(from.read_to_end(&mut came), async {
                        talk(&mut to, talks.backend()).await;
                    });
                    ended.send(came.len()).await.unwrap();
                }
            })
            .await;
            let mut policy = quick();
            policy.timeouts.idle = IDLE;
            let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[backend.address])).await;
            let mut client = TcpStream::connect(proxy.address).await.unwrap();
            let request =
                "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let begun = Instant::now();
            let (mut from, mut to) = client.split();
            let mut came = Vec::new();
            let (over, ()) = tokio::join!(
                timeout(SOON, from.read_to_end(&mut came)),
                talk(&mut to, talks.client())
            );
            assert!(over.is_ok(), "{talks:?}: it rests for ever");
            let took = begun.elapsed();
            let words = if talks == Talks::Nobody {
                0
            } else {
                WORDS as u32
            };
            let least = PAUSE * words + IDLE;
            // It began to rest before the client knew of it.
            assert!(
                took > least - IDLE / 10,
                "{talks:?}: it ended after {took:?}"
            );
            let sent = |talks: bool| if talks { 4 * WORDS } else { 0 };
            assert_eq!(came.len(), sent(talks.backend()), "{talks:?}");
            assert_eq!(end.recv().await, Some(sent(talks.client())), "{talks:?}");
        }
    });
}
