//! A histogram of times in fixed buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds in microseconds, for what backends and networks take.
pub const LATENCY: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
/// The same for what the proxy itself takes.
pub const OVERHEAD: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000,
];

/// Times that were, by their length.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: those beyond the last.
    buckets: Box<[AtomicU64]>,
    /// Microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// With buckets up to these microseconds, in rising order, each bound included.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::default()).collect(),
            sum: AtomicU64::default(),
        }
    }

    /// Counts a time.
    pub fn add(&self, time: Duration) {
        // Prometheus' bounds are inclusive: what is cut off must not fit into a lower bucket.
        let exact = time.as_nanos().div_ceil(1000) as u64;
        let bucket = self.bounds.partition_point(|bound| *bound < exact);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(time.as_micros() as u64, Relaxed);
    }

    /// Counts what another with the same bounds has counted, too.
    pub(super) fn absorb(&self, other: &Self) {
        for (sum, part) in self.buckets.iter().zip(&other.buckets) {
            sum.fetch_add(part.load(Relaxed), Relaxed);
        }
        self.sum.fetch_add(other.sum.load(Relaxed), Relaxed);
    }

    /// Upper bounds in seconds with the times up to each, times in all, and their sum in seconds.
    pub fn read(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut count = 0;
        let mut counts = self.buckets.iter().map(|bucket| {
            count += bucket.load(Relaxed);
            count
        });
        let buckets = self.bounds.iter().zip(&mut counts);
        let buckets = buckets.map(|(bound, count)| (*bound as f64 / 1e6, count));
        let buckets = buckets.collect();
        let count = counts.next().unwrap_or_default();
        (buckets, count, self.sum.load(Relaxed) as f64 / 1e6)
    }
}
