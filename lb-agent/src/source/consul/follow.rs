//! Follows one topic: asks, hands the outcome on, decides when and from which index to ask again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, mpsc};

use crate::{
    domain::{backoff::full_jitter, sync::Topic},
    source::{
        consul_answer::Answer,
        consul_client::{Client, RequestError},
    },
};

/// How a topic is followed.
pub(super) enum Mode {
    /// By questions that Consul holds until something changes.
    Watch,
    /// By questions that it answers at once.
    Poll {
        /// A question takes one. Given in the order asked for, so that each has its turn.
        turns: Arc<Semaphore>,
        /// From one question to the next.
        period: Duration,
        /// Rings when there may be something new.
        news: Arc<Notify>,
        /// It can be relied on to ring, so that there is no hurry otherwise.
        told: Arc<AtomicBool>,
    },
}

/// How much longer the period of a poll is while its news can be relied on. It could be longer still,
/// were it not good to find out some time what should have been told and was not.
const TOLD: u32 = 24;

/// What a question led to.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) topic: Topic,
    pub(super) outcome: Result<Answer, RequestError>,
}

/// Follows one topic until it is dropped or nobody listens.
pub(super) struct Follower {
    pub(super) client: Client,
    pub(super) topic: Topic,
    pub(super) mode: Mode,
    pub(super) events: mpsc::Sender<Event>,
}

impl Follower {
    pub(super) async fn run(self) {
        let mut index = 0;
        let mut failures = 0;
        // Of the last answer, unless there was a failure since.
        let mut digest = None;
        let mut pace = Pace::default();
        loop {
            tokio::time::sleep(pace.admit(Instant::now())).await;
            let asked = Instant::now();
            let outcome = self.ask(index, digest).await;
            index = next_index(index, outcome.as_ref().ok().map(|answer| answer.index));
            digest = outcome.as_ref().ok().map(|answer| answer.digest);
            failures = match &outcome {
                Ok(_) => 0,
                Err(_) => failures + 1,
            };
            let topic = self.topic.clone();
            if self.events.send(Event { topic, outcome }).await.is_err() {
                return;
            }
            match &self.mode {
                _ if failures > 0 => {
                    let pause = full_jitter(failures, &mut rand::rng());
                    tokio::time::sleep(pause).await;
                }
                Mode::Watch => {}
                Mode::Poll {
                    period, news, told, ..
                } => {
                    let period = match told.load(Ordering::Relaxed) {
                        true => *period * TOLD,
                        false => *period,
                    };
                    let pause = period.saturating_sub(asked.elapsed());
                    // Whichever comes first.
                    let _ = tokio::time::timeout(pause, news.notified()).await;
                }
            }
        }
    }

    async fn ask(&self, index: u64, known: Option<u64>) -> Result<Answer, RequestError> {
        match &self.mode {
            Mode::Watch => self.client.ask(&self.topic, index, known).await,
            Mode::Poll { turns, .. } => {
                // Nobody closes it; without a turn the question would only be less orderly.
                let _turn = turns.acquire().await;
                self.client.ask(&self.topic, 0, known).await
            }
        }
    }
}

/// The index to ask with next, after `previous` and what came back: the index of a trusted answer,
/// or `None`.
///
/// 0 asks for an answer at once. That is right after a failure, since the server that comes back
/// may be another with another history, and after an index that went backward, since what it
/// counted before is gone. An index of 0 would make Consul answer at once for ever, so 1 is asked
/// for instead. The index of a failed answer (Consul sends 1 with status 403 and 500) counts for
/// nothing.
pub(super) fn next_index(previous: u64, answered: Option<u64>) -> u64 {
    match answered {
        None => 0,
        Some(index) if index < previous => 0,
        Some(index) => index.max(1),
    }
}

/// Keeps a server that answers at once, whatever it is asked, from being asked in a tight loop:
/// a few questions are free, further ones need time between them. (The generic cell rate
/// algorithm; it needs no more than one point in time.)
#[derive(Debug, Default)]
struct Pace {
    /// When all free questions will be there again.
    full: Option<Instant>,
}

impl Pace {
    /// Questions that may follow each other at once.
    const BURST: u32 = 8;
    /// What each further one has to wait for. Also the longest that a change stays unseen.
    const GAP: Duration = Duration::from_millis(250);

    /// Takes a question; answers how long it has to wait from `now` on.
    fn admit(&mut self, now: Instant) -> Duration {
        let full = self.full.map_or(now, |full| full.max(now));
        self.full = Some(full + Self::GAP);
        (full - now).saturating_sub(Self::GAP * (Self::BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_rules() {
        let rows = [
            ("the first answer", 0, Some(7), 7),
            ("nothing new", 7, Some(7), 7),
            ("something new", 7, Some(9), 9),
            ("backward", 9, Some(7), 0),
            ("backward to nothing", 9, Some(0), 0),
            ("nothing ever happened", 0, Some(0), 1),
            ("failed", 9, None, 0),
            ("failed from the beginning", 0, None, 0),
        ];
        for (what, previous, answered, next) in rows {
            assert_eq!(next_index(previous, answered), next, "{what}");
        }
    }

    /// Asks as fast as admitted for as long as `answering` takes each time.
    fn questions_within(span: Duration, answering: Duration) -> u32 {
        let start = Instant::now();
        let mut now = start;
        let mut pace = Pace::default();
        let mut questions = 0;
        loop {
            now += pace.admit(now);
            if now - start > span {
                return questions;
            }
            questions += 1;
            now += answering;
        }
    }

    #[test]
    fn pace_bounds_a_tight_loop_and_leaves_slow_answers_alone() {
        let minute = Duration::from_secs(60);
        assert_eq!(questions_within(minute, Duration::ZERO), 248);
        assert_eq!(questions_within(minute, Duration::from_millis(1)), 248);
        assert_eq!(questions_within(minute, Duration::from_secs(1)), 61);
    }
}
