//! How often each result of a probe was met.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Target, failure::ProbeFailure};
use crate::domain::gate::{Outcomes, Readings, Timed, Witness};

/// Counts of probe results since the agent started. Shared by the scheduler, which counts, and
/// the metrics, which read.
#[derive(Debug, Default)]
pub struct ProbeStats {
    success: AtomicU64,
    failures: [AtomicU64; ProbeFailure::NAMES.len()],
    late: AtomicU64,
    /// Answers and what they took, by service.
    answers: Mutex<HashMap<String, Readings>>,
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

    /// Notes that a backend has answered, and how long it took.
    pub(super) fn note_answer(&self, target: &Target, took: Duration) {
        let mut answers = self.answers();
        if !answers.contains_key(&target.service) {
            answers.insert(target.service.clone(), Readings::new());
        }
        if let Some(readings) = answers.get_mut(&target.service) {
            let outcomes = readings
                .entry((target.id.clone(), target.address))
                .or_default();
            *outcomes = outcomes.plus(Outcomes {
                probes: Timed {
                    count: 1,
                    took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                },
                ..Outcomes::default()
            });
        }
    }

    /// Forgets the answers of all backends that are not among the targets.
    pub(super) fn keep_answers_of(&self, targets: &[Target]) {
        let mut kept: HashMap<String, Readings> = HashMap::new();
        let mut answers = self.answers();
        for target in targets {
            let key = (target.id.clone(), target.address);
            let former = answers
                .get_mut(&target.service)
                .and_then(|readings| readings.remove(&key));
            if let Some(former) = former {
                let readings = kept.entry(target.service.clone()).or_default();
                readings.insert(key, former);
            }
        }
        *answers = kept;
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, Readings>> {
        // Nothing is left half done by a panic.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Witness for ProbeStats {
    fn outcomes(&self, service: &str) -> Readings {
        self.answers().get(service).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{backend::InstanceId, service::ProbeSpec};

    /// Answers add up by backend, and go with it.
    #[test]
    fn answers_by_backend() {
        let target = |name: &str| Target {
            service: "echo".into(),
            id: InstanceId(name.into()),
            address: ([10, 0, 0, 1], 80).into(),
            spec: ProbeSpec::default(),
        };
        let stats = ProbeStats::default();
        for (name, ms) in [("a", 3), ("a", 5), ("b", 1)] {
            stats.note_answer(&target(name), Duration::from_millis(ms));
        }
        let read = || -> Vec<(String, u64, u64)> {
            let readings = stats.outcomes("echo").into_iter();
            readings
                .map(|((id, _), outcomes)| {
                    (
                        id.to_string(),
                        outcomes.probes.count,
                        outcomes.probes.took_us,
                    )
                })
                .collect()
        };
        assert_eq!(read(), [("a".into(), 2, 8000), ("b".into(), 1, 1000)]);
        stats.keep_answers_of(&[target("a"), target("c")]);
        assert_eq!(read(), [("a".into(), 2, 8000)]);
        assert!(stats.outcomes("other").is_empty());
    }
}
