//! The sweep: counts what the flow tables hold, frees what is over, and takes back the marks of
//! buckets that no key needs any more.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, AtomicU64, Ordering},
};

use lb_common::{
    IPPROTO_TCP,
    flow::{Half, Kind, State, Tag, WAYS, first_bucket, spilled},
    hash,
};

use super::{Entry, Fate, FlowTables};
use crate::domain::kernel::{Census, KernelError};

/// Buckets of one table some of whose keys lie in their second bucket.
struct Spilled {
    mask: u32,
    bits: Vec<u64>,
}

impl Spilled {
    fn new(slots: u32) -> Self {
        let buckets = slots / WAYS;
        Self {
            mask: buckets - 1,
            bits: vec![0; buckets.div_ceil(64) as usize],
        }
    }

    /// Takes note of a half whose key has this hash.
    fn note<A>(&mut self, entry: &Entry<A>, hash: u64) {
        let bucket = first_bucket(hash, self.mask);
        if entry.index / WAYS != bucket
            && let Some(word) = self.bits.get_mut(bucket as usize / 64)
        {
            *word |= 1 << (bucket % 64);
        }
    }

    fn has(&self, bucket: u32) -> bool {
        let word = self.bits.get(bucket as usize / 64);
        word.is_some_and(|word| word & (1 << (bucket % 64)) != 0)
    }
}

/// When the last sweep began, in ticks; with [`Self::SWEPT`], or 0: there was none.
#[derive(Debug, Default)]
pub(super) struct LastSweep(AtomicU64);

impl LastSweep {
    const SWEPT: u64 = 1 << 32;

    /// Notes that one begins `now`; answers with the ticks since the last one.
    fn begin(&self, now: u32) -> Option<u32> {
        let last = self.0.swap(u64::from(now) | Self::SWEPT, Ordering::Relaxed);
        (last != 0).then(|| now.wrapping_sub(last as u32))
    }
}

/// A span of idle times, in ticks: which flows a pass counts as failed, so that the next one does not
/// count them again.
#[derive(Clone, Copy, Default)]
struct News {
    now: u32,
    /// Ticks since the pass before; 0: there was none, and nothing is news.
    since: u32,
    /// Ticks that an answer may take.
    grace: u32,
}

impl News {
    /// Whether a connection has failed since the pass before: it was reset, or the backend has left
    /// it unanswered for longer than the grace.
    fn is_failure(self, tag: Tag, seen: u32) -> bool {
        let idle = self.now.wrapping_sub(seen);
        let silent_for = match tag.state() {
            Some(State::Reset) => Some(idle),
            Some(State::HalfOpen) => idle.checked_sub(self.grace),
            _ => None,
        };
        // What was noted after `now` was read is the next pass's.
        tag.proto() == IPPROTO_TCP && silent_for.is_some_and(|ticks| ticks < self.since)
    }
}

