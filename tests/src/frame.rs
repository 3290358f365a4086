//! What frames can be besides plain: tagged, fragmented, with extension headers, ICMP. Made of
//! frames that [`crate::packet::Packet::build`] made, with checksums computed from scratch.

use std::net::IpAddr;

use lb_common::checksum;

/// Where the network header of an untagged frame begins.
pub const L3: usize = 14;

/// Whether an untagged frame is IPv6.
fn is_v6(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd]
}

fn set(frame: &mut [u8], at: usize, value: usize) {
    frame[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Bytes of an IPv4 header with its checksum made right.
fn seal(header: &mut [u8]) {
    set(header, 10, 0);
    let sum = checksum::compute(header, 0);
    set(header, 10, usize::from(sum));
}

/// The frame with VLAN tags, the outer one first: EtherType and control information of each.
pub fn tagged(mut frame: Vec<u8>, tags: &[(u16, u16)]) -> Vec<u8> {
    for (ethertype, control) in tags.iter().rev() {
        let tag = [ethertype.to_be_bytes(), control.to_be_bytes()].concat();
        frame.splice(12..12, tag);
    }
    frame
}

/// The IPv6 frame with extension headers in front of what it carries. Each is its kind, and its
/// bytes but for the first, which says what follows.
pub fn extended(mut frame: Vec<u8>, headers: &[(u8, &[u8])]) -> Vec<u8> {
    for (kind, rest) in headers.iter().rev() {
        let follows = std::mem::replace(&mut frame[L3 + 6], *kind);
        let header = [&[follows], *rest].concat();
        frame.splice(L3 + 40..L3 + 40, header);
    }
    let length = frame.len() - L3 - 40;
    set(&mut frame, L3 + 4, length);
    frame
}

/// The frame's IP packet in fragments of at most `length` bytes of payload each (a multiple of
/// eight), in order.
pub fn fragments(frame: &[u8], length: usize, id: u32) -> Vec<Vec<u8>> {
    let v6 = is_v6(frame);
    let headers = if v6 {
        L3 + 40
    } else {
        L3 + usize::from(frame[L3] & 15) * 4
    };
    let pieces: Vec<&[u8]> = frame[headers..].chunks(length).collect();
    let last = pieces.len() - 1;
    let piece = |(number, piece): (usize, &&[u8])| {
        let mut out = frame[..headers].to_vec();
        let offset = number * length;
        if v6 {
            let mut header = vec![0];
            header.extend(((offset | usize::from(number != last)) as u16).to_be_bytes());
            header.extend(id.to_be_bytes());
            out.extend(*piece);
            extended(out, &[(44, &header)])
        } else {
            set(&mut out, L3 + 2, headers - L3 + piece.len());
            set(&mut out, L3 + 4, id as usize & 0xffff);
            let more = if number == last { 0 } else { 0x2000 };
            set(&mut out, L3 + 6, more | (offset / 8));
            seal(&mut out[L3..]);
            out.extend(*piece);
            out
        }
    };
    pieces.iter().enumerate().map(piece).collect()
}

/// An ICMP or ICMPv6 message in a frame.
#[derive(Clone, Debug)]
pub struct Message {
    /// Destination and source link address.
    pub macs: ([u8; 6], [u8; 6]),
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// The IPv4 header's id, and flags and offset.
    pub id_fragment: (u16, u16),
    /// Kind and code.
    pub kind: [u8; 2],
    /// The last four bytes of the ICMP header.
    pub rest: u32,
    /// What follows.
    pub body: Vec<u8>,
}

impl Message {
    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let mut icmp = self.kind.to_vec();
        icmp.extend([0, 0]);
        icmp.extend(self.rest.to_be_bytes());
        icmp.extend(&self.body);
        let mut frame = [self.macs.0, self.macs.1].concat();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let sum = checksum::compute(&icmp, 0);
                set(&mut icmp, 2, usize::from(sum));
                frame.extend([8, 0]);
                let mut header = vec![0x45, self.tos];
                header.extend(((20 + icmp.len()) as u16).to_be_bytes());
                header.extend(self.id_fragment.0.to_be_bytes());
                header.extend(self.id_fragment.1.to_be_bytes());
                header.extend([self.ttl, 1, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                seal(&mut header);
                frame.extend(header);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let words = [src.octets(), dst.octets()].concat();
                let seed: u32 = words
                    .chunks_exact(2)
                    .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
                    .sum();
                let sum = checksum::compute(&icmp, seed + 58 + icmp.len() as u32);
                set(&mut icmp, 2, usize::from(sum));
                frame.extend([0x86, 0xdd]);
                frame.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                frame.extend((icmp.len() as u16).to_be_bytes());
                frame.extend([58, self.ttl]);
                frame.extend(words);
            }
            _ => panic!("source and destination are of different families"),
        }
        frame.extend(icmp);
        frame
    }
}
