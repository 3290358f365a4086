//! When to probe: soon at first, then evenly spread and never in step.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use rand::Rng;

/// Longest wait for a new backend's first probe.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Part of the interval by which a wait may be shorter or longer.
const JITTER: f64 = 0.1;

/// The waits between the probes of one backend.
///
/// All backends of a service usually appear at once. Their first probes are spread over a second
/// (or an interval, if shorter), for nobody wants to wait longer to hear of a new backend. Their
/// second probes are spread over one whole interval, by another part of the same hash; from then
/// on each waits one interval, give or take 10 %, so that neither the probes of one agent nor
/// those of agents that started together ever fall into step.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: Duration,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Not probed yet. Both are parts of the interval of possible waits, in 0..1.
    New { first: f64, second: f64 },
    /// Probed once.
    Once { second: f64 },
    /// In the regular rhythm.
    Steady,
}

impl Schedule {
    /// The schedule of the backend that `key` identifies.
    pub fn new(key: &impl Hash, interval: Duration) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        Self {
            interval,
            stage: Stage::New {
                first: fraction(hash as u32),
                second: fraction((hash >> 32) as u32),
            },
        }
    }

    /// How long to wait until the next probe begins: from now on for the first one, from the
    /// beginning of the last one afterwards. Each call counts as a probe.
    pub fn next_wait(&mut self, rng: &mut impl Rng) -> Duration {
        match self.stage {
            Stage::New { first, second } => {
                self.stage = Stage::Once { second };
                self.interval.min(FIRST_WITHIN).mul_f64(first)
            }
            Stage::Once { second } => {
                self.stage = Stage::Steady;
                // One interval wide, and no later than any other wait may be.
                self.interval.mul_f64(JITTER + second)
            }
            Stage::Steady => self
                .interval
                .mul_f64(rng.random_range(1.0 - JITTER..=1.0 + JITTER)),
        }
    }
}

/// Maps a 32-bit hash evenly to 0..1.
fn fraction(hash: u32) -> f64 {
    f64::from(hash) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn key(index: u32) -> (String, u32) {
        ("echo".into(), index)
    }

    /// The largest number of instants within any 10 ms.
    fn densest(mut instants: Vec<Duration>) -> usize {
        instants.sort();
        let window = Duration::from_millis(10);
        (0..instants.len())
            .map(|start| {
                instants[start..]
                    .iter()
                    .take_while(|instant| **instant < instants[start] + window)
                    .count()
            })
            .max()
            .unwrap_or(0)
    }

    /// A thousand backends that appear together: the first probes come within a second, and
    /// from the second on, hours later too, no 10 ms see more than a few of the 2 on average.
    #[test]
    fn a_thousand_backends_are_never_in_step() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut schedules: Vec<_> = (0..1000)
            .map(|index| Schedule::new(&key(index), INTERVAL))
            .collect();
        let mut at = vec![Duration::ZERO; 1000];
        for round in 1..=2000 {
            for (at, schedule) in at.iter_mut().zip(&mut schedules) {
                *at += schedule.next_wait(&mut rng);
            }
            match round {
                1 => {
                    assert!(at.iter().all(|at| *at < FIRST_WITHIN));
                    assert!(densest(at.clone()) < 30, "{}", densest(at.clone()));
                }
                2 | 3 | 2000 => {
                    let densest = densest(at.clone());
                    assert!(densest <= 10, "round {round}: {densest}");
                }
                _ => {}
            }
        }
    }

    /// No wait is shorter or longer than promised, and the steady ones are the interval on
    /// average.
    #[test]
    fn waits_keep_their_bounds() {
        let mut rng = StdRng::seed_from_u64(2);
        for interval in [Duration::from_millis(200), INTERVAL] {
            let mut total = Duration::ZERO;
            for index in 0..200 {
                let mut schedule = Schedule::new(&key(index), interval);
                let first = schedule.next_wait(&mut rng);
                assert!(first < interval.min(FIRST_WITHIN), "{first:?}");
                let second = schedule.next_wait(&mut rng);
                assert!(second >= interval / 10 && second < interval * 11 / 10);
                for _ in 0..10 {
                    let wait = schedule.next_wait(&mut rng);
                    assert!(wait >= interval * 9 / 10 && wait <= interval * 11 / 10);
                    total += wait;
                }
            }
            let mean = total / 2000;
            assert!(mean > interval * 99 / 100 && mean < interval * 101 / 100);
        }
    }

    /// The same backend gets the same place each time, another one another.
    #[test]
    fn the_place_depends_on_the_backend() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut first = |index| Schedule::new(&key(index), INTERVAL).next_wait(&mut rng);
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
