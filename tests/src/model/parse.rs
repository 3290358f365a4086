//! Bytes to a description of the packet, or the verdict for what is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::verdict::Verdict;

use super::{
    extension::{self, Fragment},
    fault::Fault,
    link::Link,
    table::Key,
};

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// The same of UDP.
pub const UDP: u8 = 17;
/// The same of ICMP.
pub const ICMP: u8 = 1;
/// The same of ICMPv6.
pub const ICMPV6: u8 = 58;

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
    /// Offset of what follows it and its extension headers.
    pub l4: usize,
    /// Bytes of what follows, by the header's word.
    pub l4_length: usize,
    /// It is a part of a packet.
    pub fragment: Option<Fragment>,
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
    /// Bytes that the checksum covers and that are here, from the transport header on.
    pub length: usize,
}

/// A TCP or UDP packet, or the first fragment of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The link header.
    pub link: Link,
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

    /// Bytes of the whole packet.
    pub fn length(&self) -> usize {
        self.l4 - self.l3 + self.l4_length
    }

    /// A part that does not begin with the transport header.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }

    /// A part after which others come.
    pub fn has_more(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.more)
    }

    /// Goes on behind the extension headers, if there can be any.
    ///
    /// # Errors
    ///
    /// As for [`extension::follow`]; and the verdict for headers that are longer than the packet.
    pub fn behind_extensions(self, frame: &[u8], fault: Option<Fault>) -> Result<Self, Verdict> {
        if !self.is_v6() {
            return Ok(self);
        }
        let chain = extension::follow(frame, self.l4, self.proto, fault)?;
        if chain.length > self.l4_length {
            return Err(Verdict::PassMalformed);
        }
        Ok(Self {
            proto: chain.proto,
            l4: self.l4 + chain.length,
            l4_length: self.l4_length - chain.length,
            fragment: chain.fragment,
            ..self
        })
    }

    /// Bytes of a header of its family without options.
    pub fn header_length(&self) -> usize {
        if self.is_v6() { 40 } else { 20 }
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

/// Reads an IPv4 address.
pub(crate) fn v4(frame: &[u8], at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(
        frame[at],
        frame[at + 1],
        frame[at + 2],
        frame[at + 3],
    ))
}

/// Reads an IPv6 address.
pub(crate) fn v6(frame: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&frame[at..at + 16]);
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// Reads the network header behind the link header; extension headers are not followed yet.
///
/// # Errors
///
/// The verdict for what is no IP, or whose lengths contradict each other or the frame's.
pub fn network(frame: &[u8], link: &Link) -> Result<Ip, Verdict> {
    let l3 = link.length();
    match link.ethertype {
        0x0800 => {
            if frame.len() < l3 + 20 {
                return Err(Verdict::PassMalformed);
            }
            let version = frame[l3] / 16;
            let header = usize::from(frame[l3] % 16) * 4;
            let total = usize::from(word(frame, l3 + 2));
            if version != 4 || header < 20 || total < header || l3 + total > frame.len() {
                return Err(Verdict::PassMalformed);
            }
            let more = frame[l3 + 6] & 0x20 != 0;
            let offset = word(frame, l3 + 6) & 0x1fff;
            Ok(Ip {
                src: v4(frame, l3 + 12),
                dst: v4(frame, l3 + 16),
                ttl: frame[l3 + 8],
                proto: frame[l3 + 9],
                l3,
                l4: l3 + header,
                l4_length: total - header,
                fragment: (more || offset != 0).then(|| Fragment {
                    offset,
                    more,
                    id: u32::from(word(frame, l3 + 4)),
                }),
            })
        }
        0x86dd => {
            if frame.len() < l3 + 40 {
                return Err(Verdict::PassMalformed);
            }
            let length = usize::from(word(frame, l3 + 4));
            if frame[l3] / 16 != 6 || l3 + 40 + length > frame.len() {
                return Err(Verdict::PassMalformed);
            }
            Ok(Ip {
                src: v6(frame, l3 + 8),
                dst: v6(frame, l3 + 24),
                ttl: frame[l3 + 7],
                proto: frame[l3 + 6],
                l3,
                l4: l3 + 40,
                l4_length: length,
                fragment: None,
            })
        }
        _ => Err(Verdict::PassNotIp),
    }
}

/// Reads the transport header behind `ip`, which is no later fragment.
///
/// # Errors
///
/// The verdict for what is no TCP or UDP packet, nor the beginning of one.
pub fn transport(frame: &[u8], ip: &Ip) -> Result<Transport, Verdict> {
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
            if rest.len() < 8 || ip.l4_length < 8 {
                return Err(Verdict::PassMalformed);
            }
            let length = usize::from(word(rest, 4));
            // The length is that of all fragments together.
            if length < 8 || (length > ip.l4_length && !ip.has_more()) {
                return Err(Verdict::PassMalformed);
            }
            Ok(Transport {
                proto: UDP,
                sport: word(rest, 0),
                dport: word(rest, 2),
                flags: 0,
                length: length.min(ip.l4_length),
            })
        }
        _ => Err(Verdict::PassForeign),
    }
}
