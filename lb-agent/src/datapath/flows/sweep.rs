//! The sweep: counts what the flow tables hold, frees what is over, and takes back the marks of
//! buckets that no key needs any more.

use std::{
    ops::RangeInclusive,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
};

use lb_common::{
    flow::{Half, Kind, Slot, State, WAYS, first_bucket, spilled},
    hash,
};

use super::{Entry, Fate, FlowTables, Judged, visit_slot};
use crate::domain::kernel::{Census, KernelError};

/// Buckets of one table some of whose keys lie in their second bucket.
struct Spilled {
    mask: u32,
    bits: Vec<u64>,
    /// From the first slot with a mark to the last one.
    marked: Option<RangeInclusive<u32>>,
}

impl Spilled {
    fn new(slots: u32) -> Self {
        let buckets = slots / WAYS;
        Self {
            mask: buckets - 1,
            bits: vec![0; buckets.div_ceil(64) as usize],
            marked: None,
        }
    }

    /// Takes note of a slot that its bucket's mark stands in.
    fn note_mark<A, const PAD: usize>(&mut self, index: u32, slot: *mut Slot<A, PAD>) {
        if index.is_multiple_of(WAYS) && mark_of(slot).load(Ordering::Acquire) != spilled::NO {
            let first = self.marked.as_ref().map_or(index, |known| *known.start());
            self.marked = Some(first..=index);
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
        let mut census = self.nothing();
        let mut used4 = [0; State::COUNT];
        let mut used6 = [0; State::COUNT];
        let per_second = self.clock.per_second();
        let marked4 = self.sweep_table::<u32, 0>(
            &self.v4,
            |half, protocol| hash::flow4(self.seed, half.saddr, half.daddr, half.ports, protocol),
            |entry| {
                judged.judge(false, entry, (self.clock.now(), per_second), &mut census);
                self.take_stock(entry, &mut used4, &mut census)
            },
        )?;
        let marked6 = self.sweep_table::<[u32; 4], 4>(
            &self.v6,
            |half, protocol| hash::flow6(self.seed, &half.saddr, &half.daddr, half.ports, protocol),
            |entry| {
                judged.judge(true, entry, (self.clock.now(), per_second), &mut census);
                self.take_stock(entry, &mut used6, &mut census)
            },
        )?;
        let live = used4.iter().chain(&used6).sum::<u64>() + census.expired;
        judged.finish(live > 0 || marked4 || marked6);
        census.used4 = used4;
        census.used6 = used6;
        Ok(census)
    }

    /// Calls `look` for every live half of a table and settles its marks; answers whether there were
    /// any.
    fn sweep_table<A: Copy, const PAD: usize>(
        &self,
        map: &OwnedFd,
        hash: impl Fn(&Half<A>, u8) -> u64,
        mut look: impl FnMut(&Entry<A>) -> Fate,
    ) -> Result<bool, KernelError> {
        let mut spilled = Spilled::new(self.slots);
        self.each_slot::<A, PAD>(
            map,
            |_| true,
            |index, slot| {
                spilled.note_mark(index, slot);
                visit_slot(slot, index, &mut |entry| {
                    spilled.note(entry, hash(&entry.half, entry.tag.proto()));
                    look(entry)
                });
            },
        )?;
        self.settle_marks::<A, PAD>(map, &spilled)?;
        Ok(spilled.marked.is_some())
    }

    /// Takes marks back, in two steps: what has not been needed in this pass ages, and what has
    /// aged and was not needed either, nor renewed by a program, goes. A program publishes a key
    /// within microseconds of its mark, so one of the passes has met it. What was marked since this
    /// pass came by may wait for the next.
    fn settle_marks<A, const PAD: usize>(
        &self,
        map: &OwnedFd,
        spilled: &Spilled,
    ) -> Result<(), KernelError> {
        let Some(marked) = &spilled.marked else {
            return Ok(());
        };
        self.each_slot::<A, PAD>(
            map,
            |slots| slots.start <= *marked.end() && *marked.start() < slots.end,
            |index, slot| {
                if index % WAYS != 0 || spilled.has(index / WAYS) {
                    return;
                }
                let mark = mark_of(slot);
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
            },
        )
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

/// The mark of the bucket that begins with this slot.
fn mark_of<'a, A, const PAD: usize>(slot: *mut Slot<A, PAD>) -> &'a AtomicU16 {
    // SAFETY: mapped while a slot is looked at, which no caller outlasts, and aligned to two bytes;
    // the programs write it whole.
    unsafe { AtomicU16::from_ptr(&raw mut (*slot).half.spilled) }
}
