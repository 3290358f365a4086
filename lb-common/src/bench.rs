//! What the datapath benchmark tells its driver program: the packet, and how it varies.

use crate::assert_layout;

/// Words of a frame that the driver writes behind the first eight bytes.
pub const WORDS: usize = 11;
/// Offset of the first of these words: two bytes into the first eight, so that from there on no
/// field of an IPv4 or IPv6 packet lies across two words. A load that needs bytes of two stores
/// that have not reached the cache yet stalls, which no packet from a wire makes it do.
pub const FIRST_WORD: usize = 6;
/// Bytes of every frame.
pub const FRAME: usize = FIRST_WORD + 8 * WORDS;
/// Parts of the packet that can vary.
pub const FIELDS: usize = 3;

/// The packet, as the driver writes it anew for each run of the program under test.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// The first eight bytes of the frame.
    pub first: u64,
    /// The bytes from [`FIRST_WORD`] on.
    pub words: [u64; WORDS],
    /// What of the packet follows the flow's number.
    pub fields: [Field; FIELDS],
    /// Number of flows minus one; a power of two minus one.
    pub mask: u32,
    /// See [`fold`].
    pub fold: u32,
}

/// A number that is added to a word of the packet, which is taken to be big-endian:
/// `((flow >> shift) & mask) << left`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Field {
    /// Which of [`Template::words`].
    pub word: u32,
    /// Bits of the flow's number to leave out.
    pub shift: u32,
    /// Bits to take; 0: the field does not vary.
    pub mask: u32,
    /// Where in the word they are added: its lowest bits are the packet's last bytes.
    pub left: u32,
}

/// Number of the flow that the `count`th packet belongs to: all flows, each once, in an order
/// that looks like chance. Equal steps would do for prefetchers; but a hash that multiplies makes
/// equal steps of them again, and then the table's lines wait for the same bank of the memory, or
/// never do.
#[inline(always)]
pub const fn flow(count: u64, mask: u32, fold: u32) -> u32 {
    let mut flow = (count as u32).wrapping_mul(0x9e37_79b1) & mask;
    flow ^= flow >> (fold & 31);
    flow = flow.wrapping_mul(0x85eb_ca6b) & mask;
    flow ^ flow >> (fold & 31)
}

/// By how many bits [`flow`] folds the numbers up to `mask`: half of theirs, and at least one.
pub const fn fold(mask: u32) -> u32 {
    let half = (32 - mask.leading_zeros()) / 2;
    if half == 0 { 1 } else { half }
}

assert_layout! {
    Field: size 16, align 4;
    Template: size 152, align 8;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table is filled by one turn, wherever the count stands.
    #[test]
    fn one_turn_meets_every_flow_once() {
        for start in [0, 1, 77_777, u64::from(u32::MAX) - 5] {
            let mut seen = [false; 1024];
            for count in start..start + 1024 {
                let flow = flow(count, 1023, fold(1023)) as usize;
                assert!(!seen[flow], "flow {flow} twice from {start} on");
                seen[flow] = true;
            }
        }
    }
}
