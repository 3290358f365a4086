//! The flow table: finding and releasing halves; `insert` is beside. The protocol between CPUs, and
//! with the agent, is described in `lb_common::flow`.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr,
};

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::flow::{
    Half, Kind, NO_PARTNER, Slot4, Slot6, State, Tag, WAYS, first_bucket, first_way, second_bucket,
    spilled,
};

use crate::{
    family::{Family, Key},
    settings::setting,
};

/// The lower 32 bits of the kernel's tick counter.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: no arguments, no side effect.
    (unsafe { bpf_jiffies64() }) as u32
}

/// A slot in map memory.
#[derive(Clone, Copy)]
pub(crate) struct SlotRef<A> {
    tag: *mut u64,
    pub(crate) half: *mut Half<A>,
    pub(crate) index: u32,
}

impl<A> SlotRef<A> {
    /// The slot of a `way` in the bucket that begins at `base`.
    #[inline(always)]
    pub(crate) fn new<F: Family<Addr = A>>(base: *mut u8, bucket: u32, way: u32) -> Self {
        // SAFETY: the caller masks `way`, so the slot lies within the bucket.
        let slot = unsafe { base.add((way & (WAYS - 1)) as usize * F::STRIDE) };
        let half_offset = core::mem::offset_of!(Slot4, half);
        Self {
            tag: slot.cast(),
            // SAFETY: still within the slot; both slot types have their half at this offset.
            half: unsafe { slot.add(half_offset) }.cast(),
            index: bucket * WAYS + way,
        }
    }

    /// The slot of this number.
    #[inline(always)]
    pub(crate) fn at<F: Family<Addr = A>>(index: u32) -> Option<Self> {
        let base = F::bucket(index / WAYS)?;
        Some(Self::new::<F>(base, index / WAYS, index & (WAYS - 1)))
    }

    /// The tag at this moment.
    #[inline(always)]
    pub(crate) fn tag(&self) -> Tag {
        // SAFETY: map memory, aligned; others write it, hence volatile.
        Tag(unsafe { ptr::read_volatile(self.tag) })
    }

    /// Replaces the tag if it is still `old`. A full barrier on success.
    #[inline(always)]
    pub(crate) fn swap_tag(&self, old: Tag, new: Tag) -> bool {
        // SAFETY: map memory, aligned to eight bytes.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Relaxed }>(
                self.tag, old.0, new.0,
            )
        };
        done
    }
}

const _: () = assert!(core::mem::offset_of!(Slot4, half) == core::mem::offset_of!(Slot6, half));

/// A slot and the tag it was found with.
pub(crate) struct Found<A> {
    pub(crate) slot: SlotRef<A>,
    pub(crate) tag: Tag,
}

/// Whether of a flow only its reply half's place is kept, so that the port is not used again too
/// soon.
#[inline(always)]
pub(crate) fn is_superseded<A>(found: &Found<A>) -> bool {
    // SAFETY: map memory.
    let partner = unsafe { (*found.slot.half).partner };
    let reply = (found.tag.0 >> 16) as u8 == Kind::Reply as u8;
    reply && found.tag.state_bits() >= State::Finished as u8 && partner == NO_PARTNER
}

#[inline(always)]
fn same_key<A: Copy + PartialEq>(half: *const Half<A>, key: &Key<A>) -> bool {
    // SAFETY: map memory; a concurrent writer makes the comparison fail or the tag's second
    // reading differ.
    unsafe {
        (*half).ports == key.ports && (*half).saddr == key.saddr && (*half).daddr == key.daddr
    }
}

#[inline(always)]
fn find_in<F: Family>(
    base: *mut u8,
    bucket: u32,
    key: &Key<F::Addr>,
    hash: u64,
) -> Option<Found<F::Addr>> {
    for step in 0..WAYS {
        let slot = SlotRef::new::<F>(base, bucket, (first_way(hash) + step) & (WAYS - 1));
        let tag = slot.tag();
        if holds::<F>(&slot, tag, key, hash) {
            return Some(Found { slot, tag });
        }
    }
    None
}

/// The bucket's mark; see [`lb_common::flow::spilled`].
#[inline(always)]
fn spill_mark<F: Family>(base: *mut u8) -> *mut u16 {
    let first = SlotRef::new::<F>(base, 0, 0);
    // SAFETY: within the bucket's first way.
    unsafe { &raw mut (*first.half).spilled }
}

