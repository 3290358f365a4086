//! What counts as "as expected" where chance decides.

/// How often something of probability `p` may happen in `n` independent trials and still be
/// within three standard deviations of the mean; both bounds are included. A fair process leaves
/// the bounds about three times in a thousand.
pub fn binomial_bounds(n: usize, p: f64) -> (usize, usize) {
    bounds(n, p, 3.0)
}

/// The same with another number of standard deviations; with five, chance alone leaves the
/// bounds less than once in a million.
pub fn bounds(n: usize, p: f64, deviations: f64) -> (usize, usize) {
    let mean = n as f64 * p;
    let width = deviations * (mean * (1.0 - p)).sqrt();
    let low = (mean - width).ceil().max(0.0) as usize;
    let high = (mean + width).floor().min(n as f64) as usize;
    (low, high)
}

/// The smallest value that at least `percent` (0..=100) of `values` do not exceed (nearest rank);
/// `None` if there are none.
pub fn percentile<T: Ord + Copy>(values: &[T], percent: f64) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_known_distributions() {
        // n = 900, p = 1/3: mean 300, deviation sqrt(200) = 14.14.
        assert_eq!(binomial_bounds(900, 1.0 / 3.0), (258, 342));
        assert_eq!(binomial_bounds(10, 0.0), (0, 0));
        assert_eq!(binomial_bounds(10, 1.0), (10, 10));
        assert_eq!(binomial_bounds(4, 0.5), (0, 4));
    }

    #[test]
    fn percentiles_are_values_that_occur() {
        let values = [15, 20, 35, 40, 50];
        for (percent, expected) in [(0.0, 15), (30.0, 20), (40.0, 20), (50.0, 35), (100.0, 50)] {
            assert_eq!(percentile(&values, percent), Some(expected), "{percent}");
        }
        assert_eq!(percentile::<u8>(&[], 50.0), None);
    }
}
