//! Repeated measurements of one thing.

/// One value from each run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds the value of one more run.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// The values in the order of the runs.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The middle value; between the two in the middle where there are two. Not a number where
    /// there is no value.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The smallest value.
    pub fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The largest value.
    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// How far apart the middle half of the values lies, as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.quantile(0.75) - self.quantile(0.25)) / self.median()
    }

    /// The value below which the share `q` (0..=1) of all lies, interpolated between neighbours.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else {
            return f64::NAN;
        };
        let at = q * last as f64;
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    }

    /// Run by run, what `f` makes of this value and the other's: both were measured next to each
    /// other, so that what slows the machine down for a while is in both.
    pub fn paired(&self, other: &Samples, f: impl Fn(f64, f64) -> f64) -> Samples {
        let pairs = self.0.iter().zip(&other.0);
        Samples(pairs.map(|(own, other)| f(*own, *other)).collect())
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_between_two_where_there_are_two() {
        let samples: Samples = [9.0, 1.0, 3.0, 5.0].into_iter().collect();
        assert_eq!((samples.median(), samples.runs()), (4.0, 4));
        assert_eq!((samples.min(), samples.max()), (1.0, 9.0));
        let odd: Samples = [7.0, 1.0, 3.0].into_iter().collect();
        assert_eq!(odd.median(), 3.0);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn one_outlier_is_no_spread() {
        let samples: Samples = [10.0, 10.0, 10.0, 10.0, 900.0].into_iter().collect();
        assert_eq!(samples.spread(), 0.0);
        let wide: Samples = [8.0, 9.0, 10.0, 11.0, 12.0].into_iter().collect();
        assert_eq!(wide.spread(), 0.2);
    }

    #[test]
    fn pairs_are_of_the_same_run() {
        let slow: Samples = [30.0, 130.0].into_iter().collect();
        let floor: Samples = [20.0, 120.0].into_iter().collect();
        let above = slow.paired(&floor, |slow, floor| slow - floor);
        assert_eq!(above.values(), [10.0, 10.0]);
    }
}
