//! A shift: traffic goes over to one subset step by step, is watched by its gate, and goes back by
//! itself to the last good shares when the subset turns bad.
//!
//! ```text
//!            step, step, …                     promote
//! Stepping ───────────────▶ Arrived ──────────────────────────▶ Promoted
//!     │                        │
//!     └──── windows failed ────┴──▶ Returned (until acknowledged)
//! ```
//!
//! - The *last good shares* are those that were in force when the shift began. Nothing in between
//!   is called good: what was good at 10 % may have broken at 20 %.
//! - A step is taken when its time has come, a window since the last step was good, and no window
//!   has failed within the cooldown.
//! - A subset is watched for as long as it has its new share: until a person promotes it, rolls it
//!   back, or sets other shares.
//! - After a restart of the agent a shift stays where it was for a whole interval, and then goes on.
//!   Windows are counted anew, for nobody has looked meanwhile.

mod steering;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::steering::{Steering, Turn};
use super::{gate::Judgement, split::Shares};

/// What is to be shifted, how far and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftOrder {
    /// The subset that traffic goes to.
    pub subset: String,
    /// Its share in the end, in percent: 1 to 100.
    pub to: u32,
    /// Percent points of one step: 1 to 100.
    pub step: u32,
    /// From one step to the next.
    pub every: Duration,
}

/// Why a shift cannot begin. The text is a sentence for people.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum InvalidShift {
    /// A percentage out of range.
    #[error("{what} is {value} percent; it must be from 1 to 100")]
    Percent {
        /// Which.
        what: &'static str,
        /// As given.
        value: u32,
    },
    /// The interval is out of range.
    #[error("the time between two steps is {}; it must be from 1s to 7d", humantime::format_duration(*.0))]
    Every(Duration),
    /// The subset has as much already.
    #[error(
        "subset {subset} has {now:.1} % already; a shift goes up only, `split set` goes anywhere"
    )]
    NotUp {
        /// The subset.
        subset: String,
        /// Its present percentage.
        now: f64,
    },
    /// Nobody else has a share.
    #[error("no other subset than {0} has a share, so nothing can be shifted to it")]
    Alone(String),
}

impl ShiftOrder {
    /// Longest time between two steps.
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Checks what can be checked without knowing the service.
    pub fn check(&self) -> Result<(), InvalidShift> {
        for (what, value) in [("the share to reach", self.to), ("a step", self.step)] {
            if !(1..=100).contains(&value) {
                return Err(InvalidShift::Percent { what, value });
            }
        }
        if !(Duration::from_secs(1)..=Self::LONGEST).contains(&self.every) {
            return Err(InvalidShift::Every(self.every));
        }
        Ok(())
    }
}

/// Where a shift stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// More is to come.
    Stepping {
        /// Share in the end, in percent.
        to: u32,
        /// Percent points of one step.
        step: u32,
        /// From one step to the next.
        every: Duration,
        /// The earliest time of the next step.
        next: SystemTime,
    },
    /// The subset has the share it was to have, and is watched.
    Arrived,
    /// The agent gave the traffic back. Stays so until acknowledged.
    Returned {
        /// When.
        at: SystemTime,
        /// Why, in words for people.
        reason: String,
    },
    /// A person is content: the subset has everything, and is watched no longer.
    Promoted {
        /// When.
        at: SystemTime,
    },
}

impl Phase {
    /// In one word, as shown and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Stepping { .. } => "stepping",
            Phase::Arrived => "arrived",
            Phase::Returned { .. } => "returned",
            Phase::Promoted { .. } => "promoted",
        }
    }

    /// Every [`Self::name`].
    pub const NAMES: [&str; 4] = ["stepping", "arrived", "returned", "promoted"];
}

/// A shift of one service, as it outlives the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// The subset that traffic goes to.
    pub subset: String,
    /// The last good shares.
    pub base: Shares,
    /// The shares in force.
    pub shares: Shares,
    /// When it began.
    pub began: SystemTime,
    /// Where it stands.
    pub phase: Phase,
}

impl Shift {
    /// Begins with the first step. `base` is in force at present.
    ///
    /// # Errors
    ///
    /// See [`InvalidShift`].
    pub fn begin(order: &ShiftOrder, base: &Shares, now: SystemTime) -> Result<Self, InvalidShift> {
        let mut shift = Self {
            subset: order.subset.clone(),
            base: base.clone(),
            shares: base.clone(),
            began: now,
            phase: Phase::Arrived,
        };
        shift.head_for(order, now)?;
        Ok(shift)
    }

    /// One that has arrived at once.
    pub fn placed(subset: &str, base: &Shares, shares: &Shares, now: SystemTime) -> Self {
        Self {
            subset: subset.to_owned(),
            base: base.clone(),
            shares: shares.clone(),
            began: now,
            phase: Phase::Arrived,
        }
    }

    /// Goes on with these shares, and no further steps.
    pub fn move_to(&mut self, shares: &Shares) {
        self.shares = shares.clone();
        self.phase = Phase::Arrived;
    }

    /// Goes on from where it is to another goal, with a step at once.
    ///
    /// # Errors
    ///
    /// See [`InvalidShift`]; nothing has changed.
    pub fn head_for(&mut self, order: &ShiftOrder, now: SystemTime) -> Result<(), InvalidShift> {
        order.check()?;
        let percent = self.shares.percent(&self.subset);
        if percent >= f64::from(order.to) {
            return Err(InvalidShift::NotUp {
                subset: self.subset.clone(),
                now: percent,
            });
        }
        // Whether anybody is there to give does not depend on the percentage.
        if self.base.with_percent(&self.subset, 0).is_none() {
            return Err(InvalidShift::Alone(self.subset.clone()));
        }
        self.phase = Phase::Stepping {
            to: order.to,
            step: order.step,
            every: order.every,
            next: now,
        };
        self.step(now);
        Ok(())
    }

    /// Takes the next step.
    fn step(&mut self, now: SystemTime) {
        let Phase::Stepping {
            to,
            step,
            every,
            next,
        } = &mut self.phase
        else {
            return;
        };
        let percent = self.shares.percent(&self.subset) as u32 + *step;
        if let Some(shares) = self.base.with_percent(&self.subset, percent.min(*to)) {
            self.shares = shares;
        }
        *next = now + *every;
        if percent >= *to {
            self.phase = Phase::Arrived;
        }
    }

    /// The subset gets everything, for good.
    pub fn promote(&mut self, now: SystemTime) {
        if let Some(shares) = self.base.with_percent(&self.subset, 100) {
            self.shares = shares;
        }
        self.phase = Phase::Promoted { at: now };
    }

    /// Whether the gate is looking.
    pub fn is_watched(&self) -> bool {
        matches!(self.phase, Phase::Stepping { .. } | Phase::Arrived)
    }

    /// Whether only an acknowledgement ends it.
    pub fn is_latched(&self) -> bool {
        matches!(self.phase, Phase::Returned { .. })
    }
}

/// A shift and how it goes, for those who show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftState {
    /// The shift.
    pub shift: Shift,
    /// Windows that failed, none good in between.
    pub failed: u32,
    /// What the last window came to; `None`: none is over yet.
    pub last: Option<Judgement>,
}

#[cfg(test)]
mod tests;
