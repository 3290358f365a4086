//! A packet field by field, and the frame it makes.

use std::net::IpAddr;

use lb_tests::model::sum;

use super::site::MACS;
use crate::{row::Side, traffic::ip};

/// Protocol numbers (IANA).
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP6: u8 = 58;
/// IPv4's flag "don't fragment".
pub(crate) const DF: u16 = 0x4000;
/// IPv4's flag "more fragments".
pub(crate) const MF: u16 = 0x2000;

/// What stands in the transport checksum's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    Right,
    /// Zero.
    Absent,
    /// The other representation of zero, where it is zero; else the right one.
    OtherZero,
    /// One that makes the whole miss by this much.
    Wrong(u16),
}

/// The packet. Lengths and checksums follow from it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) proto: u8,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// Identification; for IPv6 the lower half of the flow label.
    pub(crate) id: u16,
    /// IPv4: flags and offset.
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: number, and the header but for its first byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// TCP: the nine lowest flag bits.
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledges: u32,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// TCP options, a multiple of four bytes.
    pub(crate) tcp_options: Vec<u8>,
    /// What follows the transport header; of other protocols than TCP and UDP, all.
    pub(crate) payload: Vec<u8>,
    pub(crate) sum: Sum,
    /// Bytes behind the packet.
    pub(crate) padding: usize,
}

impl Segment {
    /// A plain packet from one to the other, each an address and a port.
    pub(crate) fn new(proto: u8, from: (&str, u16), to: (&str, u16)) -> Self {
        Self {
            proto,
            src: ip(from.0),
            dst: ip(to.0),
            sport: from.1,
            dport: to.1,
            tos: 0,
            id: 0x1234,
            fragment: 0,
            ttl: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            flags: 0x10,
            sequence: 1,
            acknowledges: 2,
            window: 0x2000,
            urgent: 0,
            tcp_options: Vec::new(),
            payload: Vec::new(),
            sum: Sum::Right,
            padding: 0,
        }
    }

    /// The frame, as the client's or the backend's host sends it.
    pub(crate) fn from(&self, side: Side) -> Vec<u8> {
        self.framed_around(side, &self.transport())
    }

    /// The same with these bytes behind the IP header, whatever they are.
    pub(crate) fn framed_around(&self, side: Side, l4: &[u8]) -> Vec<u8> {
        let (to, from) = match side {
            Side::Front => (MACS[1], MACS[0]),
            Side::Back => (MACS[2], MACS[3]),
        };
        self.framed(to, from, l4)
    }

    /// The frame, as it comes out at the client's or the backend's host.
    pub(crate) fn at(&self, side: Side) -> Vec<u8> {
        let (to, from) = match side {
            Side::Front => (MACS[0], MACS[1]),
            Side::Back => (MACS[3], MACS[2]),
        };
        self.framed(to, from, &self.transport())
    }

    fn framed(&self, to: [u8; 6], from: [u8; 6], l4: &[u8]) -> Vec<u8> {
        let ethertype: [u8; 2] = if self.src.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let mut frame = [&to[..], &from, &ethertype, &self.around(l4)].concat();
        frame.extend((0..self.padding).map(|index| index as u8));
        frame
    }

    /// The packet without the link's header.
    pub(crate) fn packet(&self) -> Vec<u8> {
        self.around(&self.transport())
    }

    fn around(&self, l4: &[u8]) -> Vec<u8> {
        let mut packet = Vec::with_capacity(64 + l4.len());
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let length = 20 + self.options.len();
                packet.extend([0x40 | (length / 4) as u8, self.tos]);
                packet.extend(((length + l4.len()) as u16).to_be_bytes());
                packet.extend(self.id.to_be_bytes());
                packet.extend(self.fragment.to_be_bytes());
                packet.extend([self.ttl, self.proto, 0, 0]);
                packet.extend(src.octets());
                packet.extend(dst.octets());
                packet.extend(&self.options);
                let sum = sum::with_error(&packet, 0, 0);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut numbers: Vec<u8> = self.extensions.iter().map(|each| each.0).collect();
                numbers.push(self.proto);
                let mut chain = Vec::new();
                for ((_, rest), next) in self.extensions.iter().zip(&numbers[1..]) {
                    chain.push(*next);
                    chain.extend(rest);
                }
                packet.extend([0x60 | self.tos >> 4, self.tos << 4]);
                packet.extend(self.id.to_be_bytes());
                packet.extend(((chain.len() + l4.len()) as u16).to_be_bytes());
                packet.extend([numbers[0], self.ttl]);
                packet.extend(src.octets());
                packet.extend(dst.octets());
                packet.extend(chain);
            }
            _ => panic!("source and destination are of different families"),
        }
        packet.extend(l4);
        packet
    }

    /// Transport header and payload.
    pub(crate) fn transport(&self) -> Vec<u8> {
        let mut l4 = Vec::with_capacity(64 + self.payload.len());
        let at = match self.proto {
            TCP => {
                l4.extend(self.sport.to_be_bytes());
                l4.extend(self.dport.to_be_bytes());
                l4.extend(self.sequence.to_be_bytes());
                l4.extend(self.acknowledges.to_be_bytes());
                let words = ((20 + self.tcp_options.len()) / 4) as u16;
                l4.extend((words << 12 | self.flags).to_be_bytes());
                l4.extend(self.window.to_be_bytes());
                l4.extend([0, 0]);
                l4.extend(self.urgent.to_be_bytes());
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
            _ => 2,
        };
        l4.extend(&self.payload);
        let pseudo = match self.proto {
            TCP | UDP | ICMP6 => sum::pseudo(self.src, self.dst, self.proto, l4.len()),
            ICMP => 0,
            _ => return l4,
        };
        let right = match sum::with_error(&l4, pseudo, 0) {
            0 if self.proto == UDP => u16::MAX,
            right => right,
        };
        let sum = match self.sum {
            Sum::Right => right,
            Sum::OtherZero if right == 0 => u16::MAX,
            Sum::OtherZero => right,
            Sum::Absent => 0,
            Sum::Wrong(error) => sum::with_error(&l4, pseudo, u64::from(error)),
        };
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        l4
    }

    /// An ICMP or ICMPv6 message; `rest` is the second word, and `body` what follows it.
    pub(crate) fn message(
        (src, dst): (&str, &str),
        (kind, code): (u8, u8),
        rest: u32,
        body: &[u8],
    ) -> Self {
        let proto = if ip(src).is_ipv4() { ICMP } else { ICMP6 };
        let mut payload = vec![kind, code, 0, 0];
        payload.extend(rest.to_be_bytes());
        payload.extend(body);
        Self {
            payload,
            ..Self::new(proto, (src, 0), (dst, 0))
        }
    }
}
