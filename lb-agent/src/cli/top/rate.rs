//! From counters to rates.

use std::{collections::VecDeque, time::Duration};

/// How much a counter grew in a second, on average over `elapsed`. `None`: nothing can be said, for
/// there is no earlier value, no time has passed, or the counter began anew.
pub(super) fn per_second(before: Option<u64>, after: u64, elapsed: Duration) -> Option<f64> {
    let grown = after.checked_sub(before?)?;
    (!elapsed.is_zero()).then(|| grown as f64 / elapsed.as_secs_f64())
}

/// Rates of one kind, the latest last, for a sparkline.
#[derive(Clone, Debug, Default)]
pub(super) struct Course(VecDeque<f64>);

impl Course {
    /// As many as the widest screen shows.
    const KEPT: usize = 240;

    /// Adds the latest; what cannot be said leaves no mark.
    pub(super) fn push(&mut self, rate: Option<f64>) {
        let Some(rate) = rate else { return };
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(rate);
    }

    /// Eighths of the highest of the last `width` rates, oldest first, as block elements.
    pub(super) fn sparkline(&self, width: usize) -> String {
        const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let shown = || self.0.iter().rev().take(width).rev();
        let highest = shown().copied().fold(0.0, f64::max);
        shown()
            .map(|rate| match highest {
                0.0 => LEVELS[0],
                // What is not nothing is seen.
                highest => LEVELS[((rate / highest * 7.0).ceil() as usize).min(7)],
            })
            .collect()
    }
}

/// A rate for people: three digits, with `k`, `M` or `G`.
pub(super) fn shown(rate: Option<f64>) -> String {
    let Some(rate) = rate else { return "-".into() };
    let (value, unit) = scaled(rate, 1000.0, &["", "k", "M", "G", "T"]);
    format!("{}{unit}", digits(value))
}

/// A rate of bytes for people, in bits as links are measured.
pub(super) fn shown_bits(bytes: Option<f64>) -> String {
    let Some(bytes) = bytes else {
        return "-".into();
    };
    let (value, unit) = scaled(bytes * 8.0, 1000.0, &["", "k", "M", "G", "T"]);
    format!("{}{unit}bit", digits(value))
}

fn scaled<'a>(mut value: f64, step: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut at = 0;
    // What would be rounded up to the step belongs to the next unit already.
    while value >= step - 0.5 && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    (value, units[at])
}

fn digits(value: f64) -> String {
    if value == 0.0 || value >= 99.95 {
        format!("{value:.0}")
    } else if value >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_values_and_time() {
        let second = Duration::from_secs(1);
        let rows = [
            (Some(10), 30, second * 2, Some(10.0)),
            (Some(10), 10, second, Some(0.0)),
            (Some(0), 5, second / 2, Some(10.0)),
            (None, 30, second, None),
            (Some(10), 30, Duration::ZERO, None),
            // The agent's maps were made anew.
            (Some(31), 30, second, None),
        ];
        for (before, after, elapsed, expected) in rows {
            assert_eq!(per_second(before, after, elapsed), expected, "{after}");
        }
    }

    #[test]
    fn a_course_is_drawn_against_its_highest() {
        let course = |rates: &[f64]| {
            let mut course = Course::default();
            rates.iter().for_each(|rate| course.push(Some(*rate)));
            course.push(None);
            course
        };
        let rows: [(&[f64], usize, &str); 6] = [
            (&[], 5, ""),
            (&[0.0, 0.0], 5, "▁▁"),
            (&[0.0, 1.0, 1000.0], 5, "▁▂█"),
            (&[7.0, 1.0, 2.0, 3.0, 4.0], 5, "█▂▃▄▅"),
            // The highest that is not shown does not count.
            (&[700.0, 0.0, 7.0], 2, "▁█"),
            (&[5.0], 0, ""),
        ];
        for (rates, width, expected) in rows {
            assert_eq!(course(rates).sparkline(width), expected, "{rates:?}");
        }
        let long = course(&[1.0; Course::KEPT + 50]);
        assert_eq!(long.sparkline(usize::MAX).chars().count(), Course::KEPT);
    }

    #[test]
    fn rates_have_three_digits() {
        let rows = [
            (None, "-", "-"),
            (Some(0.0), "0", "0bit"),
            (Some(0.5), "0.50", "4.00bit"),
            (Some(12.34), "12.3", "98.7bit"),
            (Some(999.4), "999", "8.00kbit"),
            (Some(999.6), "1.00k", "8.00kbit"),
            (Some(125_000.0), "125k", "1.00Mbit"),
            (Some(2.5e9), "2.50G", "20.0Gbit"),
        ];
        for (rate, plain, bits) in rows {
            assert_eq!((shown(rate), shown_bits(rate)), (plain.into(), bits.into()));
        }
    }
}
