//! How connections end when the proxy is told to stop, so that no client loses a request.
//!
//! A client of HTTP/1.1 may send its next request in the moment that its connection is closed.
//! So an idle one is not closed at once: the next request is answered with `Connection: close`,
//! and only who has none for a while is closed on. In HTTP/2 a GOAWAY says it without a gap.

use std::{
    cell::Cell,
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
use tokio::{sync::watch, time::sleep};

/// How long a connection may be without a request before it is closed.
const LINGER: Duration = Duration::from_secs(2);

/// The same of one that was accepted when the stop had begun: it has yet to say its first word.
const LINGER_NEW: Duration = Duration::from_millis(500);

/// Of all threads.
#[derive(Debug)]
pub(super) struct Ending {
    begun: watch::Sender<bool>,
    /// The same, for each request to look at.
    is_begun: AtomicBool,
    elders: AtomicUsize,
}

/// A connection from before the stop, until this is dropped.
#[derive(Debug)]
pub(super) struct Elder(Arc<Ending>);

impl Ending {
    pub(super) fn new() -> Self {
        Self {
            begun: watch::Sender::new(false),
            is_begun: AtomicBool::new(false),
            elders: AtomicUsize::new(0),
        }
    }

    /// The proxy is told to stop.
    pub(super) fn begin(&self) {
        self.is_begun.store(true, SeqCst);
        self.begun.send_replace(true);
    }

    /// Whether there is a connection from before.
    pub(super) fn has_elders(&self) -> bool {
        self.elders.load(SeqCst) > 0
    }

    /// What is to be held by a connection that begins now; `None` if the stop came before.
    pub(super) fn elder(self: &Arc<Self>) -> Option<Elder> {
        if self.is_begun.load(SeqCst) {
            return None;
        }
        self.elders.fetch_add(1, SeqCst);
        Some(Elder(Arc::clone(self)))
    }

    /// For a connection to know when to end.
    pub(super) fn farewell(&self) -> Farewell {
        let begun = self.begun.subscribe();
        let linger = if *begun.borrow() { LINGER_NEW } else { LINGER };
        Farewell { begun, linger }
    }

    /// Tells the client that its connection ends with this answer, if it does.
    pub(super) fn tell<B>(&self, version: Version, response: &mut Response<B>) {
        if self.is_begun.load(Relaxed)
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

/// When a connection is to end.
#[derive(Debug)]
pub(super) struct Farewell {
    begun: watch::Receiver<bool>,
    linger: Duration,
}

impl Farewell {
    /// Until it is closed though it is idle.
    pub(super) async fn has_lingered(&mut self) {
        self.has_begun().await;
        sleep(self.linger).await;
    }

    /// The same; of HTTP/2 until the stop.
    pub(super) async fn is_due(&mut self, is_http2: &Cell<bool>) {
        self.has_begun().await;
        if !is_http2.get() {
            sleep(self.linger).await;
        }
    }

    async fn has_begun(&mut self) {
        // The sender outlives its connections.
        let _ = self.begun.wait_for(|begun| *begun).await;
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

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_is_waited_for_a_while() {
        let passed = async |is_http2: bool, begun_before: bool| {
            let ending = Ending::new();
            if begun_before {
                ending.begin();
            }
            let mut farewell = ending.farewell();
            ending.begin();
            let start = tokio::time::Instant::now();
            farewell.is_due(&Cell::new(is_http2)).await;
            start.elapsed()
        };
        assert!(passed(false, false).await >= LINGER);
        assert!((LINGER_NEW..LINGER).contains(&passed(false, true).await));
        assert!(passed(true, false).await < LINGER_NEW);
    }
}
