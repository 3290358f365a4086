//! The sweep: counts what the flow tables hold, frees what is over, and takes back the marks of
//! buckets that no key needs any more.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
};

use lb_common::{
    flow::{Half, Kind, State, WAYS, first_bucket, spilled},
    hash,
};

use super::{Entry, Fate, FlowTables, Judged};
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

impl FlowTables {
    /// A sweep by itself: [`Self::sweep_noting`] without what was opened.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn sweep(&self) -> Result<Census, KernelError> {
        self.sweep_noting(&mut Judged::nothing())
    }

    /// Counts what there is and frees what has been idle beyond its time; lets the marks of
    /// buckets follow, of which none may be taken back by two sweeps that run at a time. What has
    /// been opened since the last sweep with the same `judged` is in the census once.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn sweep_noting(&self, judged: &mut Judged) -> Result<Census, KernelError> {
        let mut census = Census {
            slots: u64::from(self.slots),
            ..Census::default()
        };
        let mut used4 = [0; State::COUNT];
        let mut used6 = [0; State::COUNT];
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
            judged.judge(
                false,
                entry,
                (self.clock.now(), self.clock.per_second()),
                &mut census,
            );
            self.take_stock(entry, &mut used4, &mut census)
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
            judged.judge(
                true,
                entry,
                (self.clock.now(), self.clock.per_second()),
                &mut census,
            );
            self.take_stock(entry, &mut used6, &mut census)
        })?;
        self.settle_marks::<[u32; 4], 4>(&self.v6, &spilled)?;
        judged.finish();
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
        used: &mut [u64; State::COUNT],
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
        }
        Fate::Keep
    }
}
