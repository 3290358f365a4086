//! The frame that leaves, every checksum computed over the whole of it.

use std::net::IpAddr;

use lb_agent::domain::service::Forwarding;

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

/// What becomes of a packet whose backend answers the client itself: one hop less, and for a tunnel
/// another header around it.
pub fn pass_on(
    frame: &[u8],
    packet: &Parsed,
    half: &Half,
    hash: u64,
    fault: Option<Fault>,
) -> Expected {
    let ip = &packet.ip;
    let mut inner = frame[ip.l3..].to_vec();
    let mut checksums = Vec::new();
    if ip.is_v6() {
        inner[7] -= 1;
    } else {
        let error = sum::error(&inner[..ip.l4 - ip.l3], 0);
        inner[8] -= 1;
        inner[10..12].fill(0);
        let checksum = sum::with_error(&inner[..ip.l4 - ip.l3], 0, error);
        inner[10..12].copy_from_slice(&checksum.to_be_bytes());
        checksums.push(10);
    }
    let mut bytes = [&half.way.dmac[..], &half.way.smac, &frame[12..14]].concat();
    if half.forwarding == Forwarding::DsrIpip {
        let class = if fault == Some(Fault::DropsClass) {
            0
        } else if ip.is_v6() {
            inner[0] << 4 | inner[1] >> 4
        } else {
            inner[1]
        };
        let mut outer = Vec::new();
        if ip.is_v6() {
            let label = (hash >> 32) as u32 & 0x000f_ffff;
            outer.extend((6 << 28 | u32::from(class) << 20 | label).to_be_bytes());
            outer.extend((ip.length() as u16).to_be_bytes());
            outer.extend([41, 64]);
            outer.extend([0; 32]);
            put_address(&mut outer, 8, half.new_src.ip());
            put_address(&mut outer, 24, half.new_dst.ip());
        } else {
            outer.extend([0x45, class]);
            outer.extend((ip.length() as u16 + 20).to_be_bytes());
            outer.extend(&inner[4..6]);
            outer.extend([inner[6] & 0x40, 0, 64, 4]);
            outer.extend([0; 10]);
            put_address(&mut outer, 12, half.new_src.ip());
            put_address(&mut outer, 16, half.new_dst.ip());
            let checksum = sum::with_error(&outer, 0, 0);
            outer[10..12].copy_from_slice(&checksum.to_be_bytes());
            checksums.iter_mut().for_each(|at| *at += outer.len());
            checksums.push(10);
        }
        bytes.extend(outer);
    }
    bytes.extend(inner);
    Expected {
        bytes,
        checksums: checksums.into_iter().map(|at| ip.l3 + at).collect(),
        never_zero: None,
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
