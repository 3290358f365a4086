//! What a connection of a client is at, since when, and when that has taken too long.
//!
//! Nothing here asks the clock: times are those of the last round ([`super::rounds`]), so that a
//! request costs a few plain loads and stores. Whoever holds the connection's stream holds its
//! life too: a connection that has become another protocol counts until its stream is dropped.

mod pace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub(super) use self::pace::Pace;
use self::pace::milliseconds;
use super::present::Present;

/// Bytes by which a client of HTTP/2 has begun: the preface, and the head of its first frame.
const GREETING: u32 = 24 + 9;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Nothing of a request has come yet.
    Opening,
    /// A part of a request's head has.
    Head,
    /// Requests are under way.
    Busy,
    /// A request has been answered before all of it came.
    Rest,
    /// Between requests.
    Idle,
    /// The client has been told that it is over.
    Leaving,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Opening,
        Self::Head,
        Self::Busy,
        Self::Rest,
        Self::Idle,
        Self::Leaving,
    ];
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overdue {
    /// It has been at this for too long.
    #[error("too long in {0:?}")]
    Stage(Stage),
    /// The client takes nothing of what is sent.
    #[error("the client takes nothing")]
    Blocked,
}

/// Time as of the last round, in milliseconds.
pub(super) type Time = Arc<AtomicU64>;

/// See the module's documentation. Only its own thread changes it; atomics, for hyper wants
/// streams that could be sent elsewhere.
#[derive(Debug)]
pub(super) struct Life {
    time: Time,
    since: AtomicU64,
    /// When the last of what is sent was taken.
    moved: AtomicU64,
    /// When the last request began.
    asked: AtomicU64,
    /// How long the client may take nothing.
    patience: AtomicU64,
    /// That of answers that no route has a word on.
    default_patience: u64,
    under_way: AtomicU32,
    answers: AtomicU32,
    /// Of HTTP/2, what is missing of its [`GREETING`].
    greeting: AtomicU32,
    stage: AtomicU8,
    multiplexed: AtomicBool,
    blocked: AtomicBool,
    flushed: AtomicBool,
    hungry: AtomicBool,
    hot: AtomicBool,
    /// A request has been under way for so long that it is watched whether its client is there.
    watched: AtomicBool,
    awake: AtomicBool,
    ending: AtomicBool,
    present: Present,
}

impl Life {
    /// Begins now. `patience`: how long the client may take nothing of answers that no route has a
    /// word on.
    pub(super) fn new(time: &Time, patience: u64, present: Present) -> Arc<Self> {
        let now = time.load(Relaxed);
        Arc::new(Self {
            time: Arc::clone(time),
            since: AtomicU64::new(now),
            moved: AtomicU64::new(now),
            asked: AtomicU64::new(0),
            patience: AtomicU64::new(patience),
            default_patience: patience,
            under_way: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            greeting: AtomicU32::new(GREETING),
            stage: AtomicU8::new(Stage::Opening as u8),
            multiplexed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            hungry: AtomicBool::new(false),
            hot: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            awake: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            present,
        })
    }

    /// Whom it counts with.
    pub(super) fn present(&self) -> &Present {
        &self.present
    }

    fn now(&self) -> u64 {
        self.time.load(Relaxed)
    }

