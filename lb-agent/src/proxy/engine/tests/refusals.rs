//! What a backend of HTTP/2 says of a request that it has not answered: whether it may have acted
//! on it.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    http2::{call, calls, client},
    rig::{Backend, Proxy, local, snapshot},
};
use crate::domain::{http::policy::HttpPolicy, service::Protocol};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

/// RFC 9113, section 6.4.
fn reset(code: u32) -> Vec<u8> {
    frame(3, 0, 1, &code.to_be_bytes())
}

/// RFC 9113, section 6.8.
pub(super) fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Waits for the head of a request.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<()> {
    // The preface.
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await?;
        if head[3] == HEADERS {
            return Ok(());
        }
    }
}

/// Answers each first request of a connection with these frames, and closes it then.
async fn refusing(answer: Vec<u8>, asked: Rc<Cell<u32>>) -> Backend {
    Backend::start(move |mut stream, _| {
        let (answer, asked) = (answer.clone(), Rc::clone(&asked));
        async move { refuse(&mut stream, &answer, &asked).await }
    })
    .await
}

/// The same, and reads on whatever comes.
pub(super) async fn answering(answer: Vec<u8>, asked: Rc<Cell<u32>>) -> Backend {
    Backend::start(move |mut stream, _| {
        let (answer, asked) = (answer.clone(), Rc::clone(&asked));
        async move {
            let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
            if read_head(&mut stream).await.is_ok() {
                asked.set(asked.get() + 1);
                let _ = stream.write_all(&answer).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    })
    .await
}

pub(super) async fn refuse(stream: &mut TcpStream, answer: &[u8], asked: &Cell<u32>) {
    let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    if read_head(stream).await.is_err() {
        return;
    }
    asked.set(asked.get() + 1);
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// Of one backend alone: its connection has come to its end, another takes the call.
#[test]
fn the_only_backend_is_asked_anew() {
    for (answer, again) in [(go_away(0, 0), true), (go_away(1, 0), false)] {
        local(async {
            let good = calls(Rc::new(|| "0")).await.address;
            let asked = Rc::new(Cell::new(0));
            let count = Rc::clone(&asked);
            let backend = Backend::start(move |mut stream, number| {
                let (answer, asked) = (answer.clone(), Rc::clone(&count));
                async move {
                    if number > 0 {
                        let mut good = TcpStream::connect(good).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut good).await;
                    } else {
                        refuse(&mut stream, &answer, &asked).await;
                    }
                }
            })
            .await;
            let policy = HttpPolicy::default();
            let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
            let mut sender = client(&proxy).await;
            let body = Full::new(Bytes::from("abc"));
            let answer = sender.send_request(call("/x", body)).await.unwrap();
            let found = answer.headers()["grpc-status"].to_str().unwrap();
            assert_eq!((asked.get(), found), (1, if again { "0" } else { "14" }));
        });
    }
}

#[test]
fn only_what_was_not_processed_is_sent_again() {
    // (what it is, frames) → sent again
    for (what, answer, again) in [
        ("REFUSED_STREAM", reset(7), true),
        ("CANCEL", reset(8), false),
        ("INTERNAL_ERROR", reset(2), false),
        ("GOAWAY before it", go_away(0, 0), true),
        ("GOAWAY behind it", go_away(1, 0), false),
        ("GOAWAY far behind it", go_away(0x7fff_ffff, 0), false),
        ("an end without a word", Vec::new(), false),
    ] {
        local(async {
            let asked = Rc::new(Cell::new(0));
            let bad = refusing(answer, Rc::clone(&asked)).await;
            let good = calls(Rc::new(|| "0")).await;
            let backends = [bad.address, good.address];
            let policy = HttpPolicy::default();
            let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &backends)).await;
            let mut met = 0;
            for _ in 0..60 {
                let before = asked.get();
                let mut sender = client(&proxy).await;
                let body = Full::new(Bytes::from("abc"));
                let answer = sender.send_request(call("/x", body)).await.unwrap();
                let found = answer.headers()["grpc-status"].to_str().unwrap().to_owned();
                if asked.get() == before {
                    assert_eq!(found, "0", "{what}");
                    continue;
                }
                met += 1;
                assert_eq!(found, if again { "0" } else { "14" }, "{what}");
                break;
            }
            assert_eq!(met, 1, "{what}: never asked");
        });
    }
}
