//! The frame that leaves, every checksum computed over the whole of it.

use std::net::IpAddr;

use super::{
    fault::Fault,
    parse::{Parsed, UDP},
    sum,
    table::Half,
};

/// A frame, in which checksums may have either representation of zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Offsets of checksums: compared modulo 65,535.
    pub checksums: Vec<usize>,
    /// Offset of a UDP checksum, which must not become zero.
    pub never_zero: Option<usize>,
}

impl Expected {
    /// Whether `frame` is this one.
    pub fn is(&self, frame: &[u8]) -> bool {
        if frame.len() != self.bytes.len() {
            return false;
        }
        if frame == self.bytes {
            return true;
        }
        let mut same = self.bytes.clone();
        for at in &self.checksums {
            let [expected, found] = [&self.bytes, frame]
                .map(|bytes| u64::from(u16::from_be_bytes([bytes[*at], bytes[at + 1]])));
            if expected % 65_535 == found % 65_535 && (self.never_zero != Some(*at) || found != 0) {
                same[*at..at + 2].copy_from_slice(&frame[*at..at + 2]);
            }
        }
        same == frame
    }
}

fn put_address(bytes: &mut [u8], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => bytes[at..at + 4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes[at..at + 16].copy_from_slice(&ip.octets()),
    }
}

/// What becomes of a packet by its half.
pub fn apply(frame: &[u8], packet: &Parsed, half: &Half, fault: Option<Fault>) -> Expected {
    let Parsed { ip, transport } = packet;
    let (l3, l4) = (ip.l3, ip.l4);
    let mut bytes = frame.to_vec();
    let mut checksums = Vec::new();
    let mut never_zero = None;
    bytes[0..6].copy_from_slice(&half.way.dmac);
    bytes[6..12].copy_from_slice(&half.way.smac);

    let ttl = if fault == Some(Fault::KeepsTtl) {
        ip.ttl
    } else {
        ip.ttl - 1
    };
    if ip.is_v6() {
        bytes[l3 + 7] = ttl;
        put_address(&mut bytes, l3 + 8, half.new_src.ip());
        put_address(&mut bytes, l3 + 24, half.new_dst.ip());
    } else {
        let error = sum::error(&frame[l3..l4], 0);
        bytes[l3 + 8] = ttl;
        put_address(&mut bytes, l3 + 12, half.new_src.ip());
        put_address(&mut bytes, l3 + 16, half.new_dst.ip());
        bytes[l3 + 10..l3 + 12].fill(0);
        let checksum = sum::with_error(&bytes[l3..l4], 0, error);
        bytes[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
        checksums.push(l3 + 10);
    }

    bytes[l4..l4 + 2].copy_from_slice(&half.new_src.port().to_be_bytes());
    bytes[l4 + 2..l4 + 4].copy_from_slice(&half.new_dst.port().to_be_bytes());
    let end = l4 + transport.length;
    let udp = transport.proto == UDP;
    let at = l4 + if udp { 6 } else { 16 };
    let absent = udp && frame[at..at + 2] == [0, 0];
    if !absent || fault == Some(Fault::SumsUnsummed) {
        let pseudo = |src, dst| sum::pseudo(src, dst, transport.proto, transport.length);
        let error = sum::error(&frame[l4..end], pseudo(ip.src, ip.dst));
        bytes[at..at + 2].fill(0);
        let after = pseudo(half.new_src.ip(), half.new_dst.ip());
        let mut checksum = sum::with_error(&bytes[l4..end], after, error);
        if udp && checksum == 0 {
            checksum = u16::MAX;
        }
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        checksums.push(at);
        never_zero = udp.then_some(at);
    }
    Expected {
        bytes,
        checksums,
        never_zero,
    }
}
