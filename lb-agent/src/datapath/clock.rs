//! The kernel's tick counter as the agent tells it without asking.
//!
//! Flow entries keep times in jiffies. The counter follows CLOCK_MONOTONIC exactly, at a rate
//! that is a constant of the kernel's build; two test runs of a one-line program tell both the
//! rate and the offset.

use std::time::{Duration, Instant};

use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};

use crate::domain::kernel::KernelError;

/// Rates that kernels are built with (kernel/Kconfig.hz).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// How long to wait between two looks at the counter.
const PAUSE: Duration = Duration::from_millis(50);
/// Looks before the rate is called unknown.
const LOOKS: u32 = 60;

/// The one rate at which a counter can have gone on by `ticks` in a time between the two given;
/// `None` if there is none, or more than one.
fn the_rate(ticks: u32, shortest: Duration, longest: Duration) -> Option<u32> {
    // The ends of the time lie anywhere between two ticks, so one tick more or less says nothing.
    let (least, most) = (f64::from(ticks) - 1.0, f64::from(ticks) + 1.0);
    let mut fitting = RATES.into_iter().filter(|rate| {
        let rate = f64::from(*rate);
        rate * longest.as_secs_f64() > least && rate * shortest.as_secs_f64() < most
    });
    fitting.next().filter(|_| fitting.next().is_none())
}

/// The rate that a counter has gone on by, give or take a twentieth, over a long time. For nodes whose
/// timer lags: an emulated processor gets its interrupts late and several at once, so the counter is
/// behind by more than one at any moment, but not by ever more.
fn rate_in_the_long_run(ticks: u32, time: Duration) -> Option<u32> {
    let seen = f64::from(ticks) / time.as_secs_f64();
    RATES
        .into_iter()
        .find(|rate| (seen / f64::from(*rate) - 1.0).abs() < 0.05)
}

/// The rate that at least two looks tell and none denies. One alone may begin on a virtual processor
/// that had not been running: its counter is behind by several ticks, and catches up with the next
/// interrupt.
fn agreed(rates: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let told: Vec<u32> = rates.flatten().collect();
    let (first, others) = told.split_first()?;
    (!others.is_empty() && others.iter().all(|other| other == first)).then_some(*first)
}

/// Reads the tick counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    ticks: u32,
    at: Instant,
    per_second: u32,
}

/// The counter as read between two instants.
struct Sample {
    ticks: u32,
    before: Instant,
    after: Instant,
}

impl Sample {
    /// Ticks since an earlier one, and the shortest and the longest time that may have passed.
    fn since(&self, first: &Self) -> (u32, Duration, Duration) {
        (
            self.ticks.wrapping_sub(first.ticks),
            self.before.duration_since(first.after),
            self.after.duration_since(first.before),
        )
    }

    fn rate_since(&self, first: &Self) -> Option<u32> {
        let (ticks, shortest, longest) = self.since(first);
        the_rate(ticks, shortest, longest)
    }
}

impl Clock {
    /// Finds out rate and offset; takes a tenth of a second, more on a node so busy that one
    /// rate cannot be told from another by then. A wrong rate would not do: the error would grow
    /// with the agent's age until every flow looked idle.
    pub(crate) fn calibrate(program: &Xdp) -> Result<Self, KernelError> {
        let what = "reading the kernel's tick rate";
        let sample = || Self::sample(program).map_err(|error| KernelError::new(what, error));
        let mut samples = vec![sample()?];
        for look in 1..=LOOKS {
            std::thread::sleep(PAUSE);
            let last = sample()?;
            let mut rate = agreed(samples.iter().map(|first| last.rate_since(first)));
            if look == LOOKS {
                let (ticks, _, longest) = last.since(&samples[0]);
                rate = rate.or_else(|| rate_in_the_long_run(ticks, longest));
            }
            samples.push(last);
            if let (Some(per_second), Some(last)) = (rate, samples.last()) {
                return Ok(Self {
                    ticks: last.ticks,
                    at: last.after,
                    per_second,
                });
            }
        }
        let unknown = format!("it is none of {RATES:?} ticks a second");
        Err(KernelError::new(what, unknown))
    }

