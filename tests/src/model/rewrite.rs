//! The packet that leaves, every checksum computed over all of it that is there.

use std::net::IpAddr;

use super::{
    fault::Fault,
    link::Link,
    parse::{Ip, Parsed, UDP},
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
    /// Offsets of UDP checksums, which must not become zero.
    pub never_zero: Vec<usize>,
}

impl Expected {
    /// A frame without checksums, from `ip` on.
    pub fn of(frame: &[u8], ip: &Ip) -> Self {
        Self {
            bytes: frame[ip.l3..].to_vec(),
            checksums: Vec::new(),
            never_zero: Vec::new(),
        }
    }

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
            let may_be_zero = !self.never_zero.contains(at);
            if expected % 65_535 == found % 65_535 && (may_be_zero || found != 0) {
                same[*at..at + 2].copy_from_slice(&frame[*at..at + 2]);
            }
        }
        same == frame
    }

    /// The same behind a link header.
    pub fn behind(mut self, link: &Link) -> Self {
        let header = link.write();
        let offsets = self.checksums.iter_mut().chain(&mut self.never_zero);
        offsets.for_each(|at| *at += header.len());
        self.bytes.splice(0..0, header);
        self
    }

    /// Writes a checksum.
    pub(super) fn put_sum(&mut self, at: usize, checksum: u16) {
        self.bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        self.checksums.push(at);
    }

    /// Writes a checksum of UDP, where zero means that there is none.
    pub(super) fn put_udp_sum(&mut self, at: usize, checksum: u16) {
        let checksum = if checksum == 0 { u16::MAX } else { checksum };
        self.put_sum(at, checksum);
        self.never_zero.push(at);
    }
}

pub(super) fn put_address(bytes: &mut [u8], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => bytes[at..at + 4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes[at..at + 16].copy_from_slice(&ip.octets()),
    }
}

/// Gives the network header at `at` other addresses, and another hop count if there is one. An
/// error in the header's checksum stays.
pub(super) fn network(
    out: &mut Expected,
    at: usize,
    length: usize,
    [src, dst]: [IpAddr; 2],
    ttl: Option<u8>,
) {
    if src.is_ipv6() {
        if let Some(ttl) = ttl {
            out.bytes[at + 7] = ttl;
        }
        put_address(&mut out.bytes, at + 8, src);
        put_address(&mut out.bytes, at + 24, dst);
        return;
    }
    let error = sum::error(&out.bytes[at..at + length], 0);
    if let Some(ttl) = ttl {
        out.bytes[at + 8] = ttl;
    }
    put_address(&mut out.bytes, at + 12, src);
    put_address(&mut out.bytes, at + 16, dst);
    out.bytes[at + 10..at + 12].fill(0);
    let checksum = sum::with_error(&out.bytes[at..at + length], 0, error);
    out.put_sum(at + 10, checksum);
}

/// The network header of what a half sends on: everything of a fragment without a transport
/// header.
pub(super) fn headers(frame: &[u8], ip: &Ip, half: &Half, fault: Option<Fault>) -> Expected {
    let ttl = if fault == Some(Fault::KeepsTtl) {
        ip.ttl
    } else {
        ip.ttl - 1
    };
    let mut out = Expected::of(frame, ip);
    let addresses = [half.new_src.ip(), half.new_dst.ip()];
    network(&mut out, 0, ip.l4 - ip.l3, addresses, Some(ttl));
    out
}

/// What becomes of a packet by its half, from the network header on.
pub(super) fn apply(frame: &[u8], packet: &Parsed, half: &Half, fault: Option<Fault>) -> Expected {
    let Parsed { ip, transport, .. } = packet;
    let mut out = headers(frame, ip, half, fault);
    let l4 = ip.l4 - ip.l3;
    out.bytes[l4..l4 + 2].copy_from_slice(&half.new_src.port().to_be_bytes());
    out.bytes[l4 + 2..l4 + 4].copy_from_slice(&half.new_dst.port().to_be_bytes());
    let end = l4 + transport.length;
    let udp = transport.proto == UDP;
    let at = l4 + if udp { 6 } else { 16 };
    let absent = udp && out.bytes[at..at + 2] == [0, 0];
    if absent && fault != Some(Fault::SumsUnsummed) {
        return out;
    }
    // Of a first fragment the rest is elsewhere, but changes nothing.
    let pseudo = |src, dst| sum::pseudo(src, dst, transport.proto, transport.length);
    let before = &frame[ip.l4..ip.l4 + transport.length];
    let error = sum::error(before, pseudo(ip.src, ip.dst));
    out.bytes[at..at + 2].fill(0);
    let after = pseudo(half.new_src.ip(), half.new_dst.ip());
    let checksum = sum::with_error(&out.bytes[l4..end], after, error);
    if udp {
        out.put_udp_sum(at, checksum);
    } else {
        out.put_sum(at, checksum);
    }
    out
}
