//! A request's body on its way to a backend, and once more to another if need be.
//!
//! It streams; what has passed is kept until it is more than may be repeated. Several readers may
//! follow each other, of which only the last goes on beyond what is kept.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

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

    /// Nothing will be repeated any more: an answer has begun.
    pub(super) fn settle(&self) {
        self.source.borrow_mut().kept.room = None;
    }

    /// Passes it from the beginning.
    pub(super) fn read(self: &Rc<Self>) -> Outgoing {
        Outgoing(Some(Reader {
            replay: Rc::clone(self),
            at: 0,
            done: false,
        }))
    }

    fn poll_next(
        &self,
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
        if source.ended {
            let trailers = source.trailers.clone();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = Pin::new(&mut source.incoming).poll_frame(context);
        let Poll::Ready(frame) = polled else {
            return Poll::Pending;
        };
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
                    crate::domain::http::hop::remove_from_trailers(&mut trailers);
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
        let room = self.room.filter(|_| self.pieces.len() < self.most);
        self.room = room.and_then(|room| room.checked_sub(data.len()));
        match self.room {
            Some(_) => self.pieces.push(data.clone()),
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
        // What was not kept can be read by the one reader only that read everything before it.
        let lost = {
            let source = reader.replay.source.borrow();
            source.kept.room.is_none()
                && source.kept.pieces.is_empty()
                && reader.at == 0
                && reader.replay.received() > 0
        };
        if lost {
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        let polled = {
            let Reader { replay, at, .. } = &*reader;
            replay.poll_next(*at, context)
        };
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
            || source.ended
                && source.trailers.is_none()
                && reader.at >= source.kept.pieces.len()
                && source.kept.all_passed(reader.at)
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

impl Kept {
    /// A reader at `at` has passed everything that came.
    fn all_passed(&self, at: usize) -> bool {
        at > 0 || self.pieces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
