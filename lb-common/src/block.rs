//! The block list's structure: one *generation* per address family, in pages of array maps.
//!
//! A generation is a row of lines of 64 bytes, 16,384 lines to a page. The agent fills pages
//! through their memory, off to the side, and puts the whole in force by one update: that of
//! element 0 of the family's map of pages. Its first line says where everything lies:
//!
//! ```text
//! line 0        [`Layout`]
//! root          a word for each value of an address's first 16 bits: which lengths up to 16
//!               cover it, which groups of longer ones there are below it, whether an exception is near
//! filter        16 bits for each hash of (group, first bits of the address): which lengths of the
//!               group occur there. Hashes that meet share their bits, so a bit may be set
//!               in vain, never missing
//! buckets       the rules, by the hash of (prefix, length), each with its counter
//! spare         lines that full buckets go on in
//! ```
//!
//! A lookup reads a word of the root, mostly one of the filter, and one bucket. Which one does not
//! depend on what the other lines hold, so the processor fetches them at the same time. The longest
//! length whose rule is there wins.
//!
//! A new rule is written in place: its fields, then its length, then the bits that lead to it. A
//! rule that goes loses its length; its place is not used again by another rule of this generation, so that no reader
//! ever sees half of one and half of another.
//!
//! Addresses here are numbers (most significant byte first in the network is most significant in
//! the number), aligned to the left of 128 bits.

use core::ops::Range;

use crate::{assert_layout, hash};

/// Lines in a page; a page takes 1 MiB.
pub const PAGE_LINES: u32 = 16_384;
/// Pages that the map of a family holds: two generations, and the one in force at 0 once more.
pub const MAX_PAGES: u32 = 1 + 2 * GENERATION_PAGES;
/// Pages of one generation at most.
pub const GENERATION_PAGES: u32 = 512;
/// First line of the root.
pub const ROOT_LINE: u32 = 64;
/// Words of the root, one for each value of an address's first 16 bits.
pub const ROOT_WORDS: u32 = 65_536;
/// First line behind the root.
pub const FILTER_LINE: u32 = ROOT_LINE + ROOT_WORDS / 16;
/// How many lines a bucket may go on in.
pub const MAX_CHAIN: u32 = 8;

/// Bit of a root word: longer rules of group 0 are below. The next ones follow, see [`group_of`].
pub const ROOT_GROUP: u32 = 1 << 17;
/// Bit of a root word: an exception (an allowed prefix) covers or lies below.
pub const ROOT_ALLOW: u32 = 1 << 31;
/// Lengths 0 to 16, whose bits of a root word are their own numbers.
pub const ROOT_LENGTHS: u32 = (1 << 17) - 1;

/// Groups of 16 lengths each: 17–32, 33–48, … 113–128. IPv4 has the first only.
pub const GROUPS: u32 = 7;

/// Stands for the length of a rule that was removed.
pub const GONE: u8 = u8::MAX;

/// Where the parts of a generation lie. Line numbers count from the generation's first line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// Seed of its hashes.
    pub seed: u64,
    /// Element of the map of pages that holds the generation's first page once more.
    pub first_page: u32,
    /// Words of the filter, less one; all ones in binary.
    pub filter_mask: u32,
    /// First line of the buckets; the filter begins at [`FILTER_LINE`].
    pub bucket_line: u32,
    /// Number of buckets.
    pub buckets: u32,
    /// First spare line.
    pub spare_line: u32,
    /// Number of spare lines.
    pub spare_lines: u32,
    /// Zero.
    pub reserved: [u64; 4],
}

impl Layout {
    /// The elements of the map of pages that hold the generation's pages, in their order.
    pub fn slots(&self) -> Range<u32> {
        let lines = self.spare_line.saturating_add(self.spare_lines);
        let pages = lines.div_ceil(PAGE_LINES);
        // Whatever stands there: it may have been read from memory that others can write.
        let first = self.first_page.min(MAX_PAGES);
        first..first.saturating_add(pages).min(MAX_PAGES)
    }