impl FlowTables {
    /// Counts what there is and frees what has been idle beyond its time; lets the marks of
    /// buckets follow, of which none may be taken back by two sweeps that run at a time.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn sweep(&self) -> Result<Census, KernelError> {
        let mut census = Census {
            slots: u64::from(self.slots),
            ..Census::default()
        };
        let now = self.clock.now();
        let news = News {
            now,
            since: self.last_sweep.begin(now).unwrap_or(0),
            grace: self.clock.per_second(),
        };
        let mut used4 = [0; 9];
        let mut used6 = [0; 9];
        let mut spilled = Spilled::new(self.slots);
        self.visit::<u32, 0>(&self.v4, |entry| {
            let Half {
                saddr,
                daddr,
                ports,
                ..
            } = entry.half;
            let hash = hash::flow4(self.seed, saddr, daddr, ports, entry.tag.proto());
            spilled.note(entry, hash);
            self.take_stock(entry, news, &mut used4, &mut census)
        })?;
        self.settle_marks::<u32, 0>(&self.v4, &spilled)?;
        let mut spilled = Spilled::new(self.slots);
        self.visit::<[u32; 4], 4>(&self.v6, |entry| {
            let Half {
                saddr,
                daddr,
                ports,
                ..
            } = &entry.half;
            let hash = hash::flow6(self.seed, saddr, daddr, *ports, entry.tag.proto());
            spilled.note(entry, hash);
            self.take_stock(entry, news, &mut used6, &mut census)
        })?;
        self.settle_marks::<[u32; 4], 4>(&self.v6, &spilled)?;
        census.used4 = used4;
        census.used6 = used6;
        Ok(census)
    }

    /// Takes marks back, in two steps: what has not been needed in this pass ages, and what has
    /// aged and was not needed either, nor renewed by a program, goes. A program publishes a key
    /// within microseconds of its mark, so one of the passes has met it.
    fn settle_marks<A, const PAD: usize>(
        &self,
        map: &OwnedFd,
        spilled: &Spilled,
    ) -> Result<(), KernelError> {
        let mut bucket = 0;
        self.each_slot::<A, PAD>(map, |slot| {
            let number = bucket / WAYS;
            let first = bucket % WAYS == 0;
            bucket += 1;
            if !first || spilled.has(number) {
                return;
            }
            // SAFETY: mapped, and aligned to two bytes; the programs write it whole.
            let mark = unsafe { AtomicU16::from_ptr(&raw mut (*slot).half.spilled) };
            let next = match mark.load(Ordering::Acquire) {
                spilled::YES => spilled::AGING,
                spilled::AGING => spilled::NO,
                _ => return,
            };
            let held = if next == spilled::NO {
                spilled::AGING
            } else {
                spilled::YES
            };
            let _ = mark.compare_exchange(held, next, Ordering::AcqRel, Ordering::Acquire);
        })
    }

    fn take_stock<A>(
        &self,
        entry: &Entry<A>,
        news: News,
        used: &mut [u64; 9],
        census: &mut Census,
    ) -> Fate {
        let Entry { tag, half, .. } = entry;
        let now = self.clock.now();
        if self
            .lifetimes
            .is_over(tag.proto(), tag.state_bits(), now, half.seen)
        {
            census.expired += 1;
            return Fate::Expire;
        }
        if let Some(count) = used.get_mut(usize::from(tag.state_bits())) {
            *count += 1;
        }
        if tag.kind() == Some(Kind::Forward) {
            *census.backends.entry(half.backend).or_default() += 1;
            if news.is_failure(*tag, half.seen) {
                *census.failed.entry(half.backend).or_default() += 1;
            }
        }
        Fate::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(proto: u8, state: State) -> Tag {
        Tag::new(0, 0, Kind::Forward, proto, state)
    }

    /// Passes every 500 ticks, a grace of 100, and a flow whose last packet came at tick `seen`: the
    /// one pass that counts it.
    #[test]
    fn a_failure_is_counted_by_one_pass() {
        let udp = 17;
        let rows = [
            (IPPROTO_TCP, State::Reset, 1000, Some(1000)),
            (IPPROTO_TCP, State::Reset, 1001, Some(1500)),
            (IPPROTO_TCP, State::Reset, 1499, Some(1500)),
            (IPPROTO_TCP, State::HalfOpen, 900, Some(1000)),
            (IPPROTO_TCP, State::HalfOpen, 901, Some(1500)),
            (IPPROTO_TCP, State::HalfOpen, 1400, Some(1500)),
            (IPPROTO_TCP, State::Established, 1001, None),
            (IPPROTO_TCP, State::Finished, 1001, None),
            (udp, State::HalfOpen, 901, None),
        ];
        for (proto, state, seen, expected) in rows {
            let last = LastSweep::default();
            let mut counted = Vec::new();
            for now in (500_u32..4000).step_by(500) {
                let since = last.begin(now).unwrap_or(0);
                let news = News {
                    now,
                    since,
                    grace: 100,
                };
                if now >= seen && news.is_failure(tag(proto, state), seen) {
                    counted.push(now);
                }
            }
            assert_eq!(counted, Vec::from_iter(expected), "{state:?} {seen}");
        }
        // Before there was a pass, nothing is known to be news.
        assert_eq!(LastSweep::default().begin(7), None);
    }
}
