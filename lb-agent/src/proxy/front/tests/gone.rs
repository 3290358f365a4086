//! Clients that go away while their request waits for a backend.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::rig::{Front, GET, Kind, LONG, OK, patient};
use crate::{
    domain::http::{
        exchange::Outcome,
        policy::{HttpPolicy, Timeouts},
    },
    proxy::engine::tests::rig::{Backend, SOON, local, read_request},
};

/// More than a few rounds of a thread.
const WHILE: Duration = Duration::from_millis(100);

/// Requests that a backend has got, and those of them whose connections have ended.
#[derive(Default)]
struct Seen {
    got: Cell<u32>,
    ended: Cell<u32>,
}

/// A backend that answers nothing.
async fn silent(seen: Rc<Seen>) -> Backend {
    Backend::start(move |mut stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            if read_request(&mut stream).await.is_none() {
                return;
            }
            seen.got.set(seen.got.get() + 1);
            // Whatever comes is no request.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            seen.ended.set(seen.ended.get() + 1);
        }
    })
    .await
}

/// Waits until it is so many.
async fn until(count: &Cell<u32>, number: u32, otherwise: &str) {
    let over = async {
        while count.get() < number {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, over).await.expect(otherwise);
}

/// A reset ends the try on the backend at once, not when there is an answer to write.
#[test]
fn resets_end_what_is_under_way() {
    local(async {
        let seen = Rc::<Seen>::default();
        let backend = silent(Rc::clone(&seen)).await;
        let policy = HttpPolicy {
            timeouts: Timeouts {
                total: LONG,
                ..Timeouts::default()
            },
            ..HttpPolicy::default()
        };
        for kind in [Kind::Plain, Kind::Tls] {
            seen.got.set(0);
            seen.ended.set(0);
            let mut front = Front::start(patient(), kind, policy.clone(), backend.address);
            // As much as is read at once: whether more is there, nobody has asked yet.
            let long = GET.replace("\r\n\r\n", "\r\nX-A: ");
            let long = format!("{long:a<2044}\r\n\r\n");
            // Before and after it is watched.
            for (number, after, request) in [
                (1, WHILE, GET),
                (2, Duration::ZERO, GET),
                (3, WHILE, long.as_str()),
            ] {
                if kind == Kind::Tls {
                    let mut stream = front.connect_tls(&["http/1.1"]).await;
                    stream.write_all(request.as_bytes()).await.unwrap();
                    until(&seen.got, number, "no request").await;
                    sleep(after).await;
                    stream.get_ref().0.set_zero_linger().unwrap();
                } else {
                    let client = front.sending(request.as_bytes()).await;
                    until(&seen.got, number, "no request").await;
                    sleep(after).await;
                    client.0.set_zero_linger().unwrap();
                }
                until(&seen.ended, number, "the try goes on").await;
                let told = timeout(SOON, front.records.recv()).await.unwrap().unwrap();
                assert_eq!((told.outcome, told.status), (Outcome::ClientGone, 0));
                front.until_connections(0).await;
            }
        }
    });
}

/// Whoever has only ended its own side, or sends on, gets its answer.
#[test]
fn who_waits_for_an_answer_gets_it() {
    local(async {
        let backend = Backend::start(|mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                sleep(3 * WHILE).await;
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await;
        let policy = HttpPolicy::default();
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        for after in [Duration::ZERO, WHILE] {
            let mut client = front.sending(GET.as_bytes()).await;
            sleep(after).await;
            client.0.shutdown().await.unwrap();
            assert!(client.rest().await.ends_with("ok"), "{after:?}");
            let mut client = front.sending(GET.as_bytes()).await;
            sleep(after).await;
            client.send(GET.as_bytes()).await;
            for _ in 0..2 {
                client.expect("ok").await;
            }
        }
    });
}
