//! What rules have dropped: see `lb_common::block::Tally`.

use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};

use lb_common::{
    block::{RuleKey, Tally},
    entry::{Counter, FAMILY_V4},
};

use crate::maps::BLOCK_SPILL;

/// Adds a packet to a rule's tally, and answers with what it was.
#[inline(always)]
pub(super) fn add(tally: *mut u64, len: u32) -> u64 {
    let packet = Tally::PACKET | (len as u64).min(0xffff);
    // SAFETY: map memory, aligned to eight bytes.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(tally, packet) }
}

/// Adds a packet to a rule's tally, and makes room there if it is full.
#[inline(always)]
pub(super) fn count(tally: *mut u64, len: u32, key: &RuleKey) {
    if add(tally, len) >= Tally::SPILL {
        spill(tally, key);
    }
}

/// [`spill`] of an IPv4 rule, out of the way.
#[inline(never)]
pub(super) fn spill4(tally: *mut u64, prefix: u64, len: u32) {
    let key = RuleKey {
        prefix: [prefix, 0],
        len,
        family: FAMILY_V4 as u32,
    };
    spill(tally, &key);
}

/// Moves a tally to where there is room for it.
#[inline(always)]
fn spill(tally: *mut u64, key: &RuleKey) {
    if BLOCK_SPILL.get_ptr_mut(key).is_none() {
        // Another CPU may have been faster, which is as well.
        let _ = BLOCK_SPILL.insert(key, Counter::default(), 1);
    }
    if let Some(counter) = BLOCK_SPILL.get_ptr_mut(key) {
        // SAFETY: map memory, aligned; whoever takes the tally adds it, once.
        unsafe {
            let moved = Tally(atomic_xchg::<u64, { AtomicOrdering::AcqRel }>(tally, 0));
            let counter = counter.cast::<u64>();
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, moved.packets());
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter.add(1), moved.bytes());
        }
    }
}
