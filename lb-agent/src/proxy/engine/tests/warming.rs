//! Connections that are ready before requests need them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt as _, time::sleep};

use super::{
    resilience::{OK, quick},
    rig::{Backend, Local, Proxy, SOON, local, nowhere, read_request, weighted},
};
use crate::{
    domain::{
        http::policy::{HttpPolicy, Limits, ProxyProtocol, Upstream},
        service::Protocol,
    },
    proxy::engine::warm::MOST,
};

/// Longer than it takes to look twice.
const A_WHILE: Duration = Duration::from_millis(1300);

const CLOSING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// Connections to the backend so far: opened, and not opened.
fn counts(proxy: &Proxy, backend: SocketAddr) -> (u64, u64) {
    let pool = proxy
        .shared
        .telemetry()
        .counts()
        .service(&"web".into())
        .pool(backend);
    (pool.opened.load(Relaxed), pool.failed.load(Relaxed))
}

/// Waits until so many have been opened, and none has failed.
async fn until_opened(proxy: &Proxy, backend: SocketAddr, count: u64) {
    let until = Instant::now() + SOON;
    while counts(proxy, backend) != (count, 0) {
        assert!(Instant::now() < until, "{:?}", counts(proxy, backend));
        sleep(Duration::from_millis(20)).await;
    }
}

/// A service that has had a request, on the first backend, and what of others there is then.
async fn asked(policy: HttpPolicy, others: &[(SocketAddr, u32)]) -> (Proxy, Backend) {
    let first = Backend::answering(OK).await;
    let all = [(first.address, 1)];
    let proxy = Proxy::start(&weighted(1, policy.clone(), Protocol::Http, &all)).await;
    assert_eq!(proxy.ask("GET", "").await.status, 200);
    let all = [&all, others].concat();
    let next = weighted(2, policy, Protocol::Http, &all);
    proxy.shared.update(&next);
    (proxy, first)
}

#[test]
fn who_takes_requests_has_a_connection_before_the_first() {
    local(async {
        let (joins, rests) = (Backend::answering(OK).await, Backend::answering(OK).await);
        let others = [(joins.address, 1), (rests.address, 0)];
        let (proxy, first) = asked(quick(), &others).await;
        until_opened(&proxy, joins.address, 1).await;
        // That one serves.
        let before = Instant::now();
        for _ in 0..40 {
            assert_eq!(proxy.ask("GET", "").await.status, 200);
        }
        // A look in the middle of a request finds none ready, and opens another.
        let most = 1 + 2 * before.elapsed().as_secs() as u32 + 1;
        for backend in [&joins, &first] {
            let connections = backend.connections();
            assert!((1..=most).contains(&connections), "{connections}");
        }
        // Whom nothing is sent to, has none.
        assert_eq!(counts(&proxy, rests.address), (0, 0));
    });
}

