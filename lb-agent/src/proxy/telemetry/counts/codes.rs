//! Requests by status and outcome, without a lock and in little memory.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::domain::http::exchange::Outcome;

/// Pairs of status and outcome that are told apart. A backend that answers with more than these
/// must not cost memory without bound.
const SLOTS: usize = 24;

/// A table whose slots are claimed by the first request of a pair. The last slot takes what finds
/// none, under status 0.
#[derive(Debug, Default)]
pub struct Codes {
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    /// 0: free; else 1 + the outcome's place, below it the status.
    pair: AtomicU32,
    count: AtomicU64,
}

impl Codes {
    /// Counts a request.
    pub fn add(&self, status: u16, outcome: Outcome) {
        self.add_to(pack(status, outcome), 1);
    }

    /// Counts what another has counted, too.
    pub(super) fn absorb(&self, other: &Self) {
        for slot in &other.slots {
            let count = slot.count.load(Relaxed);
            if count > 0 {
                self.add_to(slot.pair.load(Relaxed), count);
            }
        }
    }

    /// A pair of 0 is what has found no slot.
    fn add_to(&self, pair: u32, count: u64) {
        let (last, others) = self.slots.split_last().expect("there are slots");
        if pair == 0 {
            last.count.fetch_add(count, Relaxed);
            return;
        }
        let found = others.iter().find(|slot| {
            let held = slot.pair.load(Relaxed);
            held == pair
                || held == 0
                    && match slot.pair.compare_exchange(0, pair, Relaxed, Relaxed) {
                        Ok(_) => true,
                        Err(other) => other == pair,
                    }
        });
        found.unwrap_or(last).count.fetch_add(count, Relaxed);
    }

    /// Status, outcome (`None`: of several) and count of what there was.
    pub fn all(&self) -> Vec<(u16, Option<Outcome>, u64)> {
        let all = self.slots.iter().map(|slot| {
            let (status, outcome) = unpack(slot.pair.load(Relaxed));
            (status, outcome, slot.count.load(Relaxed))
        });
        all.filter(|(.., count)| *count > 0).collect()
    }
}

/// Calls of gRPC by `grpc-status`: 0 to 16, and what is none of these or was not sent.
#[derive(Debug, Default)]
pub struct GrpcCodes([AtomicU64; GRPC_CODES + 1]);

/// Codes that gRPC knows.
const GRPC_CODES: usize = 17;

impl GrpcCodes {
    /// Counts a call.
    pub fn add(&self, status: Option<u32>) {
        let place = status.map_or(GRPC_CODES, |status| (status as usize).min(GRPC_CODES));
        self.0[place].fetch_add(1, Relaxed);
    }

    /// Counts what another has counted, too.
    pub(super) fn absorb(&self, other: &Self) {
        for (sum, part) in self.0.iter().zip(&other.0) {
            sum.fetch_add(part.load(Relaxed), Relaxed);
        }
    }

    /// Code (`None`: another, or none) and count of what there was.
    pub fn all(&self) -> impl Iterator<Item = (Option<usize>, u64)> {
        let all = self.0.iter().enumerate();
        all.map(|(code, count)| {
            (
                Some(code).filter(|code| *code < GRPC_CODES),
                count.load(Relaxed),
            )
        })
        .filter(|(_, count)| *count > 0)
    }
}

fn pack(status: u16, outcome: Outcome) -> u32 {
    let place = Outcome::ALL.iter().position(|known| *known == outcome);
    let place = place.expect("all outcomes are among them") as u32;
    (1 + place) << 16 | u32::from(status)
}

fn unpack(pair: u32) -> (u16, Option<Outcome>) {
    let place = (pair >> 16).checked_sub(1);
    let outcome = place.and_then(|place| Outcome::ALL.get(place as usize).copied());
    (pair as u16, outcome)
}
