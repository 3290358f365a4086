//! The guard and the HTTP library over the same bytes: they agree where requests end.

use std::{cell::Cell, convert::Infallible, rc::Rc};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rand::Rng as _;
use tokio::io::AsyncWriteExt as _;

use super::{Guarded, Tunnel};
use crate::domain::http::framing::Framing;

const WORDS: [&str; 31] = [
    "GET / HTTP/1.2\r\nHost: a\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n",
    "POST / HTTP/1.1\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Content-Length: 5\r\n\r\nhello",
    "content-length:0\r\n",
    "Content-Length: 05 \r\n",
    "Content-Length: x\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "X-A: b\r\n",
    "X-A: b\n",
    " fold\r\n",
    "5\r\nhello\r\n",
    "5;x=\"y\"\r\nhello\r\n",
    "5 \r\nhello\r\n",
    "A\r\n0123456789\r\n",
    "4\r\nhello\r\n",
    "5\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "X-Sum: 1\r\n\r\n",
    "hello",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
];

/// Requests that the library has served whole, and whether it found nothing wrong.
async fn serve(bytes: &[u8]) -> (usize, bool) {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let served = Rc::new((Cell::new(0), Cell::new(true)));
    let count = Rc::clone(&served);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let count = Rc::clone(&count);
        async move {
            match request.into_body().collect().await {
                Ok(_) => count.0.set(count.0.get() + 1),
                Err(_) => count.1.set(false),
            }
            Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
        }
    });
    let guarded = TokioIo::new(Guarded::new(server, Tunnel::default()));
    let mut connection = http1::Builder::new()
        .half_close(true)
        .serve_connection(guarded, service);
    let good = (&mut connection).await.is_ok();
    let unspoken = connection.into_parts().io.into_inner().is_at_unspoken();
    (served.0.get(), served.1.get() && good && !unspoken)
}

#[test]
fn the_library_and_the_guard_agree() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let mut random = crate::domain::chance::of_test(23);
    let (mut good, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(1..9) {
            bytes.extend(WORDS[random.random_range(0..WORDS.len())].as_bytes());
        }
        if random.random_ratio(1, 8) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        // Byte by byte, so that it can be told when a request is over.
        let mut framing = Framing::default();
        let (mut ended, mut began, mut wrong) = (0, false, false);
        for byte in &bytes {
            wrong |= framing.read(std::slice::from_ref(byte)).is_err();
            // Empty lines before a request are none.
            began |= !b"\r\n".contains(byte);
            if began && !framing.is_within() {
                ended += 1;
                began = false;
            }
        }
        let within = framing.is_within();
        let (served, fine) = runtime.block_on(serve(&bytes));
        if fine {
            assert!(!wrong, "{shown:?} should have been refused");
            // Half an empty line is nothing to the library.
            assert!(
                !within || shown.ends_with('\r'),
                "{shown:?} ends within a request"
            );
            assert_eq!(served, ended, "{shown:?}");
            good += 1;
        } else {
            assert!(
                served <= ended,
                "{shown:?}: {served} were served of {ended}"
            );
        }
        refused += usize::from(wrong);
    }
    assert!(good > 500 && refused > 2000, "{good} {refused}");
}
