//! Weighted Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4).
//!
//! Each backend has a permutation of the slots, drawn from its address. They take turns at
//! claiming the next free slot of their own permutation; a backend with half the greatest weight
//! has a turn every second round. Removing a backend therefore moves hardly any slot of the
//! others.

use std::net::{IpAddr, SocketAddr};

use lb_common::hash;

/// Table sizes: primes, so that every step width walks through all slots.
pub const SIZES: [u32; 4] = [1021, 4093, 16_381, 65_537];

/// The size for this many backends: a hundred slots each, within [`SIZES`], and never the
/// smallest, so that a share of one percent is still forty slots.
pub fn size_for(backends: usize) -> u32 {
    let wanted = backends.saturating_mul(100);
    SIZES[1..]
        .iter()
        .copied()
        .find(|size| *size as usize >= wanted)
        .unwrap_or(SIZES[SIZES.len() - 1])
}

/// A backend that wants slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What a slot holds.
    pub id: u32,
    /// Decides on the permutation; the same on every node and after every restart.
    pub address: SocketAddr,
    /// Above zero; relative to the others'.
    pub weight: u32,
}

/// Fills a table of `size` slots (a prime) with ids; empty if there is no entry.
///
/// The result does not depend on the order of the entries. Entries of weight zero get nothing.
pub fn build(entries: &[Entry], size: u32) -> Vec<u32> {
    let mut turns: Vec<Turn> = entries
        .iter()
        .filter(|entry| entry.weight > 0)
        .map(|entry| Turn::new(entry, size))
        .collect();
    if turns.is_empty() {
        return Vec::new();
    }
    turns.sort_by_key(|turn| turn.address);
    let heaviest = turns.iter().map(|turn| turn.weight).max().unwrap_or(1);
    let mut table = vec![FREE; size as usize];
    let mut free = size;
    for round in 1_u64.. {
        for turn in &mut turns {
            if round * turn.weight < turn.due {
                continue;
            }
            turn.due += heaviest;
            let slot = turn.next_free(&table);
            table[slot] = turn.id;
            free -= 1;
            if free == 0 {
                return table;
            }
        }
    }
    unreachable!("every round of the heaviest entry fills a slot")
}

/// A slot that nobody has claimed; no id is this large.
const FREE: u32 = u32::MAX;

/// One entry's way through its permutation.
struct Turn {
    id: u32,
    address: SocketAddr,
    weight: u64,
    /// Sum of `heaviest` over the turns taken; the next turn is due when `round * weight` reaches
    /// it.
    due: u64,
    position: usize,
    step: usize,
}

impl Turn {
    fn new(entry: &Entry, size: u32) -> Self {
        let digest = digest(entry.address);
        Self {
            id: entry.id,
            address: entry.address,
            weight: u64::from(entry.weight),
            due: 0,
            position: ((digest >> 32) % u64::from(size)) as usize,
            step: ((digest & 0xffff_ffff) % u64::from(size - 1) + 1) as usize,
        }
    }

    fn next_free(&mut self, table: &[u32]) -> usize {
        loop {
            let slot = self.position;
            // Both are below the size: less than to divide, of which there are ten for each slot.
            self.position += self.step;
            if self.position >= table.len() {
                self.position -= table.len();
            }
            if table[slot] == FREE {
                return slot;
            }
        }
    }
}

/// A fixed hash of an address: the permutation must not depend on the node or the run.
fn digest(address: SocketAddr) -> u64 {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let value = u128::from_be_bytes(bytes);
    let state = hash::mix(0x006d_6167_6c65_7621, (value >> 64) as u64);
    let state = hash::mix(state, value as u64);
    hash::finish(hash::mix(state, u64::from(address.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(weights: &[u32]) -> Vec<Entry> {
        weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Entry {
                id: index as u32,
                address: SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 8080)),
                weight: *weight,
            })
            .collect()
    }

    fn slots_of(table: &[u32], entries: &[Entry]) -> Vec<usize> {
        entries
            .iter()
            .map(|entry| table.iter().filter(|id| **id == entry.id).count())
            .collect()
    }

    /// The published figures for a weighted table.
    #[test]
    fn published_weights() {
        let entries = entries(&[2, 13, 111, 10]);
        let table = build(&entries, 1021);
        assert_eq!(slots_of(&table, &entries), [16, 98, 832, 75]);
    }

    /// 400 equal backends differ by at most one slot at 65537.
    #[test]
    fn equal_weights_are_equal() {
        let entries = entries(&[1; 400]);
        let counts = slots_of(&build(&entries, 65_537), &entries);
        let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(max - min <= 1, "{min}..{max}");
    }

    /// Removing one backend moves less than 1 % of the others' slots.
    #[test]
    fn removal_disturbs_few() {
        let all = entries(&[1; 100]);
        let before = build(&all, 65_537);
        let rest: Vec<Entry> = all.iter().copied().filter(|entry| entry.id != 42).collect();
        let after = build(&rest, 65_537);
        let others = before.iter().filter(|id| **id != 42).count();
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(old, new)| **old != 42 && old != new)
            .count();
        assert!(moved * 100 < others, "{moved} of {others} moved");
    }

    /// The order of the entries says nothing.
    #[test]
    fn order_is_irrelevant() {
        let mut all = entries(&[5, 1, 7, 3, 90]);
        let table = build(&all, 1021);
        all.reverse();
        assert_eq!(build(&all, 1021), table);
    }

    /// Nobody, one, weight zero, and weights as far apart as they can be.
    #[test]
    fn corner_cases() {
        assert!(build(&[], 1021).is_empty());
        assert!(build(&entries(&[0, 0]), 1021).is_empty());
        assert_eq!(
            slots_of(&build(&entries(&[7]), 1021), &entries(&[7])),
            [1021]
        );
        let skewed = entries(&[1_000_000_000, 1]);
        assert_eq!(
            slots_of(&build(&skewed, 1021), &skewed)
                .iter()
                .sum::<usize>(),
            1021
        );
        assert_eq!(size_for(0), 4093);
        assert_eq!(size_for(41), 16_381);
        assert_eq!(size_for(100_000), 65_537);
    }
}
