//! Bytes to a description of the packet, or the verdict for what is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::verdict::Verdict;

use super::{fault::Fault, table::Key};

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// The same of UDP.
pub const UDP: u8 = 17;
/// Next header value of an IPv6 fragment.
const FRAGMENT: u8 = 44;

/// What the network header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Protocol of what follows.
    pub proto: u8,
    /// Offset of the network header.
    pub l3: usize,
    /// Offset of what follows it.
    pub l4: usize,
    /// Bytes of what follows, by the header's word.
    pub l4_length: usize,
    /// A part of a packet.
    pub fragment: bool,
}

/// What the transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// TCP or UDP.
    pub proto: u8,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// Bytes that the checksum covers, from the transport header on.
    pub length: usize,
}

/// A TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The network header.
    pub ip: Ip,
    /// The transport header.
    pub transport: Transport,
}

impl Ip {
    /// Whether this is IPv6.
    pub fn is_v6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// Bytes of a header of its family without options.
    pub fn header_length(&self) -> usize {
        if self.is_v6() { 40 } else { 20 }
    }

    /// Bytes of the packet, by its header's word.
    pub fn length(&self) -> usize {
        self.l4 - self.l3 + self.l4_length
    }
}

impl Parsed {
    /// What a flow is known by.
    pub fn key(&self) -> Key {
        Key {
            src: SocketAddr::new(self.ip.src, self.transport.sport),
            dst: SocketAddr::new(self.ip.dst, self.transport.dport),
            proto: self.transport.proto,
        }
    }
}

/// Reads a word in network byte order.
pub(crate) fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn v4(frame: &[u8], at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(
        frame[at],
        frame[at + 1],
        frame[at + 2],
        frame[at + 3],
    ))
}

fn v6(frame: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&frame[at..at + 16]);
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// Reads link and network header.
///
/// # Errors
///
/// The verdict for what is no IP, or whose lengths contradict each other or the frame's.
pub fn network(frame: &[u8]) -> Result<Ip, Verdict> {
    const L3: usize = 14;
    if frame.len() < L3 {
        return Err(Verdict::PassMalformed);
    }
    match word(frame, 12) {
        0x0800 => {
            if frame.len() < L3 + 20 {
                return Err(Verdict::PassMalformed);
            }
            let version = frame[L3] / 16;
            let header = usize::from(frame[L3] % 16) * 4;
            let total = usize::from(word(frame, L3 + 2));
            if version != 4 || header < 20 || total < header || L3 + total > frame.len() {
                return Err(Verdict::PassMalformed);
            }
            let more = frame[L3 + 6] & 0x20 != 0;
            let offset = word(frame, L3 + 6) & 0x1fff;
            Ok(Ip {
                src: v4(frame, L3 + 12),
                dst: v4(frame, L3 + 16),
                ttl: frame[L3 + 8],
                proto: frame[L3 + 9],
                l3: L3,
                l4: L3 + header,
                l4_length: total - header,
                fragment: more || offset != 0,
            })
        }
        0x86dd => {
            if frame.len() < L3 + 40 {
                return Err(Verdict::PassMalformed);
            }
            let length = usize::from(word(frame, L3 + 4));
            if frame[L3] / 16 != 6 || L3 + 40 + length > frame.len() {
                return Err(Verdict::PassMalformed);
            }
            Ok(Ip {
                src: v6(frame, L3 + 8),
                dst: v6(frame, L3 + 24),
                ttl: frame[L3 + 7],
                proto: frame[L3 + 6],
                l3: L3,
                l4: L3 + 40,
                l4_length: length,
                fragment: frame[L3 + 6] == FRAGMENT,
            })
        }
        _ => Err(Verdict::PassNotIp),
    }
}

/// Reads the transport header behind `ip`.
///
/// # Errors
///
/// The verdict for what is not a whole TCP or UDP packet.
pub fn transport(frame: &[u8], ip: &Ip, fault: Option<Fault>) -> Result<Transport, Verdict> {
    if ip.fragment && fault != Some(Fault::FragmentsAreWhole) {
        return Err(Verdict::PassFragment);
    }
    let rest = &frame[ip.l4.min(frame.len())..];
    match ip.proto {
        TCP => {
            if rest.len() < 20 {
                return Err(Verdict::PassMalformed);
            }
            let header = usize::from(rest[12] / 16) * 4;
            if header < 20 || header > ip.l4_length {
                return Err(Verdict::PassMalformed);
            }
            Ok(Transport {
                proto: TCP,
                sport: word(rest, 0),
                dport: word(rest, 2),
                flags: rest[13],
                length: ip.l4_length,
            })
        }
        UDP => {
            if rest.len() < 8 {
                return Err(Verdict::PassMalformed);
            }
            let length = usize::from(word(rest, 4));
            if length < 8 || length > ip.l4_length {
                return Err(Verdict::PassMalformed);
            }
            Ok(Transport {
                proto: UDP,
                sport: word(rest, 0),
                dport: word(rest, 2),
                flags: 0,
                length,
            })
        }
        _ => Err(Verdict::PassForeign),
    }
}
