//! HTTP/1 on a client's connection.
//!
//! What hyper needs for a connection (its buffers above all) is there while requests come; between
//! them, unless they come in a row, a connection is no more than its socket
//! ([`super::connection`]).

use std::{pin::Pin, rc::Rc, task::Poll};

use bytes::Bytes;
use hyper::{StatusCode, server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};

use super::{
    Failure,
    guard::Guarded,
    life::{Overdue, Stage},
    rounds::Seat,
    stream::{ClientStream, Noted},
    unread,
    visit::Visit,
    worker::Facts,
};
use crate::{domain::http::exchange::Outcome, proxy::HEADERS};

/// The answer to a head that does not become complete.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The answer to a request of another version than 1.0 and 1.1. Of 1.2 and the like it would be allowed to
/// take them for 1.1 (RFC 9110, section 2.5), but nobody speaks them who means well.
const UNSPOKEN: &[u8] =
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Of what a client still sends when all is over, so much is read, so that it learns why: a reset
/// would take the answer from it.
const LINGER: usize = 1 << 20;

/// Says that it is over, if that is possible without waiting.
pub(super) async fn close(stream: &mut ClientStream) {
    std::future::poll_fn(|context| {
        let _ = Pin::new(&mut *stream).poll_shutdown(context);
        Poll::Ready(())
    })
    .await;
}

/// How hyper's part of it ended.
enum End {
    /// By itself.
    Over(hyper::Result<()>),
    /// It only waits for the next request.
    Calm,
    Overdue(Overdue),
}

/// Serves requests until they cease; what is left then is the stream, with what was read of it.
pub(super) async fn serve(
    stream: ClientStream,
    begun: Bytes,
    facts: &Facts,
    visit: &Rc<Visit>,
    seat: &Seat,
) -> Result<Option<(ClientStream, Bytes)>, Failure> {
    let life = &visit.life;
    let noted = Noted::new(stream, begun, life.clone());
    // It begins where a request does, as connections do that have rested.
    let guarded = TokioIo::new(Guarded::new(noted, visit.tunnel.clone()));
    let service = Rc::clone(visit);
    let service = service_fn(move |request| Rc::clone(&service).answer(request));
    let connection = builder(facts).serve_connection(guarded, service);
    let mut connection = connection.with_upgrades();
    let calm = visit.rounds.calm();
    life.wake(true);
    let end = std::future::poll_fn(|context| {
        seat.attend(context);
        life.begin_poll();
        if let Poll::Ready(over) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(End::Over(over));
        }
        if life.can_rest(calm) {
            return Poll::Ready(End::Calm);
        }
        match seat.overdue() {
            Some(overdue) => Poll::Ready(End::Overdue(overdue)),
            None => Poll::Pending,
        }
    })
    .await;
    life.wake(false);
    // `None`: it has become another protocol.
    let Some(parts) = connection.into_parts() else {
        return Ok(None);
    };
    let guarded = parts.io.into_inner();
    let is_within = guarded.is_within();
    let is_at_unspoken = guarded.is_at_unspoken();
    let long_target = guarded.has_long_target();
    let mut stream = guarded.into_inner().into_stream();
    match end {
        // What followed would be taken for a request.
        End::Calm if is_within && parts.read_buf.is_empty() => {
            return Err("a connection came to rest within a request".into());
        }
        End::Calm => return Ok(Some((stream, parts.read_buf))),
        // The guard has seen to it that the client could read to the end.
        End::Over(_) if is_at_unspoken => {
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            let refusal = (status, Outcome::BadRequest);
            refuse(stream, UNSPOKEN, refusal, facts, visit, seat).await;
        }
        End::Over(Ok(())) => {}
        End::Over(Err(error)) => {
            if let Some(status) = unread::status(&error, long_target) {
                unread::tell(facts, visit, status, Outcome::BadRequest);
            }
            return Err(error.into());
        }
        End::Overdue(Overdue::Stage(Stage::Head)) => {
            let refusal = (StatusCode::REQUEST_TIMEOUT, Outcome::TimedOut);
            refuse(stream, TOO_SLOW, refusal, facts, visit, seat).await;
            return Err(Overdue::Stage(Stage::Head).into());
        }
        End::Overdue(Overdue::Blocked) => {
            stream.discard();
            return Err(Overdue::Blocked.into());
        }
        End::Overdue(Overdue::Stage(_)) => close(&mut stream).await,
    }
    Ok(None)
}

/// Answers a request in place of the library, and ends the connection.
async fn refuse(
    mut stream: ClientStream,
    answer: &[u8],
    (status, outcome): (StatusCode, Outcome),
    facts: &Facts,
    visit: &Visit,
    seat: &Seat,
) {
    // Behind half of another answer it would be taken for the rest of that.
    if !visit.life.is_flushed() {
        return stream.discard();
    }
    visit.life.enter(Stage::Leaving);
    let tell = async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    if let Ok(Ok(())) = seat.within(tell).await {
        unread::tell(facts, visit, status, outcome);
        linger(&mut stream, visit, seat).await;
    }
}

/// Reads on for a while without regard to what it is.
async fn linger(stream: &mut ClientStream, visit: &Visit, seat: &Seat) {
    visit.life.enter(Stage::Leaving);
    let read = async {
        let mut buffer = vec![0; 4096];
        let mut left = LINGER;
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(bytes) if bytes > 0 => left = left.saturating_sub(bytes),
                _ => return,
            }
        }
    };
    // Either way it is over.
    let _ = seat.within(Box::pin(read)).await;
}

fn builder(facts: &Facts) -> Builder {
    let bounds = &facts.bounds;
    let mut builder = Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(bounds.head.max(8192))
        .half_close(true);
    // Fewer are counted with all requests', for whose sake hyper need not allocate.
    if bounds.headers > HEADERS {
        builder.max_headers(bounds.headers);
    }
    builder
}