/// Whether keys whose first bucket this is may lie in their second.
#[inline(always)]
pub(crate) fn is_spilled<F: Family>(bucket: u32) -> bool {
    F::bucket(bucket).is_some_and(has_spilled::<F>)
}

/// The same of the bucket that begins at `base`.
#[inline(always)]
pub(crate) fn has_spilled<F: Family>(base: *mut u8) -> bool {
    // SAFETY: map memory, aligned to two bytes.
    (unsafe { ptr::read_volatile(spill_mark::<F>(base)) }) != spilled::NO
}

/// Marks a bucket before a key of its is put into its second one.
#[inline(always)]
pub(crate) fn mark_spilled<F: Family>(bucket: u32) {
    if let Some(base) = F::bucket(bucket) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(spill_mark::<F>(base), spilled::YES) };
    }
}

/// Whether a slot holds the live half with this key; `tag` is the slot's at this moment.
#[inline(always)]
pub(crate) fn holds<F: Family>(
    slot: &SlotRef<F::Addr>,
    tag: Tag,
    key: &Key<F::Addr>,
    hash: u64,
) -> bool {
    tag.matches(hash, key.proto) && same_key(slot.half, key)
}

/// The half with this key.
#[inline(always)]
pub(crate) fn find<F: Family>(key: &Key<F::Addr>, hash: u64) -> Option<Found<F::Addr>> {
    let mask = setting!(bucket_mask);
    let bucket = first_bucket(hash, mask);
    let base = F::bucket(bucket)?;
    if let Some(found) = find_in::<F>(base, bucket, key, hash) {
        return Some(found);
    }
    if !is_spilled::<F>(bucket) {
        return None;
    }
    let bucket = second_bucket(hash, mask);
    find_in::<F>(F::bucket(bucket)?, bucket, key, hash)
}

/// The other half of the flow in slot `of`, if it still belongs to it.
#[inline(always)]
pub(crate) fn partner<F: Family>(index: u32, of: u32) -> Option<Found<F::Addr>> {
    let slot = SlotRef::at::<F>(index)?;
    let tag = slot.tag();
    // SAFETY: map memory.
    let back = unsafe { ptr::read_volatile(&raw const (*slot.half).partner) };
    (tag.is_live() && back == of).then_some(Found { slot, tag })
}

#[inline(always)]
pub(crate) fn release_partner<F: Family>(index: u32, of: u32) {
    if let Some(Found { slot, tag }) = partner::<F>(index, of) {
        slot.swap_tag(tag, tag.with_state(State::Free));
    }
}

/// Frees both halves of a flow.
#[inline(always)]
pub(crate) fn release<F: Family>(found: &Found<F::Addr>) {
    // SAFETY: map memory.
    let other = unsafe { ptr::read_volatile(&raw const (*found.slot.half).partner) };
    if found
        .slot
        .swap_tag(found.tag, found.tag.with_state(State::Free))
    {
        release_partner::<F>(other, found.slot.index);
    }
}

/// Frees the forward half of a TCP flow and leaves the reply half behind, closed: the backend may
/// still be in TIME_WAIT, and its port is not to be used again until its time is up, unless by the
/// same client's next connection (see `insert::insert`). One that the two sides had not closed is
/// left as reset: the backend may still hold it open, and would not take a SYN for it.
#[inline(always)]
pub(crate) fn supersede<F: Family>(forward: &Found<F::Addr>, now: u32) {
    // SAFETY: map memory.
    let other = unsafe { ptr::read_volatile(&raw const (*forward.slot.half).partner) };
    if !forward
        .slot
        .swap_tag(forward.tag, forward.tag.with_state(State::Free))
    {
        return;
    }
    let left = if forward.tag.state_bits() >= State::Finished as u8 {
        State::Finished
    } else {
        State::Reset
    };
    if let Some(Found { slot, tag }) = partner::<F>(other, forward.slot.index)
        && slot.swap_tag(tag, tag.with_state(left))
    {
        // SAFETY: map memory; a half that another CPU takes over meanwhile is older by nothing.
        unsafe {
            ptr::write_volatile(&raw mut (*slot.half).partner, NO_PARTNER);
            ptr::write_volatile(&raw mut (*slot.half).seen, now);
        }
    }
}
