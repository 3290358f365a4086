//! Hands the kernel's packet events to those who watch.
//!
//! One task owns the kernel's side. Every watcher has a filter in the kernel, so that only what
//! somebody wants leaves it; an event that one of them wants goes to all whose filters match. With
//! the last watcher the kernel's switch falls.

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lb_common::trace::TRACE_SLOTS;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{error, info};

use crate::domain::{
    kernel::KernelError,
    trace::{PacketEvent, PacketFilter, SlotCounts, Tap},
};

/// Between two looks into the ring buffer.
const LOOK: Duration = Duration::from_millis(10);
/// Between two renewals of the kernel's switch, which falls after five seconds.
const RENEW: Duration = Duration::from_secs(1);
/// Events taken out at a time, before others have their turn.
const BATCH: usize = 8192;
/// Events that wait for a watcher; what does not fit is lost to it.
const BACKLOG: usize = 4096;
/// Watchers at a time.
pub const MOST_WATCHERS: usize = TRACE_SLOTS as usize;

/// Why nobody more can watch. The text is a sentence for a person.
#[derive(Debug, Error)]
pub enum WatchError {
    /// All filters are in use.
    #[error("{MOST_WATCHERS} traces and captures are running already; end one of them first")]
    Busy,
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The agent is on its way out.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// What has been told so far, for the metrics.
#[derive(Debug, Default)]
pub struct WatchStats {
    watchers: AtomicU64,
    events: AtomicU64,
    lost: AtomicU64,
}

impl WatchStats {
    /// Those who watch at this moment.
    pub fn watchers(&self) -> u64 {
        self.watchers.load(Ordering::Relaxed)
    }

    /// Events handed to watchers since the agent started; one that two of them got counts twice.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Events that a watcher wanted and did not get.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// One watcher's end: events as they come. Dropped, it has ended.
#[derive(Debug)]
pub struct Watcher {
    events: mpsc::Receiver<PacketEvent>,
    lost: Arc<AtomicU64>,
}

impl Watcher {
    /// Waits for events and takes at most `most`; none is the end: the agent shuts down.
    pub async fn next(&mut self, most: usize) -> Vec<PacketEvent> {
        let mut events = Vec::new();
        self.events.recv_many(&mut events, most).await;
        events
    }

    /// Events that were wanted and not told, up to now.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Request {
    filter: PacketFilter,
    reply: oneshot::Sender<Result<Watcher, WatchError>>,
}

/// Asks to watch. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    requests: mpsc::Sender<Request>,
}

impl WatchHandle {
    /// Watches packets from now on.
    ///
    /// # Errors
    ///
    /// Too many watch already, or the kernel refuses.
    pub async fn watch(&self, filter: PacketFilter) -> Result<Watcher, WatchError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { filter, reply };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| WatchError::ShuttingDown)?;
        answer.await.map_err(|_| WatchError::ShuttingDown)?
    }
}

/// The two ends: who asks, and the task that answers.
pub fn channel<T: Tap>(tap: T, stats: Arc<WatchStats>) -> (WatchHandle, Watch<T>) {
    let (requests, receiver) = mpsc::channel(8);
    let watch = Watch {
        tap,
        slots: [const { None }; MOST_WATCHERS],
        requests: receiver,
        stats,
        failing: false,
    };
    (WatchHandle { requests }, watch)
}

/// A watcher as the task knows it.
struct Slot {
    filter: PacketFilter,
    events: mpsc::Sender<PacketEvent>,
    lost: Arc<AtomicU64>,
    /// The kernel's counters when they were last read.
    counts: SlotCounts,
}

/// The task. See the module's documentation.
pub struct Watch<T> {
    tap: T,
    slots: [Option<Slot>; MOST_WATCHERS],
    requests: mpsc::Receiver<Request>,
    stats: Arc<WatchStats>,
    /// The kernel's refusal has been told.
    failing: bool,
}

