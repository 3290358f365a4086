//! The block list's answer for most IPv4 sources, without a call: on processors that have to guard
//! returns (`spec_rstack_overflow` of Linux), each call costs as much as parsing three packets.

use core::ptr;

use lb_common::{
    block::{
        FILTER_LINE, Layout, Line, ROOT_ALLOW, ROOT_GROUP, ROOT_LENGTHS, Tally, filter_bits,
        filter_index, group_start, truncate,
    },
    hash,
};

use super::{Family, V4, line, tally};
use crate::maps::BLOCK4;

/// What is known after the first look.
pub(crate) enum Answer {
    /// No rule covers the source.
    Free,
    /// Blocked, and counted.
    Blocked,
    /// The whole search has to say.
    Unsure,
}

/// Looks for the longest rule that may cover the address, and for nothing else.
#[inline(always)]
pub(crate) fn source4(saddr: u32, len: usize) -> Answer {
    look(saddr, len).unwrap_or(Answer::Unsure)
}

/// `None`: a page that every generation has is not there.
#[inline(always)]
fn look(saddr: u32, len: usize) -> Option<Answer> {
    let Some(head) = BLOCK4.get(0) else {
        return Some(Answer::Free);
    };
    let halves = [(u32::from_be(saddr) as u64) << 32, 0];
    let root = super::root(head, halves[0])?;
    if root & !ROOT_ALLOW == 0 {
        return Some(Answer::Free);
    }
    if root & (ROOT_ALLOW | ROOT_GROUP) != ROOT_GROUP {
        return Some(Answer::Unsure);
    }
    // SAFETY: a line of the generation, whose layout never changes.
    let layout = unsafe { &*head.get_ptr_mut(0)?.cast::<Layout>() };
    let index = filter_index(layout, 0, truncate(halves, filter_bits(0)));
    let words = line::<V4>(layout.first_page, FILTER_LINE + index / 32)?.cast::<u16>();
    // SAFETY: a line holds 32 words of the filter.
    let mask = unsafe { ptr::read_volatile(words.add((index & 31) as usize)) } as u32;
    let shorter = root & ROOT_LENGTHS;
    if mask == 0 {
        return Some(unless(shorter));
    }
    let length = longest(mask);
    // Beyond the 32 bits of the address lie only zeros.
    let prefix = halves[0] & (u64::MAX << ((64 - length) & 63));
    let bucket = hash::scale(
        V4::bucket_hash(layout.seed, [prefix, 0], length),
        layout.buckets,
    );
    let line: *mut Line = line::<V4>(layout.first_page, layout.bucket_line + bucket)?;
    // SAFETY: a line of the generation.
    match unsafe { V4::look(line, [prefix, 0], length) } {
        Ok(way) => {
            // SAFETY: as above.
            let tally = unsafe { V4::tally(line, way as u32) };
            if tally::add(tally, len as u32) >= Tally::SPILL {
                tally::spill4(tally, prefix, length);
            }
            Some(Answer::Blocked)
        }
        Err(next) => Some(unless(next | shorter | mask & !bit_of(length))),
    }
}

/// The longest length that a mask of the group names. The two that most lists consist of are asked
/// for first: where the processor guesses right, it need not wait for the mask to fetch the bucket.
#[inline(always)]
fn longest(mask: u32) -> u32 {
    for likely in [32, 24] {
        if mask >= bit_of(likely) && mask < bit_of(likely + 1) {
            return likely;
        }
    }
    group_start(0) + 31 - mask.leading_zeros()
}

/// Bit of a length in a mask of the group.
#[inline(always)]
const fn bit_of(length: u32) -> u32 {
    1 << (length - group_start(0))
}

/// Whether there is more to look at.
#[inline(always)]
fn unless(more: u32) -> Answer {
    if more == 0 {
        Answer::Free
    } else {
        Answer::Unsure
    }
}
