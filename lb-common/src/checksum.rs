//! Internet checksum arithmetic (RFC 1071) and incremental update (RFC 1624, equation 3).
//!
//! A *delta* is the folded ones' complement sum of `~old + new` over the 16-bit words that change.
//! Words are summed as they lie in memory; ones' complement addition does not care for byte order
//! (RFC 1071, section 2 B), so no swapping is needed as long as both sides do the same.

/// Folds the carries of a 32-bit sum into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sum that replaces the 32-bit word `old` by `new`, not yet folded. At most four of these, or
/// eight of [`replace16`], fit before a fold.
#[inline(always)]
pub const fn replace32(old: u32, new: u32) -> u32 {
    replace16(old as u16, new as u16) + replace16((old >> 16) as u16, (new >> 16) as u16)
}

/// Sum that replaces the 16-bit word `old` by `new`, not yet folded.
#[inline(always)]
pub const fn replace16(old: u16, new: u16) -> u32 {
    (!old) as u32 + new as u32
}

/// The checksum after a change whose folded delta is `delta`: `HC' = ~(~HC + ~m + m')`.
#[inline(always)]
pub const fn apply(checksum: u16, delta: u16) -> u16 {
    !fold((!checksum) as u32 + delta as u32)
}

/// The checksum of `data`, whose 16-bit words are read as big-endian; to be stored big-endian.
/// `seed` is the unfolded sum of a pseudo-header, or zero.
pub fn compute(data: &[u8], seed: u32) -> u16 {
    let mut sum = u64::from(seed);
    let mut words = data.chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(u16::from_be_bytes([*last, 0]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1624, section 4: the example on which the equation of RFC 1141 fails.
    #[test]
    fn example_of_rfc_1624() {
        let delta = fold(replace16(0x5555, 0x3285));
        assert_eq!(apply(0xdd2f, delta), 0x0000);
    }

    /// Whatever words change, the updated checksum is the one computed anew.
    #[test]
    fn update_equals_recomputation() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..10_000 {
            let mut data: [u8; 24] = core::array::from_fn(|_| next() as u8);
            if round % 3 == 0 {
                data[..8].fill(if round % 2 == 0 { 0 } else { 0xff });
            }
            let before = compute(&data, 0);
            let old = u32::from_be_bytes(data[4..8].try_into().unwrap());
            let new = match round % 5 {
                0 => 0,
                1 => u32::MAX,
                _ => next() as u32,
            };
            data[4..8].copy_from_slice(&new.to_be_bytes());
            let after = compute(&data, 0);
            let updated = apply(before, fold(replace32(old, new)));
            // Both encodings of zero are the same number.
            assert!(
                updated == after || (updated ^ after) == 0xffff,
                "round {round}: {updated:04x} is not {after:04x}"
            );
            assert!(updated == after || updated == 0 || after == 0);
        }
    }
}
