//! The block list: the first verdict on every IP packet. Its structure is described in
//! `lb_common::block`.

mod quick;
mod tally;

use core::ptr;

use aya_ebpf::btf_maps::{ArrayOfMaps, lpm_trie::Key};
use lb_common::{
    block::{
        Bucket4, Bucket6, FILTER_LINE, GROUPS, Layout, Line, MAX_CHAIN, MAX_PAGES, PAGE_LINES,
        ROOT_ALLOW, ROOT_GROUP, ROOT_LENGTHS, ROOT_LINE, RuleKey, filter_bits, filter_index,
        group_start, rule_hash4, rule_hash6, truncate,
    },
    entry::{FAMILY_V4, FAMILY_V6},
    hash,
};

use self::tally::count;
use crate::maps::{ALLOW4, ALLOW6, BLOCK4, BLOCK6, BlockPage};

type Pages = ArrayOfMaps<BlockPage, { MAX_PAGES as usize }>;

/// Whether an IPv4 source (network byte order) is blocked; counts it against the rule if so.
#[inline(always)]
pub(crate) fn source4(saddr: u32, len: usize) -> bool {
    match quick::source4(saddr, len) {
        quick::Answer::Free => false,
        quick::Answer::Blocked => true,
        quick::Answer::Unsure => lb_blocked4(saddr, len as u32) != 0,
    }
}

/// Whether an IPv6 source (network byte order) is blocked; counts it against the rule if so.
#[inline(always)]
pub(crate) fn source6(saddr: &[u32; 4], len: usize) -> bool {
    let high = u64::from_be((saddr[1] as u64) << 32 | saddr[0] as u64);
    let low = u64::from_be((saddr[3] as u64) << 32 | saddr[2] as u64);
    let Some(head) = BLOCK6.get(0) else {
        return false;
    };
    // Most are of networks that the list does not know, which takes no call to say.
    if root(head, high).is_some_and(|root| root & !ROOT_ALLOW == 0) {
        return false;
    }
    lb_blocked6(high, low, len as u32) != 0
}

/// [`source4`] as a function of the program, which the verifier checks once by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_blocked4(saddr: u32, len: u32) -> u32 {
    let addr = u32::from_be(saddr);
    let Some((tally, key)) = find::<V4>([(addr as u64) << 32, 0], || {
        ALLOW4.get(&Key::new(32, saddr)).is_some()
    }) else {
        return 0;
    };
    count(tally, len, &key);
    1
}

/// [`source6`] as a function of the program; the address as a number, in halves.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_blocked6(high: u64, low: u64, len: u32) -> u32 {
    let Some((tally, key)) = find::<V6>([high, low], || {
        let (high, low) = (high.to_be(), low.to_be());
        let words = [
            high as u32,
            (high >> 32) as u32,
            low as u32,
            (low >> 32) as u32,
        ];
        let key = Aligned {
            padding: 0,
            key: Key::new(128, words),
        };
        ALLOW6.get(&key.key).is_some()
    }) else {
        return 0;
    };
    count(tally, len, &key);
    1
}

/// Puts the address of a key at a multiple of eight: the compiler writes it in words of that size,
/// and the verifier wants these aligned.
#[repr(C, align(8))]
struct Aligned {
    padding: u32,
    key: Key<[u32; 4]>,
}

/// What differs between the address families.
trait Family {
    const GROUPS: u32;
    const FAMILY: u8;

    fn pages() -> &'static Pages;

    fn bucket_hash(seed: u64, prefix: [u64; 2], len: u32) -> u64;

    /// The way of this rule in a line of its bucket, or the line that the bucket goes on in.
    ///
    /// # Safety
    ///
    /// `line` must be valid.
    unsafe fn look(line: *mut Line, prefix: [u64; 2], len: u32) -> Result<usize, u32>;

    /// The tally of a way.
    ///
    /// # Safety
    ///
    /// `line` must be valid.
    unsafe fn tally(line: *mut Line, way: u32) -> *mut u64;

