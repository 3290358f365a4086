//! How often each result of a probe was met.

use std::sync::atomic::{AtomicU64, Ordering};

use super::failure::ProbeFailure;

/// Counts of probe results since the agent started. Shared by the scheduler, which counts, and
/// the metrics, which read.
#[derive(Debug, Default)]
pub struct ProbeStats {
    success: AtomicU64,
    failures: [AtomicU64; ProbeFailure::NAMES.len()],
    late: AtomicU64,
}

impl ProbeStats {
    /// Counts one result.
    pub(super) fn count<T>(&self, result: &Result<T, ProbeFailure>) {
        let counter = match result {
            Ok(_) => &self.success,
            Err(failure) => &self.failures[failure.index()],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one probe that began late.
    pub(super) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Every result by its name, those never met included.
    pub fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failures = ProbeFailure::NAMES.into_iter().zip(&self.failures);
        std::iter::once(("success", &self.success))
            .chain(failures)
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// Probes that began more than a second after their time, since too many others were under
    /// way.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}
