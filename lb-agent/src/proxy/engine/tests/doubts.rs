//! A backend that hangs, where nobody has said how long one try may take.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, time::sleep};

use super::{
    resilience::{OK, failing, quick},
    rig::{Backend, Got, Proxy, SOON, local, read_request, snapshot},
};
use crate::domain::{
    http::{exchange::Outcome, policy::HttpPolicy},
    service::Protocol,
};

const MS: Duration = Duration::from_millis(1);

/// A request has 600 ms, and the first try the first 200 of them to itself.
fn patient() -> HttpPolicy {
    let mut policy = quick();
    policy.timeouts.per_try = None;
    policy
}

async fn ask(proxy: &Proxy, method: &str, body: &str) -> Got {
    let length = body.len();
    let request = format!(
        "{method} /x HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    Got::read(&proxy.raw(&request).await)
}

/// Answers what is the so manieth of all requests after such a time.
async fn answering_after(asked: &Rc<Cell<u32>>, time: fn(u32) -> Duration) -> Backend {
    let asked = Rc::clone(asked);
    Backend::start(move |mut stream, _| {
        let asked = Rc::clone(&asked);
        async move {
            while read_request(&mut stream).await.is_some() {
                asked.set(asked.get() + 1);
                sleep(time(asked.get())).await;
                let _ = stream.write_all(OK.as_bytes()).await;
            }
        }
    })
    .await
}

#[test]
fn what_may_be_repeated_is_answered_whatever_hangs() {
    local(async {
        for (method, body) in [("GET", ""), ("PUT", "abc"), ("DELETE", "")] {
            let (hangs, asked) = failing("hangs").await;
            let good = Backend::answering(OK).await;
            let backends = [hangs.address, good.address];
            let proxy = Proxy::start(&snapshot(patient(), Protocol::Http, &backends)).await;
            while asked.get() == 0 {
                let begun = Instant::now();
                assert_eq!(ask(&proxy, method, body).await.status, 200, "{method}");
                let took = begun.elapsed();
                let record = proxy.record().await;
                if asked.get() > 0 {
                    assert!(took >= 200 * MS && took < 500 * MS, "{method}: {took:?}");
                    let hedges = record.tries.iter().filter(|one| one.hedge);
                    assert_eq!((record.tries.len(), hedges.count()), (2, 1));
                }
            }
            // It has failed, as far as its ejection is concerned, and is hardly expected to be quick.
            let told = proxy.shared.signals();
            let told = told.iter().find(|signal| signal.backend == hangs.address);
            assert_eq!(told.map(|signal| signal.tally.failed), Some(1), "{method}");
            for _ in 0..10 {
                assert_eq!(ask(&proxy, method, body).await.status, 200);
            }
            assert!(asked.get() <= 3, "{method}: asked {}", asked.get());
        }
    });
}

#[test]
fn what_may_not_be_repeated_waits_for_the_one() {
    local(async {
        for (method, retries) in [("POST", 2), ("GET", 0)] {
            let (one, first) = failing("hangs").await;
            let (two, second) = failing("hangs").await;
            let mut policy = patient();
            policy.retry.retries = retries;
            let backends = [one.address, two.address];
            let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
            assert_eq!(ask(&proxy, method, "").await.status, 504, "{method}");
            assert_eq!(first.get() + second.get(), 1, "{method}");
        }
    });
}

/// Who is slow but comes in time is not given up.
#[test]
fn the_first_may_still_answer() {
    local(async {
        let asked = Rc::new(Cell::new(0));
        let slow = || {
            answering_after(
                &asked,
                |number| if number == 1 { 350 * MS } else { 3 * SOON },
            )
        };
        let backends = [slow().await.address, slow().await.address];
        let proxy = Proxy::start(&snapshot(patient(), Protocol::Http, &backends)).await;
        let begun = Instant::now();
        assert_eq!(proxy.ask("GET", "").await.status, 200);
        let took = begun.elapsed();
        assert!(took >= 350 * MS && took < 590 * MS, "{took:?}");
        assert_eq!(asked.get(), 2);
        let record = proxy.record().await;
        assert_eq!(record.outcome, Outcome::Answered);
        assert_eq!(record.answering().unwrap().result, Ok(200));
        // Alone it is not given up either.
        asked.set(0);
        let proxy = Proxy::start(&snapshot(patient(), Protocol::Http, &backends[..1])).await;
        assert_eq!(proxy.ask("GET", "").await.status, 200);
        assert_eq!(asked.get(), 1);
    });
}

/// The time of a body that comes slowly is not the backend's.
#[test]
fn a_slow_client_makes_no_doubt() {
    local(async {
        let asked = Rc::new(Cell::new(0));
        let backend = || answering_after(&asked, |_| 100 * MS);
        let backends = [backend().await.address, backend().await.address];
        let proxy = Proxy::start(&snapshot(patient(), Protocol::Http, &backends)).await;
        let mut stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let head = "PUT /x HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for byte in [b"a", b"b", b"c", b"d"] {
            sleep(100 * MS).await;
            stream.write_all(byte).await.unwrap();
        }
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        assert_eq!(Got::read(&String::from_utf8_lossy(&answer)).status, 200);
        assert_eq!(asked.get(), 1);
    });
}
