//! When the next connection for requests to come may be opened: at once, but after failures, and
//! after those that the backend closed before a request, later and later.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// After the first failure; doubled for each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Of one pool.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    opening: Cell<bool>,
    /// In a row.
    failures: Cell<u32>,
    /// A connection was closed before it had a request; not told to be a failure yet.
    wasted: Cell<bool>,
    not_before: Cell<Option<Instant>>,
}

impl Warmth {
    /// Whether to open one, where one is lacking. Where none is, what failed is over.
    pub(super) fn lets(&self, lacks: bool, now: Instant) -> bool {
        if self.opening.get() {
            return false;
        }
        self.settle(now);
        let paused = self.not_before.get().is_some_and(|until| now < until);
        if !lacks && !paused {
            self.failures.set(0);
        }
        lacks && !paused
    }

    /// Whether failures are so recent that they count for the next pause.
    pub(super) fn remembers(&self, now: Instant) -> bool {
        self.settle(now);
        let until = self.not_before.get();
        self.failures.get() > 0 && until.is_some_and(|until| now < until + LONGEST)
    }

    fn settle(&self, now: Instant) {
        if self.wasted.take() {
            self.failed(now);
        }
    }

    pub(super) fn is_opening(&self) -> bool {
        self.opening.get()
    }

    /// One is being opened as long as the answer lives.
    pub(super) fn begin(&self) -> Opening<'_> {
        self.opening.set(true);
        Opening(self)
    }

    /// None came about.
    pub(super) fn failed(&self, now: Instant) {
        let before = self.failures.get();
        let pause = (FIRST * 2u32.pow(before.min(10))).min(LONGEST);
        self.failures.set(before + 1);
        self.not_before.set(Some(now + pause));
    }

    /// A connection was found closed. Never true, so that it is not retained.
    pub(super) fn lost(&self, served: bool) -> bool {
        if !served {
            self.wasted.set(true);
        }
        false
    }
}

/// See [`Warmth::begin`].
pub(super) struct Opening<'a>(&'a Warmth);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_a_connection_that_stays() {
        let warmth = Warmth::default();
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut now = 0;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert!(warmth.lets(true, at(now)), "{pause}");
            warmth.failed(at(now));
            assert!(!warmth.lets(true, at(now + pause - 1)), "{pause}");
            now += pause;
            assert!(warmth.remembers(at(now + 29)), "{pause}");
            assert!(!warmth.remembers(at(now + 30)), "{pause}");
        }
        // One that the backend closed at once is as good as none.
        assert!(warmth.lets(true, at(now)));
        assert!(!warmth.lost(false));
        assert!(!warmth.lets(true, at(now + 29)));
        // One that stays is the end of it, once the pause is over, and one that had requests may go.
        now += 60;
        assert!(!warmth.lets(false, at(now)));
        assert!(!warmth.remembers(at(now)));
        warmth.lost(true);
        assert!(warmth.lets(true, at(now)));
        warmth.failed(at(now));
        assert!(!warmth.lets(true, at(now)));
        assert!(warmth.lets(true, at(now + 1)));
        let opening = warmth.begin();
        assert!(!warmth.lets(true, at(now + 1)), "one at a time");
        drop(opening);
        assert!(warmth.lets(true, at(now + 1)));
    }
}