    /// Whether its parts follow each other within the pages that it has.
    pub fn is_sound(&self) -> bool {
        let lines = self.slots().len() as u64 * u64::from(PAGE_LINES);
        let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
        end(FILTER_LINE, self.filter_mask / 32) < u64::from(self.bucket_line)
            && end(self.bucket_line, self.buckets) <= u64::from(self.spare_line)
            && end(self.spare_line, self.spare_lines) <= lines
            && self.buckets > 0
    }
}

/// A line of a page, as it is allocated.
pub type Line = [u64; 8];

/// A bucket of IPv4 rules, or a spare line that one goes on in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket4 {
    /// Length plus one of each rule; 0: none here yet, [`GONE`]: no more.
    pub lens: [u8; 4],
    /// The line that the bucket goes on in; 0: it ends here.
    pub next: u32,
    /// The prefixes, as numbers.
    pub prefixes: [u32; 4],
    /// See [`Tally`].
    pub tallies: [u64; 4],
    /// Zero.
    pub reserved: u64,
}

/// A bucket of IPv6 rules, or a spare line that one goes on in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket6 {
    /// Length plus one of each rule; 0: none here yet, [`GONE`]: no more.
    pub lens: [u8; 2],
    /// Zero.
    pub reserved: u16,
    /// The line that the bucket goes on in; 0: it ends here.
    pub next: u32,
    /// The prefixes, upper and lower half, as numbers.
    pub prefixes: [[u64; 2]; 2],
    /// See [`Tally`].
    pub tallies: [u64; 2],
    /// Zero.
    pub reserved2: u64,
}

/// What a rule has dropped, in one word that all CPUs add to: packets in the upper 24 bits, bytes
/// in the lower 40. A million rules would take 16 MiB for *each* CPU if every CPU had its own. Whoever
/// finds half of the packets' range used up moves the whole to
/// [`crate::maps::name::BLOCK_SPILL`], which [`crate::entry::Counter`]s lie in; so nothing is lost without an agent either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally(pub u64);

impl Tally {
    /// One packet.
    pub const PACKET: u64 = 1 << 40;
    /// A tally of more than this is moved. By then 8,388,608 packets of at most 64 KiB are in it,
    /// so the bytes cannot have run over.
    pub const SPILL: u64 = 1 << 63;

    /// Packets.
    #[inline(always)]
    pub const fn packets(self) -> u64 {
        self.0 >> 40
    }

    /// Bytes.
    #[inline(always)]
    pub const fn bytes(self) -> u64 {
        self.0 & (Self::PACKET - 1)
    }
}

/// A rule's identity: the key of [`crate::maps::name::BLOCK_SPILL`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleKey {
    /// Upper and lower half of the prefix.
    pub prefix: [u64; 2],
    /// Prefix length.
    pub len: u32,
    /// [`crate::entry::FAMILY_V4`] or [`crate::entry::FAMILY_V6`].
    pub family: u32,
}

/// The first `len` bits of an address's halves; `len` at most 128.
#[inline(always)]
pub const fn truncate(halves: [u64; 2], len: u32) -> [u64; 2] {
    if len == 0 {
        [0, 0]
    } else if len <= 64 {
        [halves[0] & (u64::MAX << (64 - len)), 0]
    } else {
        [halves[0], halves[1] & (u64::MAX << (128 - len))]
    }
}

/// The group that a length beyond 16 belongs to.
#[inline(always)]
pub const fn group_of(len: u32) -> u32 {
    (len - 17) / 16
}

/// First length of a group.
#[inline(always)]
pub const fn group_start(group: u32) -> u32 {
    17 + group * 16
}

/// How many bits of an address lead to the filter's word of a group: the middle of the group, so
/// that shorter rules of it are spread over at most 128 words and longer ones share one.
#[inline(always)]
pub const fn filter_bits(group: u32) -> u32 {
    24 + group * 16
}

