//! The flow table: putting a half into it. Who gives way, and what keeps a key from standing twice,
//! is described in `lb_common::flow`.

use core::ptr;

use lb_common::{
    flow::{Half, Kind, State, Tag, WAYS, first_bucket, first_way, second_bucket},
    lifetime::{Lifetime, is_idle_beyond},
    verdict::Verdict,
};

use crate::{
    family::{Draft, Family, V4, V6},
    flow::{SlotRef, is_spilled, mark_spilled, release_partner},
    settings::setting,
    stats::count_eviction,
};

/// Why a half could not be inserted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsertError {
    /// A half with this key is there.
    Exists,
    /// No flow of its two buckets gives way.
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

/// Takes a slot, fills it with the draft's half and publishes it as half-open. With `take_closed`
/// a half with the same key gives way if its flow is closed; without it, if both sides have closed
/// it and the client used the same port for the same service: what its own stack, which knows its
/// sequence numbers and timestamps, makes the next connection of, a backend in TIME_WAIT takes for
/// that (RFC 9293, section 3.6.1; RFC 6191), while from another port it may look older than one
/// that was there before, and is dropped.
///
/// Answers with the slot's number. The half's own key fields are the key.
#[inline(always)]
pub(crate) fn insert<F: Family>(
    hash: u64,
    kind: Kind,
    take_closed: bool,
) -> Result<u32, InsertError> {
    let take = if take_closed { TAKE_CLOSED } else { 0 };
    let mut answer = F::insert(hash, kind as u32 | take);
    if answer == CONTENDED {
        answer = F::insert(hash, kind as u32 | take);
    }
    match answer {
        EXISTS => Err(InsertError::Exists),
        FULL => Err(InsertError::Full),
        CONTENDED => Err(InsertError::Contended),
        slot => Ok(slot as u32),
    }
}

/// Bit beside the kind; see [`insert`].
const TAKE_CLOSED: u32 = 1 << 8;

/// Answers of [`insert_draft`] beyond all slot numbers; one register instead of a `Result`.
const EXISTS: u64 = u64::MAX;
const FULL: u64 = u64::MAX - 1;
const CONTENDED: u64 = u64::MAX - 2;

/// See [`Family::insert`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_insert4(hash: u64, how: u32) -> u64 {
    insert_draft::<V4>(hash, how)
}

/// See [`Family::insert`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_insert6(hash: u64, how: u32) -> u64 {
    insert_draft::<V6>(hash, how)
}

/// How readily a slot's holder gives way: 0 never, then by the age of what is not established,
/// then what is closed, then what is over, then what is nobody's.
type Readiness = u32;
const NEVER: Readiness = 0;
const CLOSED: Readiness = u32::MAX - 2;
const OVER: Readiness = u32::MAX - 1;
const NOBODYS: Readiness = u32::MAX;

/// The slot that gives way most readily so far, and its tag. Part of the draft, so that the verifier
/// does not follow each of its values through the rest.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Victim {
    readiness: Readiness,
    index: u32,
    tag: Tag,
}

/// How readily a slot is given up at `now`.
#[inline(always)]
fn readiness<A>(half: *const Half<A>, tag: Tag, now: u32) -> Readiness {
    if tag.is_free() {
        return NOBODYS;
    }
    if !tag.is_live() {
        return NEVER;
    }
    // SAFETY: map memory.
    let seen = unsafe { ptr::read_volatile(&raw const (*half).seen) };
    let state = tag.state_bits();
    // Each is a constant to the verifier. Not all of them at once: they would lie on the stack.
    let lifetime = match Lifetime::of(tag.proto(), state) {
        Lifetime::TcpHalfOpen => setting!(lifetimes.tcp_half_open),
        Lifetime::TcpEstablished => setting!(lifetimes.tcp_established),
        Lifetime::TcpClosing => setting!(lifetimes.tcp_closing),
        Lifetime::TcpFinished => setting!(lifetimes.tcp_finished),
        Lifetime::UdpHalfOpen => setting!(lifetimes.udp_half_open),
        Lifetime::UdpEstablished => setting!(lifetimes.udp_established),
    };
    if is_idle_beyond(lifetime, now, seen) {
        return OVER;
    }
    if state >= State::Finished as u8 {
        return CLOSED;
    }
    let age = now.wrapping_sub(seen);
    let young = age < setting!(grace_ticks) || age > i32::MAX as u32;
    if state >= State::Established as u8 || young {
        return NEVER;
    }
    age
}

