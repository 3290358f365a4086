//! Peak EWMA: a latency that follows rises at once and forgets them slowly.
//!
//! The measure of Finagle and linkerd: a backend that was slow a moment ago is avoided from the
//! first slow answer on, and tried again as the memory of it fades.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds in which a difference fades to 1/e.
const DECAY: f64 = 10e9;

/// The latency of one backend. Written by many threads; where two write at once, one of the two
/// measurements is lost, which an average does not mind.
#[derive(Debug, Default)]
pub struct PeakEwma {
    /// Nanoseconds as an `f64`; 0: nothing is known yet.
    cost: AtomicU64,
    /// Nanoseconds since some beginning, when it was written.
    at: AtomicU64,
}

impl PeakEwma {
    /// Takes in that an answer took `latency` nanoseconds, which ended at `now` (nanoseconds since
    /// any fixed beginning).
    pub fn observe(&self, latency: u64, now: u64) {
        let latency = (latency as f64).max(1.0);
        let cost = f64::from_bits(self.cost.load(Relaxed));
        let cost = if latency >= cost {
            latency
        } else {
            let keep = self.fading(now);
            cost * keep + latency * (1.0 - keep)
        };
        self.cost.store(cost.to_bits(), Relaxed);
        self.at.store(now, Relaxed);
    }

    /// Takes in that it would have taken `latency` nanoseconds at least, had one waited on: that tells
    /// nothing where more is expected anyway.
    pub fn observe_at_least(&self, latency: u64, now: u64) {
        if self
            .expected(now)
            .is_none_or(|expected| latency as f64 > expected)
        {
            self.observe(latency, now);
        }
    }

    /// What is to be expected of it at `now`; `None`: nothing is known.
    pub fn expected(&self, now: u64) -> Option<f64> {
        let cost = f64::from_bits(self.cost.load(Relaxed));
        (cost > 0.0).then(|| cost * self.fading(now))
    }

    fn fading(&self, now: u64) -> f64 {
        let since = now.saturating_sub(self.at.load(Relaxed));
        (-(since as f64) / DECAY).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let one = PeakEwma::default();
        assert_eq!(one.expected(0), None);
        one.observe(10 * MS, 0);
        assert_eq!(one.expected(0), Some(10e6));
        one.observe(100 * MS, S);
        assert_eq!(one.expected(S), Some(100e6));
        // At the same moment nothing fades: the peak stays.
        one.observe(10 * MS, S);
        assert_eq!(one.expected(S), Some(100e6));
        // After the decay 1/e of the difference is left.
        one.observe(10 * MS, 11 * S);
        let left = one.expected(11 * S).unwrap();
        assert!((left / 1e6 - (10.0 + 90.0 / 1f64.exp())).abs() < 0.01);
        // Who is not asked is forgiven.
        assert!(one.expected(111 * S).unwrap() < 0.01e6);
    }
}