/// Number of a group's filter word for the first [`filter_bits`] of an address.
#[inline(always)]
pub const fn filter_index(layout: &Layout, group: u32, truncated: [u64; 2]) -> u32 {
    // The group goes where an address of the group has no bits. One multiplication where the
    // lower half is empty, as with all of IPv4.
    let mut state = hash::mix(layout.seed, truncated[0] ^ group as u64);
    if group >= 3 {
        state = hash::mix(state, truncated[1]);
    }
    // The upper half: an address has its bits there, and a multiplication carries upwards only.
    (((state >> 32) * (layout.filter_mask as u64 + 1)) >> 32) as u32
}

/// Hash of an IPv4 rule.
#[inline(always)]
pub const fn rule_hash4(seed: u64, prefix: u32, len: u32) -> u64 {
    hash::finish(hash::mix(seed, ((prefix as u64) << 8) | len as u64))
}

/// Hash of an IPv6 rule.
#[inline(always)]
pub const fn rule_hash6(seed: u64, prefix: [u64; 2], len: u32) -> u64 {
    let state = hash::mix(hash::mix(seed, prefix[0]), prefix[1]);
    hash::finish(hash::mix(state, len as u64))
}

assert_layout! {
    Layout: size 64, align 8;
    Bucket4: size 64, align 8;
    Bucket6: size 64, align 8;
    RuleKey: size 24, align 8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_cut_to_the_bit() {
        let all = [u64::MAX; 2];
        for len in 0..=128u32 {
            let [high, low] = truncate(all, len);
            assert_eq!(high.count_ones() + low.count_ones(), len);
            assert_eq!(
                high.leading_ones() + low.leading_ones() * u32::from(len > 64),
                len
            );
        }
    }

    /// Each length beyond 16 is in one group, at one of its 16 bits.
    #[test]
    fn groups_cover_all_lengths() {
        for len in 17..=128 {
            let group = group_of(len);
            assert!(group < GROUPS);
            assert!((group_start(group)..group_start(group) + 16).contains(&len));
            let spread = filter_bits(group) as i64 - i64::from(len);
            assert!((-8..=7).contains(&spread), "{len}: {spread}");
        }
    }

    #[test]
    fn slots_are_those_of_the_map_whatever_a_layout_says() {
        let layout = |first_page, spare_line, spare_lines| Layout {
            first_page,
            spare_line,
            spare_lines,
            ..Layout::default()
        };
        assert_eq!(layout(1, 20_000, PAGE_LINES).slots(), 1..4);
        assert_eq!(layout(513, 1, PAGE_LINES - 1).slots(), 513..514);
        assert_eq!(layout(513, u32::MAX, 9).slots(), 513..MAX_PAGES);
        assert!(layout(u32::MAX, 1, 1).slots().is_empty());
    }

    #[test]
    fn sound_layouts_lie_within_their_pages() {
        let sound = Layout {
            first_page: 1,
            filter_mask: 63,
            bucket_line: FILTER_LINE + 2,
            buckets: 100,
            spare_line: FILTER_LINE + 102,
            spare_lines: PAGE_LINES - FILTER_LINE - 102,
            ..Layout::default()
        };
        assert!(sound.is_sound());
        let broken: [fn(&mut Layout); 6] = [
            |layout| layout.first_page = MAX_PAGES,
            |layout| layout.filter_mask = 64,
            |layout| layout.bucket_line += 1,
            |layout| layout.buckets = 0,
            |layout| layout.spare_line = u32::MAX,
            |layout| (layout.first_page, layout.spare_lines) = (MAX_PAGES - 1, PAGE_LINES),
        ];
        for (number, breaks) in broken.iter().enumerate() {
            let mut layout = sound;
            breaks(&mut layout);
            assert!(!layout.is_sound(), "{number}");
        }
    }

    #[test]
    fn a_tally_holds_what_may_come_before_it_is_moved() {
        let full = Tally(Tally::SPILL - 1 + Tally::PACKET);
        assert!(full.packets() >= 1 << 23);
        const { assert!((1_u64 << 23) * 65_536 < Tally::PACKET) };
    }
}
