//! Which threads take new connections.
//!
//! As long as one thread has time for all of them, it takes them all: the first one *gathers* what
//! comes to the sockets of the others as well. One that is busy goes to sleep and is woken less
//! often than several that are not, and finds more to do each time. Once it has no time left, each
//! takes what comes to its own sockets, until all of them together have little to do again. Of
//! connections that last, the first hands the others their share either way ([`super::crew`]).

use std::{
    cell::Cell,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::{runtime::RuntimeMetrics, sync::watch};
use tracing::debug;

/// Between two looks at how busy threads are.
const LOOK: Duration = Duration::from_millis(200);

/// The first one's share of the time from which on it has none left, in hundredths.
const FULL: u64 = 95;

/// What all of them together need at most for the first to do it alone.
const LITTLE: u64 = 50;

/// Of all threads.
#[derive(Debug)]
pub(super) struct Gathering {
    is_gathered: watch::Sender<bool>,
    /// What each thread has to do, once it has begun.
    threads: Vec<OnceLock<RuntimeMetrics>>,
}

/// When connections of a socket are taken by a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Of the first thread's own.
    Always,
    /// Of another's own.
    Spread,
    /// Of another's, by the first.
    Gathered,
}

impl Gathering {
    /// Of so many threads: each takes its own until the first has begun.
    pub(super) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            is_gathered: watch::Sender::new(false),
            threads: (0..threads).map(|_| OnceLock::new()).collect(),
        })
    }

    /// A thread has begun, and says so on itself.
    pub(super) fn join(&self, number: usize) {
        // It begins once.
        let _ = self.threads[number].set(tokio::runtime::Handle::current().metrics());
    }

    /// The first thread takes all from now on; what is answered ends that. `None`: it is the only one.
    pub(super) fn lead(self: &Arc<Self>) -> Option<Leader> {
        if self.threads.len() < 2 {
            return None;
        }
        self.is_gathered.send_replace(true);
        Some(Leader {
            gathering: Arc::clone(self),
            last: Cell::new((Instant::now(), self.worked())),
            was_full: Cell::new(false),
        })
    }

    /// Waits until it is a turn, and answers with what waits until it is no more.
    pub(super) async fn comes(&self, turn: Turn) -> impl Future<Output = ()> + use<> {
        let mut known = self.is_gathered.subscribe();
        // The other end is `self`.
        let _ = known.wait_for(|gathered| turn.is(*gathered)).await;
        async move {
            let _ = known.wait_for(|gathered| !turn.is(*gathered)).await;
        }
    }

    /// What the first thread has worked, and all of them together.
    fn worked(&self) -> (Duration, Duration) {
        let each = self.threads.iter().map(|thread| {
            let metrics = thread.get();
            metrics.map_or(Duration::ZERO, |one| one.worker_total_busy_duration(0))
        });
        let first = each.clone().next().unwrap_or_default();
        (first, each.sum())
    }
}

#[cfg(test)]
impl Gathering {
    /// Whatever there is to do.
    pub(super) fn set(&self, gathered: bool) {
        self.is_gathered.send_replace(gathered);
    }
}

impl Turn {
    fn is(self, gathered: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Spread => !gathered,
            Self::Gathered => gathered,
        }
    }
}

/// The first thread, as long as it works.
#[derive(Debug)]
pub(super) struct Leader {
    gathering: Arc<Gathering>,
    /// When it was last looked, and what had been worked by then.
    last: Cell<(Instant, (Duration, Duration))>,
    /// The first had no time left then.
    was_full: Cell<bool>,
}

impl Leader {
    /// Looks whether it is to be otherwise from now on, if the last look was a while ago.
    pub(super) fn look(&self, now: Instant) {
        let (last, before) = self.last.get();
        let passed = now.saturating_duration_since(last);
        if passed < LOOK {
            return;
        }
        let worked = self.gathering.worked();
        self.last.set((now, worked));
        let share = |now: Duration, before: Duration| {
            let worked = now.saturating_sub(before);
            u64::try_from(worked.as_millis() * 100 / passed.as_millis()).unwrap_or(u64::MAX)
        };
        let first = share(worked.0, before.0);
        let all = share(worked.1, before.1);
        debug!(first, all, "threads of the proxy are busy");
        self.decide(first, all);
    }

    /// By the share of the first, and of all together. One burst is no reason.
    fn decide(&self, first: u64, all: u64) {
        let is_gathered = *self.gathering.is_gathered.borrow();
        let is_full = first >= FULL;
        let wanted = match is_gathered {
            true => !(is_full && self.was_full.get()),
            false => all < LITTLE,
        };
        self.was_full.set(is_full);
        if wanted != is_gathered {
            debug!(
                gathered = wanted,
                "threads of the proxy share their work otherwise"
            );
            self.gathering.is_gathered.send_replace(wanted);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.gathering.is_gathered.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares of the first and of all at one look after another, and whether all is gathered then.
    #[test]
    fn spread_once_the_first_has_no_time_left() {
        let gathering = Gathering::new(2);
        let is_gathered = || *gathering.is_gathered.borrow();
        assert!(!is_gathered(), "who leads has not begun");
        let leader = gathering.lead().unwrap();
        for (first, all, expected) in [
            (0, 0, true),
            (94, 94, true),
            (100, 110, true),
            (60, 60, true),
            (100, 100, true),
            (95, 95, false),
            (50, 100, false),
            (25, 50, false),
            (100, 120, false),
            (25, 49, true),
            (100, 100, true),
            (100, 100, false),
        ] {
            leader.decide(first, all);
            assert_eq!(is_gathered(), expected, "{first}, {all}");
        }
        leader.decide(0, 0);
        assert!(is_gathered());
        drop(leader);
        assert!(!is_gathered(), "who leads has ended");
    }

    #[test]
    fn alone_there_is_nothing_to_gather() {
        let gathering = Gathering::new(1);
        assert!(gathering.lead().is_none());
        assert!(!*gathering.is_gathered.borrow());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn turns_come_and_end() {
        let gathering = Gathering::new(2);
        let _always = gathering.comes(Turn::Always).await;
        let over = gathering.comes(Turn::Spread).await;
        let leader = gathering.lead().unwrap();
        over.await;
        let over = gathering.comes(Turn::Gathered).await;
        drop(leader);
        over.await;
        drop(gathering.comes(Turn::Spread).await);
    }
}
