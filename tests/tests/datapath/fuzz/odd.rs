//! What packets seldom are, and frames never should be.

use super::{
    draw::one,
    sketch::{Sketch, Sum},
};
use crate::{chance::Random, traffic::ip};

/// Number of the IPv6 fragment header.
const FRAGMENT: u8 = 44;
/// Number of the IPv6 routing header.
const ROUTING: u8 = 43;
/// Identifications that fragments have: few, so that packets are mistaken for each other if they
/// can be.
const IDS: u32 = 3;

/// Makes a packet an unusual one.
pub(super) fn make(random: &mut Random, sketch: &mut Sketch) {
    match random.below(16) {
        0 => sketch.options = vec![1; 4 * (1 + random.below(10)) as usize],
        1 | 2 => {
            let count = one(random, &[1, 1, 2, 2, 3]);
            let tag = |_| {
                let vlan = random.below(65_536) as u16;
                (one(random, &[0x8100, 0x88a8]), vlan)
            };
            sketch.tags.extend((0..count).map(tag));
        }
        3 => sketch.fragment = one(random, &[0x2001, 0x0010, 0x1fff, 0x8000, 0xc000]),
        4 | 5 => {
            let id = random.below(IDS);
            make_fragment(sketch, 0, true, id);
        }
        6 => extend(random, sketch),
        7 => sketch.ttl = random.below(3) as u8,
        8 => sketch.sum = Sum::Absent,
        9 => {
            let wrong = Sum::Wrong(1 + random.below(65_000) as u16);
            sketch.sum = one(random, &[Sum::OtherZero, wrong, Sum::Pending]);
        }
        10 => sketch.flags = random.below(256) as u8,
        11 => sketch.tos = random.below(256) as u8,
        12 => sketch.tcp_options = vec![1; 4 * (1 + random.below(10)) as usize],
        13 => sketch.padding = 1 + random.below(40) as usize,
        14 => make_strange(random, sketch),
        _ => sketch.payload.truncate(random.below(9) as usize),
    }
}

/// Makes a packet a fragment; the offset is in units of eight bytes.
pub(super) fn make_fragment(sketch: &mut Sketch, offset: u16, more: bool, id: u32) {
    if sketch.src.is_ipv6() {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        let [a, b, c, d] = id.to_be_bytes();
        let header = vec![0, high, low, a, b, c, d];
        sketch.extensions.push((FRAGMENT, header));
    } else {
        sketch.id = id as u16;
        sketch.fragment = offset | if more { 0x2000 } else { 0 };
    }
}

/// Adds extension headers: some, or too many, or too long ones.
fn extend(random: &mut Random, sketch: &mut Sketch) {
    let count = one(random, &[1, 1, 2, 3, 6, 7]);
    for _ in 0..count {
        let number = one(random, &[0, 0, 43, 60, 60, 44, 51]);
        let units = one(random, &[0, 0, 0, 1, 1, 2, 30, 31]);
        let mut rest = match number {
            51 => vec![0; 4 * (units + 2) - 1],
            FRAGMENT => vec![0; 7],
            _ => vec![0; 8 * (units + 1) - 1],
        };
        rest[0] = units as u8;
        if number == ROUTING {
            // Segments left.
            rest[2] = u8::from(random.below(4) == 0);
        }
        sketch.extensions.push((number, rest));
    }
}

/// Gives a packet addresses that are not those of one host.
fn make_strange(random: &mut Random, sketch: &mut Sketch) {
    if random.below(2) == 0 {
        sketch.dmac = one(random, &[[0xff; 6], [1, 0, 0x5e, 0, 0, 1]]);
    } else if sketch.src.is_ipv6() {
        sketch.src = ip(one(random, &["::", "::1", "ff02::1", "::2"]));
    } else {
        let hosts = &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"];
        sketch.src = ip(one(random, hosts));
    }
    sketch.ttl = one(random, &[1, 64]);
}

/// Damages a frame.
pub(super) fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    match random.below(3) {
        0 => frame.truncate(14 + random.below(frame.len() as u32 - 13) as usize),
        1 => {
            // Versions, lengths and offsets lie among the first headers.
            let first = one(random, &[80, 80, 150]);
            let at = 12 + random.below(frame.len().min(first) as u32 - 12) as usize;
            frame[at] = random.below(256) as u8;
        }
        _ => {
            for _ in 0..=random.below(3) {
                let at = 12 + random.below(frame.len() as u32 - 12) as usize;
                frame[at] ^= 1 << random.below(8);
            }
        }
    }
}