    fn sample(program: &Xdp) -> Result<Sample, ProgramError> {
        let frame = [0; 64];
        let before = Instant::now();
        let run = program.test_run(TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        })?;
        Ok(Sample {
            ticks: run.return_value,
            before,
            after: Instant::now(),
        })
    }

    /// The counter's lower 32 bits at this moment, give or take one.
    pub(crate) fn now(&self) -> u32 {
        let elapsed = self.at.elapsed().as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        self.ticks.wrapping_add(elapsed as u32)
    }

    /// The counter's lower 32 bits so many seconds from now on; of the past, if fewer than none.
    pub(crate) fn in_seconds(&self, seconds: i32) -> u32 {
        let ticks = self.per_second.cast_signed().wrapping_mul(seconds);
        self.now().wrapping_add_signed(ticks)
    }

    /// Ticks a second.
    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every rate is found in one look at a quiet node, wherever between two ticks it begins.
    #[test]
    fn quiet_node() {
        for rate in RATES {
            for phase in 0..10 {
                let time = 0.0501;
                let ticks = (time * f64::from(rate) + f64::from(phase) / 10.0) as u32;
                let [shortest, longest] = [0.0500, 0.0502].map(Duration::from_secs_f64);
                let found = the_rate(ticks, shortest, longest);
                assert_eq!(found, Some(rate), "{ticks} ticks");
            }
        }
    }

    /// A counter that is behind by some ticks at one look, whichever, gives no wrong rate.
    #[test]
    fn late_interrupts() {
        let begun = Instant::now();
        for rate in RATES {
            for late in 0..5 {
                for tenths in 0..50 {
                    let sample = |number: u32| {
                        let at = begun + Duration::from_micros(50_100) * number;
                        let behind = if number == late {
                            tenths as f64 / 10.0
                        } else {
                            0.0
                        };
                        let ticks = (at - begun).as_secs_f64() * f64::from(rate) + 100.0 - behind;
                        let (before, after) = (at, at + Duration::from_micros(20));
                        Sample {
                            ticks: ticks as u32,
                            before,
                            after,
                        }
                    };
                    let mut samples = vec![sample(0)];
                    let found = (1..LOOKS).find_map(|number| {
                        let last = sample(number);
                        let found = agreed(samples.iter().map(|first| last.rate_since(first)));
                        samples.push(last);
                        found
                    });
                    assert_eq!(found, Some(rate), "look {late}, {tenths} tenths of a tick");
                }
            }
        }
        // Which one look alone does not exclude.
        let ms = Duration::from_millis;
        assert_eq!(the_rate(15, ms(50), ms(50)), Some(300));
    }

    /// Interrupted between reading the counter and the clock, it says nothing rather than
    /// something wrong.
    #[test]
    fn busy_node() {
        let [short, long] = [49, 58].map(Duration::from_millis);
        // 250 a second for 58 ms looks like 300 for 49.
        assert_eq!(the_rate(14, short, long), None);
        // Later it is clear.
        let [short, long] = [300, 308].map(Duration::from_millis);
        assert_eq!(the_rate(76, short, long), Some(250));
        assert_eq!(the_rate(0, short, long), None);
    }

    /// A timer that is ten ticks late at the end, or was at the beginning.
    #[test]
    fn late_timer() {
        let time = Duration::from_secs(3);
        for (ticks, rate) in [(740, 250), (760, 250), (900, 300), (303, 100), (2990, 1000)] {
            let [short, long] = [2_999, 3_001].map(Duration::from_millis);
            assert_eq!(the_rate(ticks, short, long).unwrap_or(rate), rate);
            assert_eq!(rate_in_the_long_run(ticks, time), Some(rate));
        }
        assert_eq!(rate_in_the_long_run(825, time), None, "between 250 and 300");
    }
}
