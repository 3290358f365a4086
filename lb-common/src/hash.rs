//! The seeded hash behind the flow tables, the selection and the destination filter.
//!
//! A multiply-and-fold mix over 64-bit words (the finalizer of MurmurHash3, chained). The seed is
//! secret to the node, so that nobody outside can aim at one bucket.

use crate::entry::FILTER_WORDS;

const K1: u64 = 0xff51_afd7_ed55_8ccd;
const K2: u64 = 0xc4ce_b9fe_1a85_ec53;

/// Adds one word to a running hash.
#[inline(always)]
pub const fn mix(state: u64, word: u64) -> u64 {
    let hash = (state ^ word).wrapping_mul(K1);
    hash ^ (hash >> 32)
}

/// Ends a running hash.
#[inline(always)]
pub const fn finish(state: u64) -> u64 {
    let hash = state.wrapping_mul(K2);
    hash ^ (hash >> 29)
}

/// Hash of an IPv4 flow key. Addresses and ports in network byte order.
#[inline(always)]
pub const fn flow4(seed: u64, saddr: u32, daddr: u32, ports: u32, proto: u8) -> u64 {
    let state = mix(seed, ((daddr as u64) << 32) | saddr as u64);
    finish(mix(state, ((proto as u64) << 32) | ports as u64))
}

/// Hash of an IPv6 flow key. Addresses and ports in network byte order.
#[inline(always)]
pub const fn flow6(seed: u64, saddr: &[u32; 4], daddr: &[u32; 4], ports: u32, proto: u8) -> u64 {
    let mut state = mix(seed, ((saddr[1] as u64) << 32) | saddr[0] as u64);
    state = mix(state, ((saddr[3] as u64) << 32) | saddr[2] as u64);
    state = mix(state, ((daddr[1] as u64) << 32) | daddr[0] as u64);
    state = mix(state, ((daddr[3] as u64) << 32) | daddr[2] as u64);
    finish(mix(state, ((proto as u64) << 32) | ports as u64))
}

/// Hash of an IPv4 client, whatever its port and destination. Network byte order.
#[inline(always)]
pub const fn client4(seed: u64, addr: u32) -> u64 {
    finish(mix(seed, addr as u64))
}

/// Hash of an IPv6 client, whatever its port and destination. Network byte order.
#[inline(always)]
pub const fn client6(seed: u64, addr: &[u32; 4]) -> u64 {
    let state = mix(seed, ((addr[1] as u64) << 32) | addr[0] as u64);
    finish(mix(state, ((addr[3] as u64) << 32) | addr[2] as u64))
}

/// Maps the upper half of a hash evenly to `0..n` without a division (Lemire, "Fast random integer
/// generation in an interval", 2019).
#[inline(always)]
pub const fn scale(hash: u64, n: u32) -> u32 {
    (((hash >> 32) * n as u64) >> 32) as u32
}

/// Bit of the destination filter for a VIP's (address word, port, protocol), or, with `port` and
/// `proto` zero, for an address that is ours at all: a VIP, or one of the node's that flows are
/// translated to. For IPv6 the address word is that of [`filter_word6`].
#[inline(always)]
pub const fn filter_bit(addr: u32, port: u16, proto: u8) -> u32 {
    let word = ((proto as u64) << 48) | ((port as u64) << 32) | addr as u64;
    (mix(K2, word) >> 7) as u32 & (FILTER_WORDS as u32 * 64 - 1)
}

/// The address word of an IPv6 address for [`filter_bit`].
#[inline(always)]
pub const fn filter_word6(addr: &[u32; 4]) -> u32 {
    addr[0] ^ addr[1] ^ addr[2] ^ addr[3]
}

/// In place of a protocol in [`filter_bit`]: the address and port are those of a backend that is a
/// process of the node, and a packet from there may be a reply.
pub const FILTER_LOCAL_BACKEND: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    /// Consecutive client ports, the commonest input, spread over buckets like chance does.
    #[test]
    fn consecutive_ports_spread() {
        let mut buckets = [0u32; 1024];
        for port in 0..65_536u32 {
            let hash = flow4(42, 0x0100_000a, 0x0a33_64c6, port.swap_bytes() | 80, 6);
            buckets[hash as usize & 1023] += 1;
        }
        let chi2: f64 = buckets
            .iter()
            .map(|&n| (f64::from(n) - 64.0).powi(2) / 64.0)
            .sum();
        // 1023 degrees of freedom: mean 1023, standard deviation 45.
        assert!((chi2 - 1023.0).abs() < 6.0 * 45.2, "chi² {chi2}");
    }

    /// Neighbouring clients, the commonest input, share the slots of a table like chance does.
    #[test]
    fn neighbouring_clients_spread() {
        let rows: [fn(u32) -> u64; 2] = [
            |host| client4(42, (0x0a63_0000 + host).to_be()),
            |host| client6(42, &[0x0000_99fd, 0, 0, host.to_be()]),
        ];
        for hash in rows {
            let mut slots = [0_u32; 1021];
            for host in 0..65_344 {
                slots[scale(hash(host), 1021) as usize] += 1;
            }
            let chi2: f64 = slots
                .iter()
                .map(|&n| (f64::from(n) - 64.0).powi(2) / 64.0)
                .sum();
            // 1020 degrees of freedom: mean 1020, standard deviation 45.
            assert!((chi2 - 1020.0).abs() < 6.0 * 45.2, "chi² {chi2}");
        }
    }

    /// `scale` reaches both ends and nothing beyond.
    #[test]
    fn scale_stays_in_range() {
        assert_eq!(scale(0, 65_537), 0);
        assert_eq!(scale(u64::MAX, 65_537), 65_536);
    }
}
