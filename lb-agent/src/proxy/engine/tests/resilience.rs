//! What is tried again, and what clients are told when nothing helps.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::sleep};

use super::rig::{Backend, Proxy, local, nowhere, read_request, snapshot};
use crate::domain::{
    http::{
        exchange::Outcome,
        policy::{Hedge, HttpPolicy, Limits, RetryPolicy, Timeouts},
    },
    service::Protocol,
};

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(super) const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const MS: Duration = Duration::from_millis(1);

pub(super) fn quick() -> HttpPolicy {
    HttpPolicy {
        timeouts: Timeouts {
            total: 600 * MS,
            per_try: Some(150 * MS),
            ..Timeouts::default()
        },
        retry: RetryPolicy {
            backoff: 2 * MS,
            floor: 100,
            ..RetryPolicy::default()
        },
        ..HttpPolicy::default()
    }
}

/// A backend that fails each request in one way, and counts them.
pub(super) async fn failing(how: &'static str) -> (Backend, Rc<Cell<u32>>) {
    let requests = Rc::new(Cell::new(0));
    let count = Rc::clone(&requests);
    let backend = Backend::start(move |mut stream, _| {
        let count = Rc::clone(&count);
        async move {
            if how == "closes" {
                return;
            }
            while read_request(&mut stream).await.is_some() {
                count.set(count.get() + 1);
                match how {
                    "breaks" => return,
                    "hangs" => sleep(3 * super::rig::SOON).await,
                    answer => stream.write_all(answer.as_bytes()).await.unwrap(),
                }
            }
        }
    })
    .await;
    (backend, requests)
}

#[test]
fn idempotent_requests_are_served_whatever_one_backend_does() {
    local(async {
        for how in ["closes", "breaks", "hangs", BUSY] {
            let (bad, asked) = failing(how).await;
            let good = Backend::answering(OK).await;
            let proxy = Proxy::start(&snapshot(
                quick(),
                Protocol::Http,
                &[bad.address, good.address],
            ))
            .await;
            for _ in 0..10 {
                let got = proxy.ask("GET", "").await;
                assert_eq!((got.status, got.body.as_str()), (200, "ok"), "{how}");
            }
            let met = bad.connections() > 0 && (how == "closes" || asked.get() > 0);
            assert!(met, "{how}: the bad backend was never tried");
            let told = proxy.shared.signals();
            let failed: u64 = told
                .iter()
                .filter(|signal| signal.backend == bad.address)
                .map(|signal| signal.tally.failed)
                .sum();
            assert!(failed > 0, "{how}: {told:?}");
        }
    });
}

#[test]
fn a_post_is_never_sent_twice() {
    local(async {
        for (how, status) in [("breaks", 502), ("hangs", 504), (BUSY, 503)] {
            let (one, first) = failing(how).await;
            let (two, second) = failing(how).await;
            let proxy = Proxy::start(&snapshot(
                quick(),
                Protocol::Http,
                &[one.address, two.address],
            ))
            .await;
            for sent in 1..=4 {
                assert_eq!(proxy.post("abc").await.status, status, "{how}");
                assert_eq!(first.get() + second.get(), sent, "{how}");
            }
        }
        // Where no connection comes about, nothing was sent.
        let good = Backend::echoing().await;
        let proxy = Proxy::start(&snapshot(
            quick(),
            Protocol::Http,
            &[nowhere().await, good.address],
        ))
        .await;
        for _ in 0..10 {
            let got = proxy.post("abc").await;
            assert_eq!(got.status, 200);
            assert!(got.body.ends_with("\r\n\r\nabc"), "{got:?}");
        }
    });
}

