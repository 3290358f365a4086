//! The rounds that a thread makes through its connections: whoever has been at something for too
//! long is woken, to end.
//!
//! A request sets no timer and asks no clock. One timer a thread drives all bounds, and rests while
//! there is no connection.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use slab::Slab;
use tokio::{sync::Notify, time::MissedTickBehavior};

use super::{
    ending::Ending,
    life::{Life, Overdue, Pace, Time},
    present::Present,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Rounds {
    pace: Pace,
    pub(super) ending: Arc<Ending>,
    began: Instant,
    time: Time,
    /// When it was seen that all is to end.
    stopped: Cell<Option<u64>>,
    seats: RefCell<Slab<Visited>>,
    first: Notify,
}

#[derive(Debug)]
struct Visited {
    what: What,
    waker: Waker,
}

#[derive(Debug)]
enum What {
    Connection(Arc<Life>),
    /// Of a connection of HTTP/2; since when it has not moved.
    Stream(Arc<Life>, u64),
}

impl Rounds {
    /// Begins to make them on this thread, until its runtime ends.
    pub(super) fn begin(pace: Pace, ending: &Arc<Ending>) -> Rc<Self> {
        let rounds = Rc::new(Self {
            pace,
            ending: Arc::clone(ending),
            began: Instant::now(),
            time: Arc::new(AtomicU64::new(0)),
            stopped: Cell::new(None),
            seats: RefCell::default(),
            first: Notify::new(),
        });
        tokio::task::spawn_local(Rc::clone(&rounds).make());
        rounds
    }

    async fn make(self: Rc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(self.pace.grain));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.seats.borrow().is_empty() {
                self.first.notified().await;
            }
            tick.tick().await;
            self.look();
        }
    }

    fn tell_time(&self) {
        let passed = self.began.elapsed().as_millis();
        self.time
            .store(u64::try_from(passed).unwrap_or(u64::MAX), Relaxed);
    }

    fn look(&self) {
        self.tell_time();
        let (now, stopped) = (self.time.load(Relaxed), self.stopped());
        for (_, visited) in self.seats.borrow().iter() {
            let due = match &visited.what {
                What::Connection(life) => life.is_due(&self.pace, stopped),
                What::Stream(life, moved) => self.has_stalled(life, *moved, now),
            };
            if due {
                visited.waker.wake_by_ref();
            }
        }
    }

    /// One grain more than a connection has, so that who waits for a backend learns it from there.
    fn has_stalled(&self, life: &Life, moved: u64, now: u64) -> bool {
        now.saturating_sub(moved) >= life.patience().saturating_add(self.pace.grain * 2)
    }

    /// A connection that begins now.
    pub(super) fn greet(&self, present: Present) -> Arc<Life> {
        if self.seats.borrow().is_empty() {
            self.tell_time();
        }
        Life::new(&self.time, self.pace.keep_alive, present)
    }

    /// Visits a connection from now on.
    pub(super) fn join(self: &Rc<Self>, life: &Arc<Life>) -> Seat {
        self.add(What::Connection(Arc::clone(life)))
    }

    /// Visits a stream of a connection that has just moved.
    pub(super) fn join_stream(self: &Rc<Self>, life: &Arc<Life>) -> Seat {
        self.add(What::Stream(Arc::clone(life), self.time.load(Relaxed)))
    }

    fn add(self: &Rc<Self>, what: What) -> Seat {
        let mut seats = self.seats.borrow_mut();
        if seats.is_empty() {
            self.first.notify_one();
        }
        let waker = Waker::noop().clone();
        Seat {
            key: seats.insert(Visited { what, waker }),
            rounds: Rc::clone(self),
        }
    }

    /// When it was seen that all is to end.
    pub(super) fn stopped(&self) -> Option<u64> {
        if self.stopped.get().is_none() && self.ending.has_begun() {
            self.tell_time();
            self.stopped.set(Some(self.time.load(Relaxed)));
        }
        self.stopped.get()
    }

    /// Requests closer to each other than this are of a busy client.
    pub(super) fn calm(&self) -> u64 {
        self.pace.grain * 2
    }
}

/// A place among those that are visited, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    rounds: Rc<Rounds>,
    key: usize,
}

impl Seat {
    /// Has this task woken.
    pub(super) fn attend(&self, context: &Context<'_>) {
        let mut seats = self.rounds.seats.borrow_mut();
        let waker = &mut seats[self.key].waker;
        if !waker.will_wake(context.waker()) {
            waker.clone_from(context.waker());
        }
    }

    /// Whether the connection has to end.
    pub(super) fn overdue(&self) -> Option<Overdue> {
        match &self.rounds.seats.borrow()[self.key].what {
            What::Connection(life) => life.overdue(&self.rounds.pace, self.rounds.stopped()),
            What::Stream(..) => None,
        }
    }

    /// A stream that is polled has moved, unless it was the round that woke it. Answers whether it
    /// has not for too long.
    pub(super) fn stalled(&self) -> bool {
        let now = self.rounds.time.load(Relaxed);
        match &mut self.rounds.seats.borrow_mut()[self.key].what {
            What::Connection(_) => false,
            What::Stream(life, moved) => {
                let stalled = self.rounds.has_stalled(life, *moved, now);
                if !stalled {
                    *moved = now;
                }
                stalled
            }
        }
    }

    /// Has the future complete, unless the connection has to end before that.
    ///
    /// # Errors
    ///
    /// It has to end.
    pub(super) async fn within<F: Future>(&self, future: F) -> Result<F::Output, Overdue> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            self.attend(context);
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            match self.overdue() {
                Some(overdue) => Poll::Ready(Err(overdue)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let left = self.rounds.seats.borrow_mut().remove(self.key);
        // What it held may be the last of its kind, and look here when it goes.
        drop(left);
    }
}
