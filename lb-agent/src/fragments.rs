//! Keeps fragments that come before the first one of their packet, which alone has the ports, and
//! gives them back to the programs once that has come.
//!
//! Bounded in number, bytes and time; what does not fit goes the way it went without an agent: to
//! the node's stack.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tracing::warn;

use crate::domain::fragment::{Deposit, Early};

/// How long a fragment is kept. Fragments of a packet are sent within a breath; what is late by more
/// is lost, and a receiver would keep its part for up to 30 s for nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks for first fragments while something is kept.
const LOOK: Duration = Duration::from_millis(1);
/// Between two renewals of the kernel's switch, which falls after five seconds.
const RENEW: Duration = Duration::from_secs(1);
/// Bytes of frames that are kept at a time.
const MOST_BYTES: usize = 8 << 20;
/// Frames that have been given back and are remembered, so that none goes in a circle.
const MOST_REMEMBERED: usize = 4096;

/// What has become of early fragments since the agent started.
#[derive(Debug, Default)]
pub struct FragmentStats {
    followed: AtomicU64,
    expired: AtomicU64,
    lost: AtomicU64,
}

impl FragmentStats {
    /// Given back once their first fragment had come.
    pub fn followed(&self) -> u64 {
        self.followed.load(Ordering::Relaxed)
    }

    /// Given up, since it did not come in time.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Given up for want of room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Keeps fragments until told to stop.
pub async fn keep<D: Deposit>(
    mut deposit: D,
    stats: Arc<FragmentStats>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut kept = Kept::new(stats);
    let mut renewed: Option<Instant> = None;
    loop {
        if renewed.is_none_or(|at| at.elapsed() >= RENEW) {
            if let Err(error) = deposit.switch(true) {
                warn!(%error, "fragments that come out of order are no longer kept");
                break;
            }
            renewed = Some(Instant::now());
        }
        let pause = if kept.is_empty() { RENEW } else { LOOK };
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            () = deposit.readable() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let now = Instant::now();
        let lost = deposit.drain(&mut |early| kept.add(early, now));
        kept.stats.lost.fetch_add(lost, Ordering::Relaxed);
        if !kept.settle(&deposit, now) {
            break;
        }
    }
    // What comes between the last look and this is lost; the switch falls by itself otherwise.
    if let Err(error) = deposit.switch(false) {
        warn!(%error, "the programs may hand over fragments for some seconds more");
    }
    let _stopped = shutdown.wait_for(|stop| *stop).await;
}

/// The fragments that are kept at this moment.
struct Kept {
    waiting: VecDeque<(Instant, Early)>,
    bytes: usize,
    /// Of frames that were given back, by a hash of packet and bytes.
    remembered: HashMap<u64, Instant>,
    stats: Arc<FragmentStats>,
}

impl Kept {
    fn new(stats: Arc<FragmentStats>) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            remembered: HashMap::new(),
            stats,
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a frame in. One that was given back a moment ago has lost its first fragment again, and
    /// is given up.
    fn add(&mut self, early: Early, now: Instant) {
        if self.remembered.contains_key(&fingerprint(&early)) {
            self.stats.expired.fetch_add(1, Ordering::Relaxed);
        } else if self.bytes + early.frame.len() > MOST_BYTES {
            self.stats.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.bytes += early.frame.len();
            self.waiting.push_back((now, early));
        }
    }

    /// Gives back what has its first fragment by now, and gives up what waits too long. `false`: the
    /// kernel takes nothing back.
    fn settle(&mut self, deposit: &impl Deposit, now: Instant) -> bool {
        self.remembered
            .retain(|_, at| now.duration_since(*at) < PATIENCE);
        let mut possible = true;
        for (since, early) in std::mem::take(&mut self.waiting) {
            if possible && deposit.has_first(&early.packet) {
                self.bytes -= early.frame.len();
                if self.remembered.len() < MOST_REMEMBERED {
                    self.remembered.insert(fingerprint(&early), now);
                }
                match deposit.give_back(&early) {
                    Ok(()) => {
                        self.stats.followed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        warn!(%error, "fragments that come out of order are no longer kept");
                        self.stats.lost.fetch_add(1, Ordering::Relaxed);
                        possible = false;
                    }
                }
            } else if now.duration_since(since) >= PATIENCE {
                self.bytes -= early.frame.len();
                self.stats.expired.fetch_add(1, Ordering::Relaxed);
            } else {
                self.waiting.push_back((since, early));
            }
        }
        possible
    }
}

fn fingerprint(early: &Early) -> u64 {
    let mut hasher = DefaultHasher::new();
    early.packet.hash(&mut hasher);
    early.frame.hash(&mut hasher);
    hasher.finish()
}