#[inline(always)]
fn same_key<A: Copy + PartialEq>(half: *const Half<A>, other: &Half<A>) -> bool {
    // SAFETY: map memory; a concurrent writer makes the comparison fail or the tag's second
    // reading differ.
    unsafe {
        (*half).ports == other.ports && (*half).saddr == other.saddr && (*half).daddr == other.daddr
    }
}

/// Whether a half with the same key sends its packets on in the same way, too: of a reply half,
/// to the same client, as the same service.
#[inline(always)]
fn same_flow<A: Copy + PartialEq>(half: *const Half<A>, other: &Half<A>) -> bool {
    // SAFETY: map memory; as above, for who takes the slot compares the tag again.
    unsafe {
        (*half).new_ports == other.new_ports
            && (*half).new_saddr == other.new_saddr
            && (*half).new_daddr == other.new_daddr
    }
}

/// Answer of [`scan`] where the bucket does not hold the key.
const NOWHERE: u64 = u64::MAX;

/// See [`Family::scan`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_scan4(bucket: u32, hash: u64, own: u32) -> u64 {
    scan::<V4>(bucket, hash, own)
}

/// See [`Family::scan`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_scan6(bucket: u32, hash: u64, own: u32) -> u64 {
    scan::<V6>(bucket, hash, own)
}

/// Looks through a bucket for the draft's key: answers with the slot that holds it, other than
/// `own`, and notes a better victim in the draft.
#[inline(always)]
fn scan<F: Family>(bucket: u32, hash: u64, own: u32) -> u64 {
    let Some(draft) = F::draft() else {
        return NOWHERE;
    };
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    let draft = unsafe { &mut *draft };
    let Some(base) = F::bucket(bucket) else {
        return NOWHERE;
    };
    for step in 0..WAYS {
        let way = (first_way(hash) + step) & (WAYS - 1);
        let slot = SlotRef::new::<F>(base, bucket, way);
        let tag = slot.tag();
        let held = tag.matches(hash, draft.key.proto) && same_key(slot.half, &draft.half);
        if held && slot.index != own {
            return slot.index as u64;
        }
        let readiness = readiness(slot.half, tag, draft.now);
        if readiness > draft.victim.readiness {
            draft.victim = Victim {
                readiness,
                index: slot.index,
                tag,
            };
        }
    }
    NOWHERE
}

/// [`insert`] in plain numbers.
#[inline(always)]
fn insert_draft<F: Family>(hash: u64, how: u32) -> u64 {
    let Some(draft) = F::draft() else { return FULL };
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    let draft = unsafe { &mut *draft };
    let mask = setting!(bucket_mask);
    let first = first_bucket(hash, mask);
    draft.victim.readiness = NEVER;
    let mut holder = F::scan(first, hash, u32::MAX);
    if draft.victim.readiness == OVER {
        // As good as a free one of the second bucket.
        draft.victim.readiness = NOBODYS;
    }
    if holder == NOWHERE && (draft.victim.readiness < OVER || is_spilled::<F>(first)) {
        holder = F::scan(second_bucket(hash, mask), hash, u32::MAX);
    }
    if holder != NOWHERE {
        let Some(slot) = SlotRef::at::<F>(holder as u32) else {
            return FULL;
        };
        let tag = slot.tag();
        let state = tag.state_bits();
        let readiness = if state == State::Finished as u8 && same_flow(slot.half, &draft.half) {
            OVER
        } else if state >= State::Finished as u8 && how & TAKE_CLOSED != 0 {
            CLOSED
        } else {
            return EXISTS;
        };
        draft.victim = Victim {
            readiness,
            index: holder as u32,
            tag,
        };
    }
    if draft.victim.readiness == NEVER {
        return FULL;
    }
    if draft.victim.index / WAYS != first {
        // Before the key is there: the exchange in `take` is a barrier.
        mark_spilled::<F>(first);
    }
    if F::take(hash, how) == 0 {
        return CONTENDED;
    }
    settle::<F>(draft, hash)
}

