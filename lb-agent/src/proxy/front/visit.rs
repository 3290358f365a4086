//! The requests of one connection on their way to the engine.

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{guard::Tunnel, life::Life, rounds::Rounds};
use crate::proxy::engine::{Arrival, BrokenOff, Engine, EngineBody};

/// Longer pieces of an answer are cut for HTTP/2, whose streams are seen to move by the piece: to
/// be slow a client has to take less than this in all the time that it may take nothing.
const PIECE: usize = 64 << 10;

/// What the requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) engine: Rc<Engine>,
    pub(super) arrival: Arc<Arrival>,
    pub(super) life: Arc<Life>,
    pub(super) rounds: Rc<Rounds>,
    /// For its guard.
    pub(super) tunnel: Tunnel,
}

impl Visit {
    /// Answers a request.
    pub(super) async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Answered>, Infallible> {
        let mut under_way = UnderWay::begin(&self, &request);
        let version = request.version();
        let mut response = self.engine.handle(request, &self.arrival).await;
        self.life.answering(response.body().patience());
        self.rounds.ending.tell(version, &mut response);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.tunnel.begin();
            under_way.last = false;
        }
        Ok(response.map(|body| Answered {
            body,
            under_way,
            multiplexed: version == Version::HTTP_2,
            left: Bytes::new(),
        }))
    }
}

/// A request that counts until it has been answered.
#[derive(Debug)]
struct UnderWay {
    life: Arc<Life>,
    /// All of the request has come.
    whole: bool,
    /// The connection is closed behind its answer.
    last: bool,
}

/// Whether a request of HTTP/1 is the last of its connection, beyond doubt (RFC 9112, section 9.3): who
/// says both, `close` and something else, gets no special treatment.
pub(super) fn is_last(version: Version, headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(CONNECTION).into_iter();
    match (said.next(), said.next()) {
        (Some(only), None) => {
            version < Version::HTTP_2 && only.as_bytes().eq_ignore_ascii_case(b"close")
        }
        (None, _) => version == Version::HTTP_10,
        _ => false,
    }
}

impl UnderWay {
    fn begin(visit: &Visit, request: &Request<Incoming>) -> Self {
        visit.life.asked(visit.rounds.calm());
        let whole = request.body().is_end_stream();
        Self {
            life: Arc::clone(&visit.life),
            whole,
            last: whole && is_last(request.version(), request.headers()),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.life.answered(self.whole);
        if self.last {
            self.life.end();
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answered {
    body: EngineBody,
    under_way: UnderWay,
    multiplexed: bool,
    /// What is left of a piece.
    left: Bytes,
}

impl Answered {
    /// As much of a piece as goes at once.
    fn cut(&mut self, mut piece: Bytes) -> Bytes {
        if self.multiplexed && piece.len() > PIECE {
            self.left = piece.split_off(PIECE);
        }
        piece
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.under_way.whole |= self.body.is_request_whole();
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if !self.left.is_empty() {
            let left = std::mem::take(&mut self.left);
            return Poll::Ready(Some(Ok(Frame::data(self.cut(left)))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| match frame.into_data() {
            Ok(piece) => Frame::data(self.cut(piece)),
            Err(frame) => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Nobody asks within a piece.
        self.body.size_hint()
    }
}