    /// The family's own copy of [`probe`].
    fn probe(first: u32, prefix: [u64; 2], len: u32) -> u64;
}

struct V4;
struct V6;

impl Family for V4 {
    const GROUPS: u32 = 1;
    const FAMILY: u8 = FAMILY_V4;

    #[inline(always)]
    fn pages() -> &'static Pages {
        &BLOCK4
    }

    #[inline(always)]
    fn bucket_hash(seed: u64, prefix: [u64; 2], len: u32) -> u64 {
        rule_hash4(seed, (prefix[0] >> 32) as u32, len)
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn look(line: *mut Line, prefix: [u64; 2], len: u32) -> Result<usize, u32> {
        let bucket = line.cast::<Bucket4>();
        let prefix = (prefix[0] >> 32) as u32;
        for way in 0..4 {
            // SAFETY: the caller's line; a rule's fields do not change while it has a length.
            unsafe {
                if (*bucket).prefixes[way] == prefix
                    && ptr::read_volatile(&raw const (*bucket).lens[way]) as u32 == len + 1
                {
                    return Ok(way);
                }
            }
        }
        // SAFETY: as above.
        Err(unsafe { ptr::read_volatile(&raw const (*bucket).next) })
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn tally(line: *mut Line, way: u32) -> *mut u64 {
        let tallies = core::mem::offset_of!(Bucket4, tallies) / 8;
        // SAFETY: the caller's line; masked to the ways there are.
        unsafe { line.cast::<u64>().add(tallies + (way & 3) as usize) }
    }

    #[inline(always)]
    fn probe(first: u32, prefix: [u64; 2], len: u32) -> u64 {
        lb_probe4(first, (prefix[0] >> 32) as u32, len)
    }
}

impl Family for V6 {
    const GROUPS: u32 = GROUPS;
    const FAMILY: u8 = FAMILY_V6;

    #[inline(always)]
    fn pages() -> &'static Pages {
        &BLOCK6
    }

    #[inline(always)]
    fn bucket_hash(seed: u64, prefix: [u64; 2], len: u32) -> u64 {
        rule_hash6(seed, prefix, len)
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn look(line: *mut Line, prefix: [u64; 2], len: u32) -> Result<usize, u32> {
        let bucket = line.cast::<Bucket6>();
        for way in 0..2 {
            // SAFETY: the caller's line; a rule's fields do not change while it has a length.
            unsafe {
                if (*bucket).prefixes[way][0] == prefix[0]
                    && (*bucket).prefixes[way][1] == prefix[1]
                    && ptr::read_volatile(&raw const (*bucket).lens[way]) as u32 == len + 1
                {
                    return Ok(way);
                }
            }
        }
        // SAFETY: as above.
        Err(unsafe { ptr::read_volatile(&raw const (*bucket).next) })
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn tally(line: *mut Line, way: u32) -> *mut u64 {
        let tallies = core::mem::offset_of!(Bucket6, tallies) / 8;
        // SAFETY: the caller's line; masked to the ways there are.
        unsafe { line.cast::<u64>().add(tallies + (way & 1) as usize) }
    }

    #[inline(always)]
    fn probe(first: u32, prefix: [u64; 2], len: u32) -> u64 {
        lb_probe6(first, prefix[0], prefix[1], len)
    }
}

/// Line of this number of the generation whose first page is `first`.
#[inline(always)]
fn line<F: Family>(first: u32, number: u32) -> Option<*mut Line> {
    F::pages()
        .get(first + number / PAGE_LINES)?
        .get_ptr_mut(number % PAGE_LINES)
}

/// The root's word for an address, of which `high` is the upper half, in a generation's first page.
#[inline(always)]
fn root(head: &BlockPage, high: u64) -> Option<u32> {
    let top = (high >> 48) as u32;
    let words = head.get_ptr_mut(ROOT_LINE + top / 16)?.cast::<u32>();
    // SAFETY: a line holds 16 words; the agent may change one at any moment.
    Some(unsafe { ptr::read_volatile(words.add((top & 15) as usize)) })
}

/// The tally and the key of the longest rule that covers an address, unless it is allowed.
#[inline(always)]
fn find<F: Family>(
    addr: [u64; 2],
    is_allowed: impl FnOnce() -> bool,
) -> Option<(*mut u64, RuleKey)> {
    let head = F::pages().get(0)?;
    let layout = head.get_ptr_mut(0)?.cast::<Layout>();
    let root = root(head, addr[0])?;
    if root & !ROOT_ALLOW == 0 {
        return None;
    }
    // SAFETY: a line of the generation, whose layout never changes.
    let layout = unsafe { &*layout };
    let mut hit = None;
    for down in 0..F::GROUPS {
        let group = F::GROUPS - 1 - down;
        if root & (ROOT_GROUP << group) == 0 {
            continue;
        }
        let lead = truncate(addr, filter_bits(group));
        let index = filter_index(layout, group, lead);
        let words = line::<F>(layout.first_page, FILTER_LINE + index / 32)?.cast::<u16>();
        // SAFETY: a line holds 32 words of the filter.
        let mask = unsafe { ptr::read_volatile(words.add((index & 31) as usize)) } as u32;
        if mask == 0 {
            continue;
        }
        hit = longest::<F>(layout.first_page, addr, mask, group_start(group), 16);
        if hit.is_some() {
            break;
        }
    }
    if hit.is_none() && root & ROOT_LENGTHS != 0 {
        hit = longest::<F>(layout.first_page, addr, root & ROOT_LENGTHS, 0, 17);
    }
    if hit.is_some() && root & ROOT_ALLOW != 0 && is_allowed() {
        return None;
    }
    hit
}

/// The rule of the longest length that a mask names and that is there. Bit 0 of the mask stands
/// for the length `start`; it has `bits` of them.
#[inline(always)]
fn longest<F: Family>(
    first: u32,
    addr: [u64; 2],
    mask: u32,
    start: u32,
    bits: u32,
) -> Option<(*mut u64, RuleKey)> {
    for down in 0..bits {
        let bit = bits - 1 - down;
        if mask & (1 << bit) == 0 {
            continue;
        }
        let len = start + bit;
        let prefix = truncate(addr, len);
        let place = F::probe(first, prefix, len);
        if place != 0 {
            let key = RuleKey {
                prefix,
                len,
                family: F::FAMILY as u32,
            };
            let line = line::<F>(first, (place / PLACES) as u32)?;
            // SAFETY: `place` masks the way.
            return Some((unsafe { F::tally(line, place as u32 % PLACES as u32) }, key));
        }
    }
    None
}

/// Places that are told apart in a line, so that line and place fit one number.
const PLACES: u64 = 8;

/// Where a rule is, as a line's number times [`PLACES`] and a way; 0: nowhere. `first` is the first
/// page of the generation.
#[inline(always)]
fn probe<F: Family>(first: u32, prefix: [u64; 2], len: u32) -> u64 {
    let layout = line::<F>(first, 0).map(<*mut Line>::cast::<Layout>);
    let Some(layout) = layout else { return 0 };
    // SAFETY: a line of the generation, whose layout never changes.
    let layout = unsafe { &*layout };
    let bucket = hash::scale(F::bucket_hash(layout.seed, prefix, len), layout.buckets);
    let mut number = layout.bucket_line + bucket;
    for _ in 0..=MAX_CHAIN {
        let Some(line) = line::<F>(first, number) else {
            return 0;
        };
        // SAFETY: a line of the generation.
        match unsafe { F::look(line, prefix, len) } {
            Ok(way) => return number as u64 * PLACES + way as u64,
            Err(0) => return 0,
            Err(next) => number = next,
        }
    }
    0
}

/// [`probe`] as a function of the program, which the verifier checks once by itself, not again
/// for each length.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_probe4(first: u32, prefix: u32, len: u32) -> u64 {
    probe::<V4>(first, [(prefix as u64) << 32, 0], len)
}

/// [`probe`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_probe6(first: u32, high: u64, low: u64, len: u32) -> u64 {
    probe::<V6>(first, [high, low], len)
}
