//! The flow table: putting a half into it where its first bucket has a free slot, as nearly always.
//! All in one function: a call costs as much as a cache line that is at hand. What is not so simple
//! is left to `insert`.

use core::hint::black_box;

use lb_common::flow::{Kind, State, Tag, WAYS, first_bucket, first_way};

use crate::{
    create::{NewFlow, set_forward, set_reply},
    family::{Draft, V4, V6},
    flow::{SlotRef, has_spilled},
    insert::{self, InsertError, copy_half},
    settings::setting,
};

/// Makes the draft's half the one of this kind and puts it into the table, as `insert::insert`
/// does; answers with the slot's number.
#[inline(always)]
pub(crate) fn place<F: NewFlow>(
    draft: *const Draft<F::Addr>,
    kind: Kind,
    take_closed: bool,
) -> Result<u32, InsertError> {
    let answer = F::place(kind as u32);
    if answer != ELSEWHERE {
        return Ok(answer as u32);
    }
    // SAFETY: this CPU's scratch memory; see `forward`.
    insert::insert::<F>(unsafe { (*draft).half_hash }, kind, take_closed)
}

/// Answer of [`place_draft`] beyond all slot numbers: nothing is in the table, `insert` is to look.
const ELSEWHERE: u64 = u64::MAX;

/// See [`NewFlow::place`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take_free4(kind: u32) -> u64 {
    place_draft::<V4>(kind)
}

/// See [`NewFlow::place`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take_free6(kind: u32) -> u64 {
    place_draft::<V6>(kind)
}

#[inline(always)]
fn place_draft<F: NewFlow>(kind: u32) -> u64 {
    let Some(draft) = F::draft() else {
        return ELSEWHERE;
    };
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    let draft = unsafe { &mut *draft };
    let kind = if kind == Kind::Forward as u32 {
        set_forward::<F>(draft);
        draft.half_hash = draft.hash;
        Kind::Forward
    } else {
        draft.half_hash = set_reply::<F>(draft);
        Kind::Reply
    };
    take_free::<F>(black_box(draft), kind).map_or(ELSEWHERE, |slot| slot as u64)
}

/// Takes a free slot of the first bucket. `None` where there is none, where it takes more to say
/// that the key is not there already, or where another CPU interferes.
#[inline(always)]
fn take_free<F: NewFlow>(draft: &Draft<F::Addr>, kind: Kind) -> Option<u32> {
    let (hash, proto) = (draft.half_hash, draft.key.proto);
    let bucket = first_bucket(hash, setting!(bucket_mask));
    let base = F::bucket(bucket)?;
    if has_spilled::<F>(base) {
        return None;
    }
    let mut free = None;
    for step in 0..WAYS {
        // From the last on, so that the first free one remains.
        let way = (first_way(hash) + WAYS - 1 - step) & (WAYS - 1);
        let slot = SlotRef::new::<F>(base, bucket, way);
        let tag = slot.tag();
        if tag.matches(hash, proto) {
            return None;
        }
        if tag.is_free() {
            free = Some((slot, tag));
        }
    }
    let (slot, old) = free?;
    let generation = old.generation().wrapping_add(1);
    let claimed = Tag::new(hash, generation, kind, proto, State::Claimed);
    if !slot.swap_tag(old, claimed) {
        return None;
    }
    // SAFETY: the slot is ours until its tag is published, but for the bucket's mark.
    unsafe { copy_half(&draft.half, slot.half) };
    let published = claimed.with_state(State::HalfOpen);
    slot.swap_tag(claimed, published);
    // Only now is the half visible, and only now is it sure to see another CPU's.
    let mut alone = !has_spilled::<F>(base);
    for way in 0..WAYS {
        let other = SlotRef::new::<F>(base, bucket, way);
        if other.index != slot.index && other.tag().matches(hash, proto) {
            alone = false;
        }
    }
    if alone {
        return Some(slot.index);
    }
    slot.swap_tag(published, published.with_state(State::Free));
    None
}