    pub(super) fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Relaxed))]
    }

    fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }

    /// From now on it is at this.
    pub(super) fn enter(&self, stage: Stage) {
        self.set(stage);
        self.since.store(self.now(), Relaxed);
    }

    /// The client is told that it is over. What is under way is completed.
    pub(super) fn leave(&self) {
        self.enter(Stage::Leaving);
    }

    /// It speaks HTTP/2.
    pub(super) fn multiplex(&self) {
        self.multiplexed.store(true, Relaxed);
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    /// Bytes came. The head of the first request has its time from the connection's beginning. Of
    /// HTTP/2 they may be anything but a request: only its greeting counts.
    pub(super) fn read(&self, bytes: usize) {
        let stage = self.stage();
        match stage {
            Stage::Opening => self.set(Stage::Head),
            Stage::Idle if !self.multiplexed.load(Relaxed) => self.enter(Stage::Head),
            _ => {}
        }
        if matches!(stage, Stage::Opening | Stage::Head) && self.multiplexed.load(Relaxed) {
            let missing = self.greeting.load(Relaxed);
            let missing = missing.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
            self.greeting.store(missing, Relaxed);
            if missing == 0 {
                self.enter(Stage::Idle);
            }
        }
    }

    /// More is waited for.
    pub(super) fn starved(&self) {
        self.hungry.store(true, Relaxed);
    }

    /// Some of what is sent was taken.
    pub(super) fn wrote(&self) {
        self.moved.store(self.now(), Relaxed);
        self.blocked.store(false, Relaxed);
        self.flushed.store(false, Relaxed);
    }

    /// Nothing more is taken for now.
    pub(super) fn blocked(&self) {
        self.flushed.store(false, Relaxed);
        if !self.blocked.swap_plain(true) {
            self.moved.store(self.now(), Relaxed);
        }
    }

    /// All that is sent was taken.
    pub(super) fn flushed(&self) {
        if self.flushed.swap_plain(true) {
            return;
        }
        self.blocked.store(false, Relaxed);
        // Of HTTP/2 it may have been the answer to a ping.
        if self.stage() == Stage::Idle && !self.multiplexed.load(Relaxed) {
            self.since.store(self.now(), Relaxed);
        }
    }

    /// Nothing of an answer waits to be taken.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Relaxed)
    }

    /// A request begins. Two of them close to each other make it worth while to keep buffers.
    pub(super) fn asked(&self, calm: u64) {
        let now = self.now();
        let before = self.asked.load(Relaxed);
        self.hot
            .store(before > 0 && now.saturating_sub(before) <= calm, Relaxed);
        self.asked.store(now.max(1), Relaxed);
        self.watched.store(false, Relaxed);
        self.under_way
            .store(self.under_way.load(Relaxed) + 1, Relaxed);
        if self.stage() != Stage::Leaving {
            self.set(Stage::Busy);
        }
    }

    /// A request has been answered; `whole`: and all of it has come.
    pub(super) fn answered(&self, whole: bool) {
        let left = self.under_way.load(Relaxed).saturating_sub(1);
        self.under_way.store(left, Relaxed);
        if left > 0 {
            return;
        }
        match self.stage() {
            Stage::Leaving => self.enter(Stage::Leaving),
            _ if whole || self.multiplexed.load(Relaxed) => self.enter(Stage::Idle),
            _ => self.enter(Stage::Rest),
        }
    }

    /// All of the last answer is there: once it is sent, the connection is closed.
    pub(super) fn end(&self) {
        self.ending.store(true, Relaxed);
    }

    /// Whether it is.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }

    /// An answer begins. `patience`: how long its route lets the client take nothing; of several
    /// under way on one connection the most patient counts.
    pub(super) fn answering(&self, patience: Option<Duration>) {
        self.answers
            .store(self.answers.load(Relaxed).wrapping_add(1), Relaxed);
        let patience = patience.map_or(self.default_patience, milliseconds);
        if self.under_way() <= 1 || patience > self.patience() {
            self.patience.store(patience, Relaxed);
        }
    }

    /// Answers that have begun.
    pub(super) fn answers(&self) -> u32 {
        self.answers.load(Relaxed)
    }

    /// How long the client may take nothing.
    pub(super) fn patience(&self) -> u64 {
        self.patience.load(Relaxed)
    }

    /// Has buffers, or has them no longer.
    pub(super) fn wake(&self, awake: bool) {
        self.awake.store(awake, Relaxed);
    }

    /// Before its protocol goes on.
    pub(super) fn begin_poll(&self) {
        self.hungry.store(false, Relaxed);
    }

    /// It only waits for the next request, and can do so without buffers.
    pub(super) fn can_rest(&self, calm: u64) -> bool {
        self.stage() == Stage::Idle
            && self.hungry.load(Relaxed)
            && self.is_flushed()
            && (!self.hot.load(Relaxed)
                || self.now().saturating_sub(self.since.load(Relaxed)) >= calm)
    }

    /// It speaks HTTP/2, and can be told that it is over: its client has asked for something.
    pub(super) fn can_leave(&self) -> bool {
        self.multiplexed.load(Relaxed)
            && self.asked.load(Relaxed) > 0
            && self.stage() != Stage::Leaving
    }

    /// Whether its client is watched from now on: nothing is read while a request of HTTP/1 waits, and
    /// most never wait for two rounds.
    fn begins_watch(&self, pace: &Pace) -> bool {
        let waited = self.now().saturating_sub(self.asked.load(Relaxed));
        self.under_way() > 0
            && waited >= pace.grain * 2
            && !self.multiplexed.load(Relaxed)
            && !self.watched.swap_plain(true)
    }

    /// See [`Life::begins_watch`]. A tunnel is read all the time.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed) && self.under_way() > 0
    }

    /// A round has to wake it.
    pub(super) fn is_due(&self, pace: &Pace, stopped: Option<u64>) -> bool {
        self.overdue(pace, stopped).is_some()
            || self.begins_watch(pace)
            || stopped.is_some() && self.can_leave()
            || self.awake.load(Relaxed) && self.can_rest(pace.grain * 2)
    }

    /// Whether it has to end, and why; `stopped`: when a stop was told. Times are as coarse as
    /// rounds are, so each bound has one grain more: nobody is late too early.
    pub(super) fn overdue(&self, pace: &Pace, stopped: Option<u64>) -> Option<Overdue> {
        let now = self.now();
        let over = |since: u64, patience: u64| {
            now.saturating_sub(since) >= patience.saturating_add(pace.grain)
        };
        let stage = self.stage();
        if self.blocked.load(Relaxed) {
            if over(self.moved.load(Relaxed), self.patience()) {
                return Some(Overdue::Blocked);
            }
            if matches!(stage, Stage::Busy | Stage::Rest | Stage::Idle) {
                return None;
            }
        }
        // Streams under way have their own bounds.
        if stage == Stage::Leaving && self.under_way() > 0 {
            return None;
        }
        let since = self.since.load(Relaxed);
        let late = over(since, pace.of(stage)?);
        let lingers = matches!(stage, Stage::Opening | Stage::Idle | Stage::Leaving);
        let lingered = stopped.filter(|_| lingers).is_some_and(|stopped| {
            let linger = match self.present.is_elder() {
                true => pace.linger,
                false => pace.linger_new,
            };
            over(since.max(stopped), linger)
        });
        (late || lingered).then_some(Overdue::Stage(stage))
    }
}

/// For what only one thread changes: no locked instruction.
trait SwapPlain {
    fn swap_plain(&self, value: bool) -> bool;
}

impl SwapPlain for AtomicBool {
    fn swap_plain(&self, value: bool) -> bool {
        let before = self.load(Relaxed);
        self.store(value, Relaxed);
        before
    }
}

#[cfg(test)]
mod tests;
