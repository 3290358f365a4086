//! A body that takes its time, so that an upload lasts as long as is wanted.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::pattern::PatternBody;

/// The bytes of a [`PatternBody`], no faster than so many a second.
#[derive(Debug)]
pub struct PacedBody {
    body: PatternBody,
    rate: u32,
    sent: Arc<AtomicU64>,
    start: Option<Instant>,
    due: Option<Pin<Box<Sleep>>>,
}

impl PacedBody {
    /// `length` bytes at `rate` bytes a second; `sent` is how many have been handed over so far.
    pub fn new(length: u64, rate: u32, sent: Arc<AtomicU64>) -> Self {
        Self {
            body: PatternBody::new(length),
            rate,
            sent,
            start: None,
            due: None,
        }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(due) = &mut self.due {
            ready!(due.as_mut().poll(context));
            self.due = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(data)) = frame
            .as_ref()
            .map(|frame| frame.as_ref().map(Frame::data_ref))
        {
            let length = data.map_or(0, |data| data.len() as u64);
            let sent = self.sent.fetch_add(length, Ordering::Relaxed) + length;
            let start = *self.start.get_or_insert_with(Instant::now);
            let took = Duration::from_secs_f64(sent as f64 / f64::from(self.rate));
            self.due = Some(Box::pin(sleep_until(start + took)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::pattern::{CHUNK, verify};

    /// All bytes come, in order, and no sooner than they should.
    #[tokio::test]
    async fn bytes_come_at_their_rate() {
        let length = 10 * CHUNK as u64 + 1;
        let sent = Arc::new(AtomicU64::new(0));
        let body = PacedBody::new(length, 50 * CHUNK as u32, Arc::clone(&sent));
        let begun = Instant::now();
        let all = body.collect().await.unwrap().to_bytes();
        assert_eq!(all.len() as u64, length);
        assert_eq!(verify(0, &all), Ok(()));
        assert_eq!(sent.load(Ordering::Relaxed), length);
        // Nothing waits behind the last byte.
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
}
