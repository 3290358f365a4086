//! Readers of one body, and what of it is kept.

use std::{convert::Infallible, time::Duration};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt as _, task::LocalSet, time::sleep};

use super::*;

type Piece = Result<&'static str, BodyError>;

async fn next(reader: &mut Outgoing) -> Option<Result<Bytes, BodyError>> {
    let frame = reader.frame().await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

async fn expect(reader: &mut Outgoing, expected: Option<Piece>) {
    let expected = expected.map(|piece| piece.map(|text| Bytes::from_static(text.as_bytes())));
    assert_eq!(next(reader).await, expected);
}

/// A reader goes on with what is kept, and no further once there is a younger one.
#[tokio::test(flavor = "current_thread")]
async fn readers_after_each_other() {
    const SOON: Duration = Duration::from_millis(50);
    let (mut client, server) = tokio::io::duplex(1024);
    let sending = async {
        let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for piece in [
            head,
            "2\r\nab\r\n",
            "2\r\ncd\r\n",
            "2\r\nef\r\n",
            "0\r\n\r\n",
        ] {
            // The answer may have come before its end.
            let _ = client.write_all(piece.as_bytes()).await;
            sleep(2 * SOON).await;
        }
    };
    let service = service_fn(|request: Request<Incoming>| async {
        let replay = Replay::new(request.into_body(), 4, None, Instant::now());
        assert!(!replay.is_awaited(), "nobody has asked for it");
        let mut first = replay.read();
        expect(&mut first, Some(Ok("ab"))).await;
        // It waits for more, and is told when another begins.
        let waiting = tokio::task::spawn_local(async move {
            expect(&mut first, Some(Err(BodyError::Gone))).await;
        });
        sleep(SOON).await;
        assert!(replay.is_awaited());
        let mut second = replay.read();
        waiting.await.unwrap();
        expect(&mut second, Some(Ok("ab"))).await;
        expect(&mut second, Some(Ok("cd"))).await;
        let mut third = replay.read();
        expect(&mut third, Some(Ok("ab"))).await;
        let mut fourth = replay.read();
        for expected in ["ab", "cd", "ef"] {
            expect(&mut fourth, Some(Ok(expected))).await;
        }
        // Nothing is kept any more.
        assert!(!replay.is_whole());
        for late in [&mut second, &mut third, &mut replay.read()] {
            expect(late, Some(Err(BodyError::Gone))).await;
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let both = async { tokio::join!(sending, serving) };
    LocalSet::new().run_until(both).await.1.unwrap();
}

#[test]
fn what_is_kept_is_bounded() {
    // (bytes to keep, pieces, bytes of each) → kept
    for (keep, pieces, each, expected) in [
        (100, 1, 100, true),
        (100, 1, 101, false),
        (100, 4, 25, true),
        (0, 0, 0, true),
        (0, 1, 1, false),
        (64 * 1024, 1000, 60, true),
        (64 * 1024, 60_000, 1, false),
        (64 * 1024, 60_000, 0, false),
    ] {
        let mut kept = Kept::new(keep);
        for _ in 0..pieces {
            kept.add(&Bytes::from(vec![0; each]));
        }
        let known = (kept.room.is_some(), kept.pieces.len());
        let wanted = (expected, if expected { pieces } else { 0 });
        assert_eq!(known, wanted, "{keep} {pieces} {each}");
    }
}

/// Small pieces do not keep the buffers that they came in.
#[test]
fn small_pieces_are_copied() {
    for (length, copied) in [(1, true), (SMALL - 1, true), (SMALL, false)] {
        let buffer = Bytes::from(vec![b'x'; 8192]);
        let piece = buffer.slice(..length);
        let mut kept = Kept::new(64 * 1024);
        kept.add(&piece);
        assert_eq!(kept.pieces, std::slice::from_ref(&piece));
        let is_same = kept.pieces[0].as_ptr() == piece.as_ptr();
        assert_eq!(!is_same, copied, "{length}");
    }
}
