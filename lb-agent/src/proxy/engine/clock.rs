//! Coarse deadlines. A request has several, and hardly ever meets one: setting and forgetting a
//! deadline must cost next to nothing, being woken by it may.
//!
//! All deadlines of a thread are in one list, and one task sleeps until the earliest of them.
//! Deadlines that were forgotten meanwhile make it look at the list once too often, no more.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use slab::Slab;
use tokio::sync::Notify;

/// Between two looks at the list: how late a deadline may be noticed.
const GRAIN: Duration = Duration::from_millis(5);

/// The deadlines of one thread.
#[derive(Debug)]
pub(super) struct Clock {
    entries: RefCell<Slab<Entry>>,
    /// When the task wakes.
    next: Cell<Option<Instant>>,
    earlier: Notify,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    met: bool,
    waker: Waker,
}

impl Clock {
    /// Starts one on this thread, which must run local tasks; it ends with the last user.
    pub(super) fn start() -> Rc<Self> {
        let clock = Rc::new(Self {
            entries: RefCell::default(),
            next: Cell::new(None),
            earlier: Notify::new(),
        });
        tokio::task::spawn_local(Self::run(Rc::downgrade(&clock)));
        clock
    }

    async fn run(clock: Weak<Self>) {
        loop {
            // Without a user for a second it looks whether there is still a clock.
            let Some(held) = clock.upgrade() else { return };
            let idle = Instant::now() + Duration::from_secs(1);
            let until = held.next.get().map_or(idle, |next| next.min(idle));
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = held.earlier.notified() => continue,
            }
            if held.next.get().is_some_and(|next| next <= Instant::now()) {
                held.look();
                drop(held);
                tokio::time::sleep(GRAIN).await;
            }
        }
    }

    fn look(&self) {
        let now = Instant::now();
        let mut next = None;
        let mut due = Vec::new();
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.met {
                continue;
            }
            if entry.at <= now {
                entry.met = true;
                due.push(entry.waker.clone());
            } else if next.is_none_or(|next| entry.at < next) {
                next = Some(entry.at);
            }
        }
        self.next.set(next);
        due.into_iter().for_each(Waker::wake);
    }

    fn expect(&self, at: Instant) {
        if self.next.get().is_none_or(|next| at < next) {
            self.next.set(Some(at));
            self.earlier.notify_one();
        }
    }
}

/// One deadline. Nothing is set before somebody waits for it.
#[derive(Debug)]
pub(super) struct Deadline {
    clock: Rc<Clock>,
    at: Instant,
    key: Option<usize>,
}

impl Deadline {
    pub(super) fn new(clock: &Rc<Clock>, at: Instant) -> Self {
        Self {
            clock: Rc::clone(clock),
            at,
            key: None,
        }
    }

    /// Moves it.
    pub(super) fn set(&mut self, at: Instant) {
        self.at = at;
        if let Some(key) = self.key {
            let mut entries = self.clock.entries.borrow_mut();
            let entry = &mut entries[key];
            (entry.at, entry.met) = (at, false);
            drop(entries);
            self.clock.expect(at);
        }
    }

    /// Ready once it is met, which is noticed by the clock alone, never by the first look.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut entries = self.clock.entries.borrow_mut();
        match self.key {
            Some(key) => {
                let entry = &mut entries[key];
                if entry.met {
                    return Poll::Ready(());
                }
                entry.waker.clone_from(context.waker());
            }
            None => {
                self.key = Some(entries.insert(Entry {
                    at: self.at,
                    met: false,
                    waker: context.waker().clone(),
                }));
                drop(entries);
                self.clock.expect(self.at);
            }
        }
        Poll::Pending
    }

    /// Waits for it.
    pub(super) async fn met(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.entries.borrow_mut().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn in_their_order_and_moved() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let clock = Clock::start();
                let begun = Instant::now();
                let at = |ms| begun + Duration::from_millis(ms);
                let mut late = Deadline::new(&clock, at(80));
                let mut soon = Deadline::new(&clock, at(20));
                let mut moved = Deadline::new(&clock, at(10));
                tokio::select! {
                    biased;
                    () = late.met() => panic!("late came first"),
                    () = async { moved.set(at(60)); moved.met().await } => panic!("moved came first"),
                    () = soon.met() => {}
                }
                assert!(begun.elapsed() >= Duration::from_millis(20));
                moved.met().await;
                assert!(begun.elapsed() >= Duration::from_millis(60));
                late.met().await;
                let over = begun.elapsed();
                assert!(over >= Duration::from_millis(80) && over < Duration::from_secs(1));
                drop((late, soon, moved));
                assert!(clock.entries.borrow().is_empty());
            })
            .await;
    }
}