impl<T: Tap> Watch<T> {
    /// Works until `shutdown` completes; then every watcher has come to its end.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut renewed = Instant::now();
        loop {
            let watched = self.slots.iter().any(Option::is_some);
            tokio::select! {
                () = &mut shutdown => break,
                request = self.requests.recv() => match request {
                    Some(request) => self.admit(request),
                    None => break,
                },
                () = tokio::time::sleep(LOOK), if watched => {
                    self.look();
                    if renewed.elapsed() >= RENEW {
                        renewed = Instant::now();
                        let renewed = self.tap.switch(true);
                        self.tell(renewed);
                    }
                    self.dismiss();
                }
            }
        }
        for slot in 0..MOST_WATCHERS {
            self.end(slot);
        }
    }

    fn admit(&mut self, Request { filter, reply }: Request) {
        let answer = self.begin(filter);
        if let Err(Ok(_)) = reply.send(answer) {
            // Who asked has gone away meanwhile.
            self.dismiss();
        }
    }

    fn begin(&mut self, filter: PacketFilter) -> Result<Watcher, WatchError> {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.ok_or(WatchError::Busy)?;
        let counts = self.tap.counts()?.get(slot).copied().unwrap_or_default();
        // What lies in the buffer is older than this watcher.
        self.look();
        self.tap.set(slot, Some(&filter))?;
        if let Err(error) = self.tap.switch(true) {
            let undone = self.tap.set(slot, None);
            self.tell(undone);
            return Err(error.into());
        }
        info!(slot, ?filter, "packets are watched");
        let (sender, events) = mpsc::channel(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        self.slots[slot] = Some(Slot {
            filter,
            events: sender,
            lost: lost.clone(),
            counts,
        });
        self.stats.watchers.fetch_add(1, Ordering::Relaxed);
        Ok(Watcher { events, lost })
    }

    /// Hands out what has come in, and notes what was lost.
    fn look(&mut self) {
        let Self {
            tap, slots, stats, ..
        } = self;
        tap.drain(BATCH, &mut |event| {
            for slot in slots.iter().flatten() {
                if !slot.filter.wants(&event) {
                    continue;
                }
                match slot.events.try_send(for_watcher(&event, &slot.filter)) {
                    Ok(()) => drop(stats.events.fetch_add(1, Ordering::Relaxed)),
                    Err(mpsc::error::TrySendError::Full(_)) => note_lost(slot, stats, 1),
                    // Gone; it is dismissed in a moment.
                    Err(mpsc::error::TrySendError::Closed(_)) => {}
                }
            }
        });
        if self.slots.iter().all(Option::is_none) {
            return;
        }
        match self.tap.counts() {
            Ok(counts) => {
                for (slot, counts) in self.slots.iter_mut().zip(counts) {
                    if let Some(slot) = slot {
                        let lost = counts.lost.saturating_sub(slot.counts.lost);
                        slot.counts = counts;
                        note_lost(slot, &self.stats, lost);
                    }
                }
            }
            Err(error) => self.tell(Err(error)),
        }
    }

    /// Ends what nobody listens to any more.
    fn dismiss(&mut self) {
        for slot in 0..MOST_WATCHERS {
            let gone = self.slots[slot]
                .as_ref()
                .is_some_and(|slot| slot.events.is_closed());
            if gone {
                self.end(slot);
            }
        }
    }

    fn end(&mut self, slot: usize) {
        if self.slots[slot].take().is_none() {
            return;
        }
        info!(slot, "packets are watched no longer");
        self.stats.watchers.fetch_sub(1, Ordering::Relaxed);
        if self.slots.iter().all(Option::is_none) {
            let switched = self.tap.switch(false);
            self.tell(switched);
        }
        let cleared = self.tap.set(slot, None);
        self.tell(cleared);
    }

    /// Logs a refusal of the kernel, the first of a row only.
    fn tell(&mut self, result: Result<(), KernelError>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                error!(%error, "the trace does not work as it should");
            }
            Err(_) => {}
        }
    }
}

fn note_lost(slot: &Slot, stats: &WatchStats, lost: u64) {
    slot.lost.fetch_add(lost, Ordering::Relaxed);
    stats.lost.fetch_add(lost, Ordering::Relaxed);
}

/// The event with as many bytes as this watcher asked for: another may have asked for more.
fn for_watcher(event: &PacketEvent, filter: &PacketFilter) -> PacketEvent {
    let mut event = event.clone();
    event.bytes.truncate(filter.snap.into());
    event
}