#[test]
fn an_idle_connection_that_has_ended_is_no_failure() {
    local(async {
        // Ends each connection after one answer, without saying so.
        let backend = Backend::start(|mut stream, _| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(OK.as_bytes()).await;
        })
        .await;
        let policy = HttpPolicy {
            retry: RetryPolicy {
                retries: 0,
                ..RetryPolicy::default()
            },
            ..quick()
        };
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[backend.address])).await;
        for round in 0..20 {
            let got = if round % 2 == 0 {
                proxy.ask("GET", "").await
            } else {
                sleep(5 * MS).await;
                proxy.post("abc").await
            };
            assert_eq!(got.status, 200, "round {round}");
        }
        let told = proxy.shared.signals();
        assert_eq!((told[0].tally.succeeded, told[0].tally.failed), (20, 0));
    });
}

#[test]
fn a_body_that_can_be_repeated_is() {
    local(async {
        let (bad, _) = failing("breaks").await;
        let good = Backend::echoing().await;
        for (length, served) in [(10_000, true), (200_000, false)] {
            let backends = [bad.address, good.address];
            let proxy = Proxy::start(&snapshot(quick(), Protocol::Http, &backends)).await;
            let body = "x".repeat(length);
            let mut failures = 0;
            for _ in 0..12 {
                let request = format!(
                    "PUT / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                let got = super::rig::Got::read(&proxy.raw(&request).await);
                if got.status == 200 {
                    assert!(got.body.ends_with(&body));
                } else {
                    failures += 1;
                }
            }
            assert_eq!(failures == 0, served, "{failures} of {length} bytes");
        }
    });
}

#[test]
fn what_clients_are_told() {
    local(async {
        let (hangs, _) = failing("hangs").await;
        let (breaks, _) = failing("breaks").await;
        let dead = nowhere().await;
        for (backends, policy, status, outcome) in [
            (vec![hangs.address], quick(), 504, Outcome::TimedOut),
            (vec![breaks.address], quick(), 502, Outcome::BackendFailed),
            (vec![dead], quick(), 503, Outcome::BackendFailed),
            (vec![], quick(), 503, Outcome::NoBackend),
        ] {
            let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
            let begun = Instant::now();
            let got = proxy.ask("GET", "").await;
            assert_eq!(got.status, status, "{outcome:?}: {got:?}");
            assert!(begun.elapsed() < Duration::from_secs(1));
            assert_eq!(got.head.contains("retry-after: "), status == 503, "{got:?}");
            assert_eq!(proxy.record().await.outcome, outcome);
        }
        // The total bounds all tries together.
        let mut policy = quick();
        policy.timeouts.total = 200 * MS;
        policy.timeouts.per_try = Some(150 * MS);
        let (other, _) = failing("hangs").await;
        let backends = [hangs.address, other.address];
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
        let begun = Instant::now();
        assert_eq!(proxy.ask("GET", "").await.status, 504);
        let took = begun.elapsed();
        assert!(took >= 200 * MS && took < 400 * MS, "{took:?}");
    });
}

#[test]
fn grpc_is_told_in_its_own_way() {
    local(async {
        let proxy = Proxy::start(&snapshot(quick(), Protocol::Http, &[])).await;
        let got = proxy
            .ask("POST", "Content-Type: application/grpc\r\n")
            .await;
        assert_eq!(got.status, 200);
        assert!(got.head.contains("grpc-status: 14"), "{got:?}");
        let (hangs, _) = failing("hangs").await;
        let proxy = Proxy::start(&snapshot(quick(), Protocol::Http, &[hangs.address])).await;
        let got = proxy
            .ask("POST", "Content-Type: application/grpc+proto\r\n")
            .await;
        assert!(got.head.contains("grpc-status: 4"), "{got:?}");
    });
}

#[test]
fn limits_refuse_at_once() {
    local(async {
        let (hangs, _) = failing("hangs").await;
        let limited = |limits| HttpPolicy { limits, ..quick() };
        let one = Limits {
            requests: 1,
            ..Limits::default()
        };
        let pending = Limits {
            connections: 1,
            pending: 0,
            ..Limits::default()
        };
        for limits in [one, pending] {
            let snapshot = snapshot(limited(limits.clone()), Protocol::Http, &[hangs.address]);
            let proxy = Proxy::start(&snapshot).await;
            let mut first = TcpStream::connect(proxy.address).await.unwrap();
            first
                .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
                .await
                .unwrap();
            sleep(30 * MS).await;
            let begun = Instant::now();
            let got = proxy.ask("GET", "").await;
            assert_eq!(got.status, 503, "{limits:?}");
            assert!(got.head.contains("retry-after: "));
            assert!(begun.elapsed() < 100 * MS, "{limits:?}");
            assert_eq!(proxy.record().await.outcome, Outcome::Overloaded);
        }
        let body = Limits {
            body: Some(10),
            ..Limits::default()
        };
        let echo = Backend::echoing().await;
        let proxy = Proxy::start(&snapshot(limited(body), Protocol::Http, &[echo.address])).await;
        assert_eq!(proxy.post("0123456789").await.status, 200);
        assert_eq!(proxy.post("0123456789a").await.status, 413);
        let chunked = "POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\
                       Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n";
        let got = super::rig::Got::read(&proxy.raw(chunked).await);
        assert_eq!(got.status, 413);
    });
}

#[test]
fn requests_wait_for_a_connection_if_they_may() {
    local(async {
        let slow = Backend::start(|mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                sleep(20 * MS).await;
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await;
        let limits = Limits {
            connections: 1,
            ..Limits::default()
        };
        let policy = HttpPolicy { limits, ..quick() };
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[slow.address])).await;
        let asks = (0..5).map(|_| proxy.ask("GET", ""));
        for got in futures_util::future::join_all(asks).await {
            assert_eq!(got.status, 200);
        }
        assert_eq!(slow.connections(), 1);
    });
}

