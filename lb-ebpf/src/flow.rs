//! The flow table: finding, inserting and releasing halves. The protocol between CPUs, and with
//! the agent, is described in `lb_common::flow`.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr,
};

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    flow::{Half, Kind, Slot4, Slot6, State, Tag, WAYS, first_bucket, first_way, second_bucket},
    verdict::Verdict,
};

use crate::{
    family::{Family, Key, V4, V6},
    settings::setting,
};

/// The lower 32 bits of the kernel's tick counter.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: no arguments, no side effect.
    (unsafe { bpf_jiffies64() }) as u32
}

/// See [`Family::insert`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_insert4(hash: u64, kind: u32) -> u64 {
    insert_draft::<V4>(hash, kind)
}

/// See [`Family::insert`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_insert6(hash: u64, kind: u32) -> u64 {
    insert_draft::<V6>(hash, kind)
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
    fn new<F: Family<Addr = A>>(base: *mut u8, bucket: u32, way: u32) -> Self {
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

#[inline(always)]
fn same_key<A: Copy + PartialEq>(half: *const Half<A>, key: &Key<A>) -> bool {
    // SAFETY: map memory; a concurrent writer makes the comparison fail or the tag's second
    // reading differ.
    unsafe {
        (*half).ports == key.ports && (*half).saddr == key.saddr && (*half).daddr == key.daddr
    }
}

#[inline(always)]
fn same_half<A: Copy + PartialEq>(half: *const Half<A>, other: &Half<A>) -> bool {
    // SAFETY: as above.
    unsafe {
        (*half).ports == other.ports && (*half).saddr == other.saddr && (*half).daddr == other.daddr
    }
}

#[inline(always)]
fn find_in<F: Family>(bucket: u32, key: &Key<F::Addr>, hash: u64) -> Option<Found<F::Addr>> {
    let base = F::bucket(bucket)?;
    for step in 0..WAYS {
        let slot = SlotRef::new::<F>(base, bucket, (first_way(hash) + step) & (WAYS - 1));
        let tag = slot.tag();
        if holds::<F>(&slot, tag, key, hash) {
            return Some(Found { slot, tag });
        }
    }
    None
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
    if let Some(found) = find_in::<F>(first_bucket(hash, mask), key, hash) {
        return Some(found);
    }
    find_in::<F>(second_bucket(hash, mask), key, hash)
}

/// Whether a live half is past its time.
#[inline(always)]
fn is_expired<A>(half: *const Half<A>, tag: Tag, now: u32) -> bool {
    // The six lifetimes are constants to the verifier.
    let lifetimes = lb_common::flow::Lifetimes {
        tcp_half_open: setting!(lifetimes.tcp_half_open),
        tcp_established: setting!(lifetimes.tcp_established),
        tcp_closing: setting!(lifetimes.tcp_closing),
        tcp_finished: setting!(lifetimes.tcp_finished),
        udp_half_open: setting!(lifetimes.udp_half_open),
        udp_established: setting!(lifetimes.udp_established),
    };
    // SAFETY: map memory.
    let seen = unsafe { ptr::read_volatile(&raw const (*half).seen) };
    lifetimes.is_over(tag.proto(), tag.state_bits(), now, seen)
}

/// Why a half could not be inserted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsertError {
    /// A half with this key is there.
    Exists,
    /// No slot of its two buckets is free or expired.
    Full,
    /// Another CPU was faster, twice.
    Contended,
}

impl InsertError {
    /// The verdict for a packet whose forward half met this.
    #[inline(always)]
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            InsertError::Full => Verdict::DropTableFull,
            InsertError::Exists | InsertError::Contended => Verdict::DropContended,
        }
    }
}

/// What a scan of both buckets finds.
struct Scan {
    /// Number of a slot that may be taken, and its tag.
    victim: Option<(u32, Tag)>,
    /// The key stands in a slot other than `ignore`.
    exists: bool,
}

/// Looks through both candidate buckets, from the first way on.
#[inline(always)]
fn scan<F: Family>(half: &Half<F::Addr>, proto: u8, hash: u64, ignore: u32, now: u32) -> Scan {
    let mask = setting!(bucket_mask);
    let mut result = Scan {
        victim: None,
        exists: false,
    };
    for step in 0..2 * WAYS {
        let bucket = if step < WAYS {
            first_bucket(hash, mask)
        } else {
            second_bucket(hash, mask)
        };
        let way = (first_way(hash) + step) & (WAYS - 1);
        let Some(base) = F::bucket(bucket) else { break };
        let slot = SlotRef::new::<F>(base, bucket, way);
        let tag = slot.tag();
        if tag.matches(hash, proto) && slot.index != ignore && same_half(slot.half, half) {
            result.exists = true;
            return result;
        }
        let free = tag.is_free() || (tag.is_live() && is_expired(slot.half, tag, now));
        if free && result.victim.is_none() {
            result.victim = Some((slot.index, tag));
        }
    }
    result
}

/// Takes a free or expired slot, fills it with the draft's half and publishes it as half-open.
///
/// Answers with the slot's number. The half's own key fields are the key.
#[inline(always)]
pub(crate) fn insert<F: Family>(hash: u64, kind: Kind) -> Result<u32, InsertError> {
    match F::insert(hash, kind as u32) {
        EXISTS => Err(InsertError::Exists),
        FULL => Err(InsertError::Full),
        CONTENDED => Err(InsertError::Contended),
        slot => Ok(slot as u32),
    }
}

/// Answers of [`insert_draft`] beyond all slot numbers; one register instead of a `Result`.
const EXISTS: u64 = u64::MAX;
const FULL: u64 = u64::MAX - 1;
const CONTENDED: u64 = u64::MAX - 2;

/// [`insert`] in plain numbers.
#[inline(always)]
fn insert_draft<F: Family>(hash: u64, kind: u32) -> u64 {
    let Some(draft) = F::draft() else { return FULL };
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    let (half, proto, now) = unsafe { (&(*draft).half, (*draft).key.proto, (*draft).now) };
    let kind = if kind == Kind::Forward as u32 {
        Kind::Forward
    } else {
        Kind::Reply
    };
    for _ in 0..2 {
        let Scan { victim, exists } = scan::<F>(half, proto, hash, u32::MAX, now);
        if exists {
            return EXISTS;
        }
        let Some((index, old)) = victim else {
            return FULL;
        };
        let Some(slot) = SlotRef::at::<F>(index) else {
            return FULL;
        };
        let generation = old.generation().wrapping_add(1);
        let claimed = Tag::new(hash, generation, kind, proto, State::Claimed);
        // SAFETY: map memory. Read before the slot is ours, so it may be torn; `release_partner`
        // checks what it finds.
        let partner = unsafe { (*slot.half).partner };
        if !slot.swap_tag(old, claimed) {
            continue;
        }
        if old.is_live() {
            release_partner::<F>(partner, slot.index);
        }
        // SAFETY: the slot is ours until its tag is published.
        unsafe { ptr::copy_nonoverlapping(half, slot.half, 1) };
        let published = claimed.with_state(State::HalfOpen);
        slot.swap_tag(claimed, published);
        // Only now is the half visible, and only now is it sure to see another CPU's.
        if scan::<F>(half, proto, hash, index, now).exists {
            slot.swap_tag(published, published.with_state(State::Free));
            return EXISTS;
        }
        return index as u64;
    }
    CONTENDED
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
fn release_partner<F: Family>(index: u32, of: u32) {
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
