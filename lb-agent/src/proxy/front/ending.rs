//! How connections end when the proxy is told to stop, so that no client loses a request.
//!
//! A client of HTTP/1.1 may send its next request in the moment that its connection is closed.
//! So an idle one is not closed at once: the next request is answered with `Connection: close`,
//! and only who has none for a while is closed on. In HTTP/2 a GOAWAY says it without a gap.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use hyper::{
    Response, StatusCode, Version,
    header::{CONNECTION, HeaderValue},
};

/// How long a connection may be without a request before it is closed.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// The same of one that was accepted when the stop had begun: it has yet to say its first word.
pub(super) const LINGER_NEW: Duration = Duration::from_millis(500);

/// Of all threads.
#[derive(Debug)]
pub(super) struct Ending {
    is_begun: AtomicBool,
    elders: AtomicUsize,
}

/// A connection from before the stop, until this is dropped.
#[derive(Debug)]
pub(super) struct Elder(Arc<Ending>);

impl Ending {
    pub(super) fn new() -> Self {
        Self {
            is_begun: AtomicBool::new(false),
            elders: AtomicUsize::new(0),
        }
    }

    /// The proxy is told to stop.
    pub(super) fn begin(&self) {
        self.is_begun.store(true, SeqCst);
    }

    /// Whether it is.
    pub(super) fn has_begun(&self) -> bool {
        self.is_begun.load(Relaxed)
    }

    /// Whether there is a connection from before.
    pub(super) fn has_elders(&self) -> bool {
        self.elders.load(SeqCst) > 0
    }

    /// What is to be held by a connection that begins now; `None` if the stop came before.
    pub(super) fn elder(self: &Arc<Self>) -> Option<Elder> {
        // Counted before it is asked: who begins the stop meanwhile sees this one, or is seen.
        self.elders.fetch_add(1, SeqCst);
        let elder = Elder(Arc::clone(self));
        (!self.is_begun.load(SeqCst)).then_some(elder)
    }

    /// Tells the client that its connection ends with this answer, if it does.
    pub(super) fn tell<B>(&self, version: Version, response: &mut Response<B>) {
        if self.has_begun()
            && version < Version::HTTP_2
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
    }
}

impl Drop for Elder {
    fn drop(&mut self) {
        self.0.elders.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_from_before_are_waited_for() {
        let ending = Arc::new(Ending::new());
        let (first, second) = (ending.elder(), ending.elder());
        assert!(first.is_some() && second.is_some() && ending.has_elders());
        drop(first);
        ending.begin();
        let late = ending.elder();
        assert!(late.is_none() && ending.has_elders());
        drop(second);
        assert!(!ending.has_elders());
    }

    #[test]
    fn answers_of_http1_say_that_it_ends() {
        let rows = [
            (Version::HTTP_11, 200, false, false),
            (Version::HTTP_11, 200, true, true),
            (Version::HTTP_10, 503, true, true),
            (Version::HTTP_11, 101, true, false),
            (Version::HTTP_2, 200, true, false),
        ];
        for (version, status, is_begun, told) in rows {
            let ending = Ending::new();
            if is_begun {
                ending.begin();
            }
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            ending.tell(version, &mut response);
            let close = response.headers().get(CONNECTION);
            let close = close.is_some_and(|value| value == "close");
            assert_eq!(close, told, "{version:?} {status} {is_begun}");
        }
    }
}
