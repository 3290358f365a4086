//! A packet with everything that packets can have, to be drawn and then built.

use std::net::IpAddr;

use lb_tests::model::{
    parse::{ICMP, ICMPV6, TCP, UDP},
    sum,
};

/// What stands in the checksum field of the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    Right,
    /// The other representation of zero, where it is zero; else as it should be.
    OtherZero,
    Absent,
    /// As it should be, and this much more.
    Wrong(u16),
    /// The sum of the pseudo-header alone: the device is to compute the rest.
    Pending,
}

/// The packet.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    pub(crate) dmac: [u8; 6],
    pub(crate) smac: [u8; 6],
    /// VLAN tags: EtherType and control word.
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// Identification, or the flow label's lower half.
    pub(crate) id: u16,
    /// Flags and offset of IPv4.
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: number, and the header but for its first byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) proto: u8,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    /// TCP options, a multiple of four bytes.
    pub(crate) tcp_options: Vec<u8>,
    /// What follows the transport header; of other protocols than TCP and UDP, all (the checksum
    /// of ICMP is put in).
    pub(crate) payload: Vec<u8>,
    pub(crate) sum: Sum,
    /// Bytes of the link behind the packet.
    pub(crate) padding: usize,
}

impl Sketch {
    /// The frame.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(128 + self.payload.len());
        frame.extend(self.dmac);
        frame.extend(self.smac);
        for (ethertype, control) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let l4 = self.transport();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00]);
                let at = frame.len();
                let length = 20 + self.options.len();
                frame.extend([0x40 | (length / 4) as u8, self.tos]);
                frame.extend(((length + l4.len()) as u16).to_be_bytes());
                frame.extend(self.id.to_be_bytes());
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([self.ttl, self.proto, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                frame.extend(&self.options);
                let checksum = sum::with_error(&frame[at..], 0, 0);
                frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd, 0x60 | self.tos >> 4, self.tos << 4]);
                frame.extend(self.id.to_be_bytes());
                let mut chain = Vec::new();
                let mut numbers: Vec<u8> = self.extensions.iter().map(|each| each.0).collect();
                numbers.push(self.proto);
                for ((_, rest), next) in self.extensions.iter().zip(&numbers[1..]) {
                    chain.push(*next);
                    chain.extend(rest);
                }
                frame.extend(((chain.len() + l4.len()) as u16).to_be_bytes());
                frame.extend([numbers[0], self.ttl]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                frame.extend(chain);
            }
            // Of two families: nothing that could be sent.
            _ => frame.extend([0x88, 0xb5]),
        }
        frame.extend(l4);
        frame.extend((0..self.padding).map(|index| index as u8));
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let mut l4 = Vec::with_capacity(64 + self.payload.len());
        let at = match self.proto {
            TCP => {
                l4.extend(self.sport.to_be_bytes());
                l4.extend(self.dport.to_be_bytes());
                l4.extend(self.sequence.to_be_bytes());
                l4.extend((!self.sequence).to_be_bytes());
                let offset = ((20 + self.tcp_options.len()) / 4) as u8;
                l4.extend([offset << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
                l4.extend(&self.tcp_options);
                16
            }
            UDP => {
                l4.extend(self.sport.to_be_bytes());
                l4.extend(self.dport.to_be_bytes());
                l4.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                l4.extend([0, 0]);
                6
            }
            ICMP | ICMPV6 if self.payload.len() >= 4 => 2,
            _ => return self.payload.clone(),
        };
        l4.extend(&self.payload);
        l4[at..at + 2].fill(0);
        let pseudo = match self.proto {
            ICMP => 0,
            proto => sum::pseudo(self.src, self.dst, proto, l4.len()),
        };
        let right = sum::with_error(&l4, pseudo, 0);
        let right = if right == 0 && self.proto == UDP {
            u16::MAX
        } else {
            right
        };
        let checksum = match self.sum {
            Sum::Right => right,
            Sum::OtherZero if right == 0 => u16::MAX,
            Sum::OtherZero => right,
            Sum::Absent => 0,
            Sum::Wrong(more) => right.wrapping_add(more),
            Sum::Pending => !sum::with_error(&[], pseudo, 0),
        };
        l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        l4
    }
}
