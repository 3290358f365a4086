//! How long to wait after a failure: exponential with full jitter, so that neither many watches
//! of one node nor many nodes return in step.

use std::time::Duration;

use rand::Rng;

/// Upper bound of the wait after the first failure.
pub(crate) const FLOOR: Duration = Duration::from_millis(250);
/// Upper bound of every wait.
pub(crate) const CEILING: Duration = Duration::from_secs(30);

/// The wait after `failures` failures in a row (from 1): anything from nothing to a bound that
/// doubles each time, from [`FLOOR`] to [`CEILING`].
pub(crate) fn full_jitter(failures: u32, rng: &mut impl Rng) -> Duration {
    rng.random_range(Duration::ZERO..=bound(failures))
}

fn bound(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FLOOR.saturating_mul(1 << doublings).min(CEILING)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn bounds_double_from_floor_to_ceiling() {
        let rows = [
            (0, 250),
            (1, 250),
            (2, 500),
            (3, 1_000),
            (7, 16_000),
            (8, 30_000),
            (40, 30_000),
            (u32::MAX, 30_000),
        ];
        for (failures, millis) in rows {
            assert_eq!(
                bound(failures),
                Duration::from_millis(millis),
                "{failures} failures"
            );
        }
    }

    #[test]
    fn jitter_uses_the_whole_range_and_no_more() {
        let mut rng = StdRng::seed_from_u64(7);
        for failures in [1, 4, 30] {
            let bound = bound(failures);
            let draws: Vec<_> = (0..2_000)
                .map(|_| full_jitter(failures, &mut rng))
                .collect();
            assert!(draws.iter().all(|wait| *wait <= bound));
            assert!(draws.iter().any(|wait| *wait < bound / 10));
            assert!(draws.iter().any(|wait| *wait > bound * 9 / 10));
        }
    }
}