#[test]
fn one_is_ready_beside_those_in_use_and_no_more() {
    local(async {
        let backend = Backend::start(|mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                sleep(Duration::from_millis(100)).await;
                if stream.write_all(OK.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let all = [(backend.address, 1)];
        let proxy = Proxy::start(&weighted(1, HttpPolicy::default(), Protocol::Http, &all)).await;
        let until = Instant::now() + 2 * A_WHILE;
        while Instant::now() < until {
            assert_eq!(proxy.ask("GET", "").await.status, 200);
        }
        assert!((1..=2).contains(&backend.connections()));
    });
}

#[test]
fn nobody_has_one_without_need() {
    let upstream = |upstream| HttpPolicy {
        upstream,
        ..quick()
    };
    let warm = |warm| Upstream {
        warm,
        ..Upstream::default()
    };
    let limited = |connections| HttpPolicy {
        limits: Limits {
            connections,
            ..Limits::default()
        },
        ..upstream(warm(9))
    };
    let told = Upstream {
        proxy_protocol: Some(ProxyProtocol::V1),
        ..Upstream::default()
    };
    let few = |idle, warm| Upstream {
        idle: Some(idle),
        warm,
        ..Upstream::default()
    };
    let cases = [
        ("as it is", quick(), 1),
        ("more", upstream(warm(2)), 2),
        ("none", upstream(warm(0)), 0),
        ("of a client", upstream(told), 0),
        ("none is kept", upstream(few(0, 1)), 0),
        ("one is kept", upstream(few(1, 2)), 1),
        ("the half of four", limited(4), 2),
        ("the half of one", limited(1), 0),
    ];
    local(async {
        let mut proxies = Vec::new();
        for (what, policy, expected) in cases {
            let other = Backend::answering(OK).await;
            let (proxy, _) = asked(policy, &[(other.address, 1)]).await;
            proxies.push((what, proxy, other.address, expected));
        }
        // A service without requests.
        let backend = Backend::answering(OK).await;
        let all = [(backend.address, 1)];
        let unasked = Proxy::start(&weighted(1, quick(), Protocol::Http, &all)).await;
        proxies.push(("unasked", unasked, backend.address, 0));
        for (_, proxy, backend, expected) in &proxies {
            until_opened(proxy, *backend, *expected).await;
        }
        sleep(A_WHILE).await;
        for (what, proxy, backend, expected) in &proxies {
            assert_eq!(counts(proxy, *backend), (*expected, 0), "{what}");
        }
    });
}

#[test]
fn all_together_are_bounded() {
    for (threads, expected) in [(MOST / 4, 3), (MOST / 2, 1), (MOST, 0)] {
        local(async {
            let mut backends = Vec::new();
            for _ in 0..4 {
                backends.push(Backend::answering(OK).await);
            }
            let all: Vec<_> = backends.iter().map(|one| (one.address, 1)).collect();
            let next = weighted(1, quick(), Protocol::Http, &all);
            let proxy = Proxy::one_of(threads as usize, &next).await;
            assert_eq!(proxy.ask("GET", "").await.status, 200);
            sleep(A_WHILE).await;
            let opened: u64 = all.iter().map(|(one, _)| counts(&proxy, *one).0).sum();
            assert_eq!(opened, 1 + expected, "{threads}");
        });
    }
}

#[test]
fn who_refuses_or_closes_is_left_alone_for_a_time_and_not_blamed() {
    local(async {
        let away = nowhere().await;
        let closing = Backend::start(|stream, _| async move { drop(stream) }).await;
        let others = [(away, 1), (closing.address, 1)];
        let (proxy, _first) = asked(quick(), &others).await;
        proxy.shared.signals();
        // Four looks or five, with a pause of a second after the first failure and of two after the next.
        sleep(Duration::from_millis(2300)).await;
        let (_, failed) = counts(&proxy, away);
        let (opened, _) = counts(&proxy, closing.address);
        assert!((1..=2).contains(&failed), "{failed}");
        assert!((1..=2).contains(&opened), "{opened}");
        let signals = proxy.shared.signals();
        assert!(signals.is_empty(), "{signals:?}");
    });
}

#[test]
fn pools_go_with_their_backends_whatever_still_asks_for_them() {
    local(async {
        let slow = Backend::start(|mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                sleep(A_WHILE).await;
                if stream.write_all(OK.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let mut policy = HttpPolicy::default();
        policy.upstream.warm = 0;
        let stays = Backend::answering(OK).await;
        let snapshot = |version, all: &[(SocketAddr, u32)]| {
            weighted(version, policy.clone(), Protocol::Http, all)
        };
        // A request that fails on a backend which is gone by then goes to the next of its time.
        let breaking = Backend::start(|mut stream, _| async move {
            read_request(&mut stream).await;
            sleep(A_WHILE).await;
        })
        .await;
        let before = [(slow.address, 1), (breaking.address, 1_000_000)];
        let proxy = Proxy::start(&snapshot(1, &before)).await;
        let request = async { proxy.ask("GET", "").await.status };
        let change = async {
            sleep(Duration::from_millis(100)).await;
            proxy.shared.update(&snapshot(2, &[(stays.address, 1)]));
            sleep(A_WHILE / 2).await;
            assert_eq!(proxy.engine.pools.count(), 0);
        };
        assert_eq!(tokio::join!(request, change).0, 200);
        assert_eq!((breaking.connections(), slow.connections()), (1, 1));
        assert_eq!(proxy.engine.pools.count(), 0, "a pool nobody comes for");
        assert_eq!(proxy.ask("GET", "").await.status, 200);
        assert_eq!(proxy.engine.pools.count(), 1);
        // One that holds nothing is dropped as well.
        let closing = Backend::answering(CLOSING).await;
        proxy.shared.update(&snapshot(
            3,
            &[(stays.address, 1), (closing.address, 1_000_000)],
        ));
        assert_eq!(proxy.ask("GET", "").await.status, 200);
        assert_eq!(closing.connections(), 1);
        sleep(A_WHILE).await;
        assert_eq!(proxy.engine.pools.count(), 1);
    });
}

/// A backend of HTTP/2 that answers everything with nothing.
async fn of_http2() -> Backend {
    Backend::start(|stream, _| async move {
        let service = service_fn(|_| async {
            Ok::<_, Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
        });
        let served = hyper::server::conn::http2::Builder::new(Local)
            .serve_connection(TokioIo::new(stream), service);
        // However it ends.
        let _ = served.await;
    })
    .await
}

#[test]
fn one_connection_of_http2_is_enough() {
    local(async {
        let (first, other) = (of_http2().await, of_http2().await);
        let mut policy = quick();
        policy.upstream.warm = 3;
        let mut all = vec![(first.address, 1)];
        let proxy = Proxy::start(&weighted(1, policy.clone(), Protocol::Grpc, &all)).await;
        proxy.ask("GET", "").await;
        all.push((other.address, 1));
        proxy
            .shared
            .update(&weighted(2, policy, Protocol::Grpc, &all));
        until_opened(&proxy, other.address, 1).await;
        sleep(A_WHILE).await;
        for backend in [&first, &other] {
            assert_eq!(counts(&proxy, backend.address), (1, 0));
        }
    });
}
