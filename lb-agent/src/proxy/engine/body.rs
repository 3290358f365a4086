//! The body of an answer on its way to the client. It drives the connection to the backend, which
//! goes back to its pool when all has passed.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    answer::{self, UNAVAILABLE},
    clock::Deadline,
    counted::{Counted, OfBackend},
    ledger::Ledger,
    replay::Replay,
    upstream::{Lease, Pool},
};
use crate::domain::http::{exchange::Outcome, hop};

/// The body of any answer.
#[derive(Debug)]
pub struct EngineBody {
    kind: Kind,
    ledger: Option<Ledger>,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Text(Bytes),
    Passing(Box<Passing>),
}

/// Why an answer ends within: the client sees its connection or stream reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenOff {
    /// The backend has broken off.
    #[error("the backend broke off within its answer")]
    Backend,
    /// Nothing has moved for the idle time.
    #[error("nothing came for too long")]
    Idle,
}

/// A backend's answer.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) incoming: Incoming,
    /// `None`: it has gone back already.
    pub(super) lease: Option<Lease>,
    pub(super) pool: Rc<Pool>,
    /// Idle connections that the pool keeps.
    pub(super) keep: u32,
    pub(super) counted: Option<Counted<OfBackend>>,
    /// The request's body, which may still be on its way.
    pub(super) request: Option<Rc<Replay>>,
    pub(super) idle: Duration,
    pub(super) deadline: Deadline,
    /// The backend has broken off, and the client is to be told.
    pub(super) broken: bool,
}

impl EngineBody {
    /// Nothing.
    pub fn empty() -> Self {
        Self {
            kind: Kind::Empty,
            ledger: None,
        }
    }

    pub(super) fn text(text: Bytes) -> Self {
        Self {
            kind: Kind::Text(text),
            ledger: None,
        }
    }

    pub(super) fn passing(mut passing: Box<Passing>) -> Self {
        if passing.incoming.is_end_stream() {
            passing.finish();
            return Self::empty();
        }
        Self {
            kind: Kind::Passing(passing),
            ledger: None,
        }
    }

    /// How long the client may take nothing of it; `None`: no route has a word on it.
    pub fn patience(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Passing(passing) => Some(passing.idle),
            Kind::Empty | Kind::Text(_) => None,
        }
    }

    /// All of the request's body has come; of one that nobody asked for it is not known.
    pub fn is_request_whole(&self) -> bool {
        let request = self.ledger.as_ref().and_then(|ledger| ledger.body.as_ref());
        request.is_some_and(|body| body.has_come())
    }

    /// Has the ledger closed when all has passed, or the client is gone.
    pub(super) fn closing(mut self, mut ledger: Ledger) -> Self {
        if self.is_end_stream() {
            ledger.passed();
        }
        self.ledger = Some(ledger);
        self
    }
}

impl Passing {
    /// All has passed: the connection serves others.
    fn finish(&mut self) {
        if let Some(Lease::Http1(link)) = self.lease.take() {
            self.pool.give_back(link, self.keep);
        }
        self.counted = None;
    }

    /// Ready once nothing has come for too long, neither of the answer nor of the request.
    fn poll_idle(&mut self, context: &Context<'_>) -> Poll<()> {
        while self.deadline.poll(context).is_ready() {
            let request = self.request.as_ref().filter(|request| !request.ended());
            let until = request.map(|request| request.moved() + self.idle);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => self.deadline.set(until),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.broken {
            return Poll::Ready(Some(Err(BrokenOff::Backend)));
        }
        let polled = match &mut self.lease {
            Some(Lease::Http1(link)) => {
                // Frames come while the connection is driven, here and nowhere else.
                let mut quiet = Context::from_waker(Waker::noop());
                let mut polled = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
                if polled.is_pending() {
                    link.drive(context);
                    polled = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
                }
                polled
            }
            _ => Pin::new(&mut self.incoming).poll_frame(context),
        };
        let Poll::Ready(frame) = polled else {
            return self.poll_idle(context).map(|()| Some(Err(BrokenOff::Idle)));
        };
        Poll::Ready(match frame {
            None => {
                self.finish();
                None
            }
            Some(Err(_)) => {
                // An error drops what has not been written yet, the head with it: it goes first.
                self.broken = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Ok(frame)) => {
                // Nothing comes behind trailers, and nobody asks for it.
                if self.incoming.is_end_stream() || frame.is_trailers() {
                    self.finish();
                } else {
                    self.deadline.moved(self.idle);
                }
                Some(Ok(match frame.into_trailers() {
                    Ok(mut trailers) => {
                        hop::remove_from_trailers(&mut trailers);
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                }))
            }
        })
    }
}

impl Deadline {
    /// Something has moved: a new `idle` time begins, if it is waited for at all.
    fn moved(&mut self, idle: Duration) {
        self.set(Instant::now() + idle);
    }
}

impl Body for EngineBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        let polled = match &mut this.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Text(text) => {
                let text = std::mem::take(text);
                this.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Kind::Passing(passing) => passing.poll_frame(context),
        };
        if let (Poll::Ready(frame), Some(ledger)) = (&polled, &mut this.ledger) {
            match frame {
                None => ledger.passed(),
                Some(Ok(frame)) => ledger.frame(frame),
                Some(Err(BrokenOff::Backend)) => ledger.ended(Outcome::BackendBrokeOff),
                Some(Err(BrokenOff::Idle)) => ledger.ended(Outcome::Idle),
            }
            if let Some(Err(broken)) = frame
                && ledger.tells_status()
            {
                let trailers = Frame::trailers(answer::grpc_trailers(UNAVAILABLE, broken));
                ledger.frame(&trailers);
                this.kind = Kind::Empty;
                return Poll::Ready(Some(Ok(trailers)));
            }
            let last = matches!(frame, Some(Ok(frame)) if frame.is_trailers());
            if (last || this.is_end_stream())
                && let Some(ledger) = &mut this.ledger
            {
                ledger.passed();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Text(_) => false,
            Kind::Passing(passing) => passing.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Text(text) => SizeHint::with_exact(text.len() as u64),
            Kind::Passing(passing) => passing.incoming.size_hint(),
        }
    }
}
