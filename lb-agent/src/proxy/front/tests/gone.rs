//! Clients that go away while their request waits for a backend.

use std::{cell::RefCell, rc::Rc, time::Duration};

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

/// A backend that answers nothing, and tells when its connections end.
async fn silent(ended: Rc<RefCell<u32>>) -> Backend {
    Backend::start(move |mut stream, _| {
        let ended = Rc::clone(&ended);
        async move {
            read_request(&mut stream).await;
            // Whatever comes is no request.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            *ended.borrow_mut() += 1;
        }
    })
    .await
}

/// A reset ends the try on the backend at once, not when there is an answer to write.
#[test]
fn resets_end_what_is_under_way() {
    local(async {
        let ended = Rc::<RefCell<u32>>::default();
        let backend = silent(Rc::clone(&ended)).await;
        let policy = HttpPolicy {
            timeouts: Timeouts {
                total: LONG,
                ..Timeouts::default()
            },
            ..HttpPolicy::default()
        };
        for kind in [Kind::Plain, Kind::Tls] {
            *ended.borrow_mut() = 0;
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
                    sleep(after).await;
                    stream.get_ref().0.set_zero_linger().unwrap();
                } else {
                    let client = front.sending(request.as_bytes()).await;
                    sleep(after).await;
                    client.0.set_zero_linger().unwrap();
                }
                let over = async {
                    while *ended.borrow() < number {
                        sleep(Duration::from_millis(5)).await;
                    }
                };
                timeout(SOON, over).await.expect("the try goes on");
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
