//! A shift in the hands of its gate: windows one after the other, steps and the way back.

use std::time::SystemTime;

use super::{Phase, Shift, ShiftState};
use crate::domain::gate::{GateSpec, Judgement, Look, Sight, Verdict, Window};

/// Something that a person should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A step was taken.
    Stepped,
    /// A window failed; so many now.
    WindowFailed(u32, String),
    /// The last good shares are in force again; why.
    Returned(String),
}

/// A shift under way, with what its gate has seen.
#[derive(Clone, Debug)]
pub struct Steering {
    shift: Shift,
    window: Option<Window>,
    /// What [`Window::others`] said last.
    others: Option<f64>,
    failed: u32,
    last: Option<Judgement>,
    /// A good window since the last step.
    cleared: bool,
    /// No step before that.
    rest_until: Option<SystemTime>,
}

impl Steering {
    /// Takes a new shift in hand.
    pub fn new(shift: Shift) -> Self {
        Self {
            shift,
            window: None,
            others: None,
            failed: 0,
            last: None,
            cleared: false,
            rest_until: None,
        }
    }

    /// Takes up a shift of a former agent.
    pub fn resumed(mut shift: Shift, now: SystemTime) -> Self {
        if let Phase::Stepping { every, next, .. } = &mut shift.phase {
            *next = now + *every;
        }
        Self::new(shift)
    }

    /// The shift.
    pub fn shift(&self) -> &Shift {
        &self.shift
    }

    /// The shift, to be changed by a person; what the gate has seen of its subset counts no longer.
    pub fn change(&mut self, change: impl FnOnce(&mut Shift)) {
        change(&mut self.shift);
        *self = Self {
            others: self.others,
            ..Self::new(self.shift.clone())
        };
    }

    /// The same where the change may fail; then there was none.
    ///
    /// # Errors
    ///
    /// Those of the change.
    pub fn try_change<E>(
        &mut self,
        change: impl FnOnce(&mut Shift) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut changed = self.shift.clone();
        change(&mut changed)?;
        self.change(|shift| *shift = changed);
        Ok(())
    }

    /// The shift and how it goes.
    pub fn state(&self) -> ShiftState {
        ShiftState {
            shift: self.shift.clone(),
            failed: self.failed,
            last: self.last.clone(),
        }
    }

    /// When to look again at the latest; `None`: nothing is to be seen.
    pub fn next_deadline(&self) -> Option<SystemTime> {
        if !self.shift.is_watched() {
            return None;
        }
        let step = match &self.shift.phase {
            Phase::Stepping { next, .. } if self.cleared => {
                Some((*next).max(self.rest_until.unwrap_or(*next)))
            }
            _ => None,
        };
        let window = self.window.as_ref().and_then(Window::ends);
        step.into_iter().chain(window).min()
    }

    /// Nothing is to be seen at present: what the window has seen counts no longer, and nothing is
    /// due before there is a new one.
    pub fn pause(&mut self) {
        self.window = None;
        self.cleared = false;
    }

    /// Looks, and does what is due.
    pub fn look(&mut self, spec: &GateSpec, now: SystemTime, sight: &Sight) -> Option<Turn> {
        if !self.shift.is_watched() {
            return None;
        }
        let Some(window) = &mut self.window else {
            self.window = Some(Window::open(spec, now, sight.clone(), self.others));
            return None;
        };
        match window.look(spec, now, sight) {
            Look::Open => {}
            Look::Void => self.window = None,
            Look::Closed(judgement) => {
                self.others = window.others();
                self.window = Some(Window::open(spec, now, sight.clone(), self.others));
                if let Some(turn) = self.count(spec, now, judgement) {
                    return Some(turn);
                }
            }
        }
        self.step_if_due(now)
    }

    /// Takes in what a window came to.
    fn count(&mut self, spec: &GateSpec, now: SystemTime, judgement: Judgement) -> Option<Turn> {
        let Judgement { verdict, reason } = judgement.clone();
        self.last = Some(judgement);
        match verdict {
            Verdict::Undecided => return None,
            Verdict::Good => {
                self.failed = 0;
                self.cleared = true;
                return None;
            }
            Verdict::Failed => self.failed += 1,
        }
        self.cleared = false;
        self.rest_until = Some(now + spec.cooldown);
        if self.failed < spec.fail.max(1) {
            return Some(Turn::WindowFailed(self.failed, reason));
        }
        self.window = None;
        self.shift.shares = self.shift.base.clone();
        let reason = match self.failed {
            1 => format!("a window failed: {reason}"),
            failed => format!("{failed} windows failed, none good in between: {reason}"),
        };
        self.shift.phase = Phase::Returned {
            at: now,
            reason: reason.clone(),
        };
        Some(Turn::Returned(reason))
    }

    fn step_if_due(&mut self, now: SystemTime) -> Option<Turn> {
        let Phase::Stepping { next, .. } = &self.shift.phase else {
            return None;
        };
        let rested = self.rest_until.is_none_or(|until| until <= now);
        if now < *next || !self.cleared || !rested {
            return None;
        }
        self.shift.step(now);
        // What comes is another matter than what was.
        self.pause();
        Some(Turn::Stepped)
    }
}
