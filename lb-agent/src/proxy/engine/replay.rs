//! A request's body on its way to a backend, and once more to another if need be.
//!
//! It streams; what has passed is kept until it is more than may be repeated. Several readers may
//! follow each other, of which only the last goes on beyond what is kept: those before it may still
//! be there, since a connection of HTTP/2 goes on to read for an answer that nobody waits for.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::domain::http::{forwarded, hop};

/// Why a body did not pass whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// The client broke off.
    #[error("the client broke off")]
    Client,
    /// It is longer than the service allows.
    #[error("the body is too long")]
    TooLong,
    /// It can no longer be sent from its beginning.
    #[error("the beginning of the body is gone")]
    Gone,
}

/// The body, and what of it is kept.
#[derive(Debug)]
pub(super) struct Replay {
    source: RefCell<Source>,
    received: Cell<u64>,
    error: Cell<Option<BodyError>>,
    /// When the last of it came; its end included.
    moved: Cell<Instant>,
    /// Pieces that came.
    pieces: Cell<usize>,
    /// The youngest reader.
    youngest: Cell<u32>,
    /// Who waits for more of it. While nobody does, it is the backend that takes nothing.
    waiting: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    ended: bool,
    trailers: Option<HeaderMap>,
    kept: Kept,
    /// Bytes that may still come.
    allowed: u64,
}

/// Its beginning, as long as it may be sent once more.
#[derive(Debug)]
struct Kept {
    pieces: Vec<Bytes>,
    /// Bytes that may still be kept; `None`: it is too late, and nothing is.
    room: Option<usize>,
    /// Pieces at most: each takes memory besides its bytes, an empty one too.
    most: usize,
}

/// Bytes of a piece on average, below which a body is not kept.
const PIECE: usize = 64;
/// Pieces of fewer bytes are copied: readers' buffers are of 8 KiB and more.
const SMALL: usize = 4096;
/// So many pieces may be of any size.
const FEW: usize = 16;

impl Replay {
    /// Takes the body of a request. `keep`: bytes that may be repeated; `limit`: its longest.
    pub(super) fn new(
        incoming: Incoming,
        keep: usize,
        limit: Option<u64>,
        now: Instant,
    ) -> Rc<Self> {
        Rc::new(Self {
            source: RefCell::new(Source {
                ended: incoming.is_end_stream(),
                incoming,
                trailers: None,
                kept: Kept::new(keep),
                allowed: limit.unwrap_or(u64::MAX),
            }),
            received: Cell::new(0),
            error: Cell::new(None),
            moved: Cell::new(now),
            pieces: Cell::new(0),
            youngest: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// It can be sent from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        self.source.borrow().kept.room.is_some() && self.error.get().is_none()
    }

    /// All of it has come.
    pub(super) fn ended(&self) -> bool {
        self.source.borrow().ended || self.error.get().is_some()
    }

    /// All of it has come, without fault.
    pub(super) fn has_come(&self) -> bool {
        self.source.borrow().ended && self.error.get().is_none()
    }

    /// When the last of it came.
    pub(super) fn moved(&self) -> Instant {
        self.moved.get()
    }

    /// Bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Why it will not come whole.
    pub(super) fn error(&self) -> Option<BodyError> {
        self.error.get()
    }

    /// More of it is waited for: the client has the next move, not the backend.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.borrow().is_some()
    }

    /// Nothing will be repeated any more: an answer has begun.
    pub(super) fn settle(&self) {
        self.source.borrow_mut().kept.room = None;
    }

    /// Passes it from the beginning.
    pub(super) fn read(self: &Rc<Self>) -> Outgoing {
        self.youngest.set(self.youngest.get() + 1);
        // It finds that it is to end.
        if let Some(former) = self.waiting.take() {
            former.wake();
        }
        Outgoing(Some(Reader {
            replay: Rc::clone(self),
            number: self.youngest.get(),
            at: 0,
            done: false,
        }))
    }

    fn poll_next(
        &self,
        number: u32,
        at: usize,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.borrow_mut();
        if let Some(error) = self.error.get() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(kept) = source.kept.pieces.get(at) {
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        // What was not kept can be read by the one reader only that read everything before it.
        if at < self.pieces.get() {
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        if source.ended {
            let trailers = source.trailers.clone();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if number != self.youngest.get() {
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        let polled = Pin::new(&mut source.incoming).poll_frame(context);
        let Poll::Ready(frame) = polled else {
            let mut waiting = self.waiting.borrow_mut();
            match &mut *waiting {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waiting = Some(context.waker().clone()),
            }
            return Poll::Pending;
        };
        self.waiting.take();
        self.moved.set(Instant::now());
        let fail = |error| {
            self.error.set(Some(error));
            Poll::Ready(Some(Err(error)))
        };
        match frame {
            None => {
                source.ended = true;
                Poll::Ready(None)
            }
            Some(Err(_)) => fail(BodyError::Client),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let length = data.len() as u64;
                    self.received.set(self.received.get() + length);
                    self.pieces.set(self.pieces.get() + 1);
                    match source.allowed.checked_sub(length) {
                        None => return fail(BodyError::TooLong),
                        Some(left) => source.allowed = left,
                    }
                    source.kept.add(&data);
                    source.ended = source.incoming.is_end_stream();
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    hop::remove_from_trailers(&mut trailers);
                    forwarded::remove_from_trailers(&mut trailers);
                    source.ended = true;
                    source.trailers = Some(trailers.clone());
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
        }
    }
}

impl Kept {
    /// Nothing yet, and these bytes at most.
    fn new(keep: usize) -> Self {
        Self {
            pieces: Vec::new(),
            room: Some(keep),
            most: keep / PIECE + FEW,
        }
    }

    fn add(&mut self, data: &Bytes) {
        // A small piece would keep all of the buffer that it came in.
        let kept = match data.len() < SMALL {
            true => Bytes::copy_from_slice(data),
            false => data.clone(),
        };
        let room = self.room.filter(|_| self.pieces.len() < self.most);
        self.room = room.and_then(|room| room.checked_sub(data.len()));
        match self.room {
            Some(_) => self.pieces.push(kept),
            None => self.pieces = Vec::new(),
        }
    }
}

/// The body of a request as a connection takes it; `None`: there is none.
#[derive(Debug)]
pub(super) struct Outgoing(Option<Reader>);

#[derive(Debug)]
struct Reader {
    replay: Rc<Replay>,
    number: u32,
    /// Frames of data that have passed.
    at: usize,
    done: bool,
}

impl Outgoing {
    pub(super) const EMPTY: Self = Self(None);
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(reader) = &mut self.0 else {
            return Poll::Ready(None);
        };
        if reader.done {
            return Poll::Ready(None);
        }
        let polled = reader.replay.poll_next(reader.number, reader.at, context);
        if let Poll::Ready(frame) = &polled {
            match frame {
                Some(Ok(frame)) if frame.is_data() => reader.at += 1,
                _ => reader.done = true,
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let Some(reader) = &self.0 else { return true };
        let source = reader.replay.source.borrow();
        reader.done
            || source.ended && source.trailers.is_none() && reader.at >= reader.replay.pieces.get()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reader) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let source = reader.replay.source.borrow();
        if source.ended && source.trailers.is_some() {
            return SizeHint::default();
        }
        let left = source.incoming.size_hint().exact();
        let kept: usize = source
            .kept
            .pieces
            .iter()
            .skip(reader.at)
            .map(Bytes::len)
            .sum();
        match left {
            Some(left) => SizeHint::with_exact(left + kept as u64),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests;