#[test]
fn a_hedge_answers_for_a_slow_first() {
    local(async {
        let (hangs, asked) = failing("hangs").await;
        let good = Backend::answering(OK).await;
        let mut policy = quick();
        policy.timeouts.per_try = None;
        policy.hedge = Some(Hedge { after: 30 * MS });
        let backends = [hangs.address, good.address];
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
        let mut hedged = 0;
        while asked.get() == 0 {
            let begun = Instant::now();
            assert_eq!(proxy.ask("GET", "").await.status, 200);
            assert!(begun.elapsed() < 300 * MS);
            hedged = proxy
                .record()
                .await
                .tries
                .iter()
                .filter(|one| one.hedge)
                .count();
        }
        assert_eq!(hedged, 1);
    });
}

#[test]
fn the_budget_bounds_retries() {
    local(async {
        let (one, first) = failing(BUSY).await;
        let (two, second) = failing(BUSY).await;
        let mut policy = quick();
        policy.retry.floor = 0;
        policy.retry.budget = 20;
        let backends = [one.address, two.address];
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
        for _ in 0..50 {
            assert_eq!(proxy.ask("GET", "").await.status, 503);
        }
        assert_eq!(first.get() + second.get(), 60);
    });
}

/// Sent once more to the same backend is sent once more.
#[test]
fn a_connection_that_broke_with_the_request_costs_a_retry() {
    local(async {
        // (retries a second) → status, requests that the backend had
        for (floor, status, requests) in [(0, 502, 2), (10, 200, 3)] {
            let count = Rc::new(Cell::new(0));
            let had = Rc::clone(&count);
            let backend = Backend::start(move |mut stream, _| {
                let had = Rc::clone(&had);
                async move {
                    read_request(&mut stream).await;
                    had.set(had.get() + 1);
                    let _ = stream.write_all(OK.as_bytes()).await;
                    if read_request(&mut stream).await.is_some() {
                        had.set(had.get() + 1);
                    }
                }
            })
            .await;
            let mut policy = quick();
            (policy.retry.floor, policy.retry.budget) = (floor, 0);
            let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[backend.address])).await;
            assert_eq!(proxy.ask("GET", "").await.status, 200);
            assert_eq!(proxy.ask("GET", "").await.status, status);
            assert_eq!(count.get(), requests);
        }
    });
}