/// See [`Family::take`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take4(hash: u64, how: u32) -> u64 {
    take::<V4>(hash, how) as u64
}

/// See [`Family::take`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take6(hash: u64, how: u32) -> u64 {
    take::<V6>(hash, how) as u64
}

/// Claims the victim's slot, fills and publishes it; `false` if another CPU was faster.
#[inline(always)]
fn take<F: Family>(hash: u64, how: u32) -> bool {
    let Some(draft) = F::draft() else {
        return false;
    };
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    let draft = unsafe { &mut *draft };
    let old = draft.victim.tag;
    let Some(slot) = SlotRef::at::<F>(draft.victim.index) else {
        return false;
    };
    let kind = if how & 1 == Kind::Forward as u32 {
        Kind::Forward
    } else {
        Kind::Reply
    };
    let generation = old.generation().wrapping_add(1);
    let claimed = Tag::new(hash, generation, kind, draft.key.proto, State::Claimed);
    // SAFETY: map memory. Read before the slot is ours, so it may be torn; `release_partner`
    // checks what it finds.
    let partner = unsafe { (*slot.half).partner };
    if !slot.swap_tag(old, claimed) {
        return false;
    }
    if old.is_live() {
        release_partner::<F>(partner, slot.index);
        if draft.victim.readiness < OVER {
            count_eviction(draft.victim.readiness == CLOSED);
        }
    }
    // SAFETY: the slot is ours until its tag is published, but for the bucket's mark.
    unsafe { copy_half(&draft.half, slot.half) };
    draft.victim.tag = claimed.with_state(State::HalfOpen);
    slot.swap_tag(claimed, draft.victim.tag)
}

/// Only now is the half visible, and only now is it sure to see another CPU's: withdraws it if
/// another slot holds the key.
#[inline(always)]
fn settle<F: Family>(draft: &mut Draft<F::Addr>, hash: u64) -> u64 {
    let mask = setting!(bucket_mask);
    let (index, published) = (draft.victim.index, draft.victim.tag);
    // No victim is looked for any more.
    draft.victim.readiness = NOBODYS;
    let first = first_bucket(hash, mask);
    let mut holder = F::scan(first, hash, index);
    if holder == NOWHERE && is_spilled::<F>(first) {
        holder = F::scan(second_bucket(hash, mask), hash, index);
    }
    if holder == NOWHERE {
        return index as u64;
    }
    if let Some(slot) = SlotRef::at::<F>(index) {
        slot.swap_tag(published, published.with_state(State::Free));
    }
    EXISTS
}

/// Copies all of a half but the bucket's mark, which another CPU may set at this moment.
///
/// # Safety
///
/// `to` is the half of a slot that this CPU has claimed.
#[inline(always)]
pub(crate) unsafe fn copy_half<A>(from: &Half<A>, to: *mut Half<A>) {
    const { assert!(core::mem::offset_of!(Half<u32>, spilled) % 4 == 2) };
    let mark = core::mem::offset_of!(Half<A>, spilled) / 4;
    let (from, to) = (ptr::from_ref(from).cast::<u32>(), to.cast::<u32>());
    for word in 0..size_of::<Half<A>>() / 4 {
        // SAFETY: within both halves, which are made of words.
        unsafe {
            if word == mark {
                let low = from.add(word).cast::<u16>();
                to.add(word).cast::<u16>().write(low.read());
            } else {
                to.add(word).write(from.add(word).read());
            }
        }
    }
}
