//! The kernel's tick counter as the agent tells it without asking.
//!
//! Flow entries keep times in jiffies. The counter follows CLOCK_MONOTONIC exactly, at a rate
//! that is a constant of the kernel's build; two test runs of a one-line program tell both the
//! rate and the offset.

use std::time::{Duration, Instant};

use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};

/// Rates that kernels are built with (kernel/Kconfig.hz).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// Reads the tick counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    ticks: u32,
    at: Instant,
    per_second: u32,
}

impl Clock {
    /// Finds out rate and offset; takes a twentieth of a second.
    pub(crate) fn calibrate(program: &Xdp) -> Result<Self, ProgramError> {
        let (first, begun) = (Self::sample(program)?, Instant::now());
        std::thread::sleep(Duration::from_millis(50));
        let (ticks, at) = (Self::sample(program)?, Instant::now());
        let measured =
            f64::from(ticks.wrapping_sub(first)) / at.duration_since(begun).as_secs_f64();
        let distance = |rate: u32| (f64::from(rate) / measured).ln().abs();
        let per_second = RATES
            .into_iter()
            .min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
            .unwrap_or(RATES[0]);
        Ok(Self {
            ticks,
            at,
            per_second,
        })
    }

    fn sample(program: &Xdp) -> Result<u32, ProgramError> {
        let frame = [0; 64];
        let run = program.test_run(TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        })?;
        Ok(run.return_value)
    }

    /// The counter's lower 32 bits at this moment, give or take one.
    pub(crate) fn now(&self) -> u32 {
        let elapsed = self.at.elapsed().as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        self.ticks.wrapping_add(elapsed as u32)
    }

    /// Ticks a second.
    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }
}
