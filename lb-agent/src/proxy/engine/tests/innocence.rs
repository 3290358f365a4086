//! What is no failure of a backend, or one failure of it only.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};

use super::{
    http2::{call, calls, client, stream},
    refusals::{answering, refuse},
    resilience::quick,
    rig::{Backend, Proxy, local, snapshot},
};
use crate::domain::{
    http::{exchange::Outcome, policy::HttpPolicy},
    service::Protocol,
};

const MS: Duration = Duration::from_millis(1);

/// Where connections come about for nobody: nothing is accepted, and the queue is full.
async fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(50 * MS, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 10, "the queue has no end");
    }
    (listener, queued)
}

fn failures(proxy: &Proxy) -> u64 {
    let told = proxy.shared.signals();
    told.iter().map(|signal| signal.tally.failed).sum()
}

/// Whose clients give no time for a connection has not failed.
#[test]
fn deadlines_of_clients() {
    local(async {
        let (listener, _queued) = full().await;
        let backends = [listener.local_addr().unwrap()];
        let mut policy = quick();
        policy.timeouts.connect = 100 * MS;
        policy.retry.retries = 0;
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &backends)).await;
        let ask = async |timeout: Option<&'static str>| {
            let mut sender = client(&proxy).await;
            let mut request = call("/x", Full::new(Bytes::new()));
            if let Some(timeout) = timeout {
                let timeout = http::HeaderValue::from_static(timeout);
                request.headers_mut().insert("grpc-timeout", timeout);
            }
            let answer = sender.send_request(request).await.unwrap();
            answer.headers()["grpc-status"].to_str().unwrap().to_owned()
        };
        for _ in 0..6 {
            assert_eq!(ask(Some("20m")).await, "4");
            assert_eq!(proxy.record().await.outcome, Outcome::TimedOut);
        }
        assert_eq!(failures(&proxy), 0);
        // Those that wait for the connection of such a one make their own.
        tokio::join!(ask(Some("20m")), async {
            sleep(5 * MS).await;
            ask(None).await
        });
        assert_eq!(failures(&proxy), 1);
        // One connection that did not come about is one failure, whoever waited for it.
        let five = [ask(None), ask(None), ask(None), ask(None), ask(None)];
        futures_util::future::join_all(five).await;
        assert_eq!(failures(&proxy), 1);
    });
}

/// A backend that has not looked at a request may have it again, whatever the rules are.
#[test]
fn connections_that_come_to_their_end() {
    local(async {
        let good = calls(Rc::new(|| "0")).await.address;
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let backend = Backend::start(move |mut stream, number| {
            let asked = Rc::clone(&count);
            async move {
                if number % 2 == 1 {
                    let mut good = TcpStream::connect(good).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut good).await;
                } else {
                    let go_away = super::refusals::go_away(0, 0);
                    refuse(&mut stream, &go_away, &asked).await;
                }
            }
        })
        .await;
        let mut policy = HttpPolicy::default();
        policy.retry.retries = 0;
        policy.retry.budget = 0;
        policy.retry.floor = 0;
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
        let mut sender = client(&proxy).await;
        let body = Full::new(Bytes::from("abc"));
        let answer = sender.send_request(call("/x", body)).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "0");
        assert_eq!(asked.get(), 1);
        assert_eq!(failures(&proxy), 0);
        let record = proxy.record().await;
        assert_eq!((record.outcome, record.tries.len()), (Outcome::Answered, 2));
    });
}

/// A backend answers with a failure before it has all of a body, and its connection goes on to take it;
/// the next one gets the body whole.
#[test]
fn a_body_that_a_former_connection_still_reads() {
    local(async {
        // `:status: 503`, and no more comes (RFC 7541, section 6.2.2; RFC 9113, section 6.2).
        let head = [0x08, 3, b'5', b'0', b'3'];
        let asked = Rc::new(Cell::new(0));
        let early = answering(super::refusals::frame(1, 0x5, 1, &head), Rc::clone(&asked)).await;
        let good = calls(Rc::new(|| "0")).await;
        let backends = [early.address, good.address];
        let proxy = Proxy::start(&snapshot(HttpPolicy::default(), Protocol::Grpc, &backends)).await;
        while asked.get() == 0 {
            let mut sender = client(&proxy).await;
            let (pieces, body) = stream();
            let request = Request::put("http://web/echo").header("te", "trailers");
            let asking = sender.send_request(request.body(body).unwrap());
            // More than is kept, in pieces that tell where they belong.
            let sending = async {
                for number in 0..200_u32 {
                    let piece = Bytes::from(number.to_be_bytes().repeat(256));
                    pieces.send(Ok(Frame::data(piece))).await.unwrap();
                    if number < 4 {
                        sleep(20 * MS).await;
                    }
                }
                drop(pieces);
            };
            let receiving = async {
                let answer = asking.await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.into_body().collect().await.unwrap().to_bytes()
            };
            let ((), got) = tokio::join!(sending, receiving);
            assert_eq!(got.len(), 200 * 1024);
            for (number, piece) in (0..200_u32).zip(got.chunks(1024)) {
                assert_eq!(piece, number.to_be_bytes().repeat(256), "{number}");
            }
        }
    });
}
