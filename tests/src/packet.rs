//! Frames for test runs: built field by field, with checksums computed from scratch.

use std::net::IpAddr;

use lb_common::checksum;

/// TCP flag bits.
pub use lb_common::flow::tcp_flags::{ACK, FIN, RST, SYN};

/// A TCP or UDP packet in an Ethernet frame. Change fields freely, then [`Packet::build`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Destination link address.
    pub dmac: [u8; 6],
    /// Source link address.
    pub smac: [u8; 6],
    /// Source address.
    pub src: IpAddr,
    /// Destination address; of the same family.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// IANA protocol number: TCP or UDP.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags.
    pub flags: u8,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv4 fragment field: flags and offset.
    pub fragment: u16,
    /// UDP without a checksum.
    pub no_checksum: bool,
    /// What follows the transport header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A TCP packet with a small payload.
    pub fn tcp(src: &str, sport: u16, dst: &str, dport: u16, flags: u8) -> Self {
        Self {
            dmac: [2, 0, 0, 0, 0, 1],
            smac: [2, 0, 0, 0, 0, 2],
            src: parse(src),
            dst: parse(dst),
            sport,
            dport,
            proto: 6,
            ttl: 64,
            flags,
            options: Vec::new(),
            fragment: 0,
            no_checksum: false,
            payload: b"payload".to_vec(),
        }
    }

    /// A UDP datagram with a small payload.
    pub fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> Self {
        Self {
            proto: 17,
            ..Self::tcp(src, sport, dst, dport, 0)
        }
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.dmac);
        frame.extend(self.smac);
        let l4 = self.transport();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend(0x0800_u16.to_be_bytes());
                let header_length = 20 + self.options.len();
                let mut header = vec![0x40 | (header_length / 4) as u8, 0];
                header.extend(((header_length + l4.len()) as u16).to_be_bytes());
                header.extend([0x12, 0x34]);
                header.extend(self.fragment.to_be_bytes());
                header.extend([self.ttl, self.proto, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header.extend(&self.options);
                let sum = checksum::compute(&header, 0);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend(0x86dd_u16.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend((l4.len() as u16).to_be_bytes());
                frame.extend([self.proto, self.ttl]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            _ => panic!("source and destination are of different families"),
        }
        frame.extend(l4);
        frame
    }

    /// Transport header, checksummed, and payload.
    fn transport(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend(self.sport.to_be_bytes());
        l4.extend(self.dport.to_be_bytes());
        let checksum_at = if self.proto == 6 {
            l4.extend([
                0, 0, 0, 1, 0, 0, 0, 2, 0x50, self.flags, 0x20, 0, 0, 0, 0, 0,
            ]);
            16
        } else {
            l4.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            l4.extend([0, 0]);
            6
        };
        l4.extend(&self.payload);
        if !self.no_checksum {
            let sum = checksum::compute(&l4, self.pseudo_header(l4.len()));
            let sum = if sum == 0 && self.proto == 17 {
                u16::MAX
            } else {
                sum
            };
            l4[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        l4
    }

    /// Unfolded sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1).
    fn pseudo_header(&self, length: usize) -> u32 {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words = [octets(self.src), octets(self.dst)].concat();
        let addresses: u32 = words
            .chunks_exact(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum();
        addresses + u32::from(self.proto) + length as u32
    }
}

fn parse(ip: &str) -> IpAddr {
    ip.parse()
        .unwrap_or_else(|_| panic!("`{ip}` is no IP address"))
}

/// What a backend answers to a packet that it received: everything turned round.
pub fn answer_to(packet: &Packet, flags: u8) -> Packet {
    Packet {
        dmac: packet.smac,
        smac: packet.dmac,
        src: packet.dst,
        dst: packet.src,
        sport: packet.dport,
        dport: packet.sport,
        ttl: 64,
        flags,
        ..packet.clone()
    }
}

/// Reads a frame back that [`Packet::build`] or a program made of one. Every checksum is
/// recomputed.
///
/// # Errors
///
/// What is wrong with the frame, in words.
pub fn dissect(frame: &[u8]) -> Result<Packet, String> {
    let at = |range: std::ops::Range<usize>| {
        frame
            .get(range.clone())
            .ok_or_else(|| format!("frame ends before {range:?}"))
    };
    let mac = |offset: usize| -> Result<[u8; 6], String> {
        at(offset..offset + 6)?
            .try_into()
            .map_err(|_| "no link address".to_owned())
    };
    let word = |offset: usize| -> Result<u16, String> {
        let bytes = at(offset..offset + 2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (src, dst, ttl, proto, fragment, options, l4_at, end) = match word(12)? {
        0x0800 => {
            let header_length = usize::from(at(14..15)?[0] & 15) * 4;
            let header = at(14..14 + header_length)?;
            if checksum::compute(header, 0) != 0 {
                return Err("the IPv4 header's checksum is wrong".into());
            }
            let address = |offset: usize| -> Result<IpAddr, String> {
                let octets: [u8; 4] = at(offset..offset + 4)?
                    .try_into()
                    .map_err(|_| "no address".to_owned())?;
                Ok(IpAddr::from(octets))
            };
            let end = 14 + usize::from(word(16)?);
            (
                address(26)?,
                address(30)?,
                at(22..23)?[0],
                at(23..24)?[0],
                word(20)?,
                header[20..].to_vec(),
                14 + header_length,
                end,
            )
        }
        0x86dd => {
            let address = |offset: usize| -> Result<IpAddr, String> {
                let octets: [u8; 16] = at(offset..offset + 16)?
                    .try_into()
                    .map_err(|_| "no address".to_owned())?;
                Ok(IpAddr::from(octets))
            };
            let end = 54 + usize::from(word(18)?);
            (
                address(22)?,
                address(38)?,
                at(21..22)?[0],
                at(20..21)?[0],
                0,
                Vec::new(),
                54,
                end,
            )
        }
        other => return Err(format!("EtherType {other:#06x}")),
    };
    let l4 = at(l4_at..end)?;
    let (header_length, checksum_at, flags) = if proto == 6 {
        (20, 16, l4[13])
    } else {
        (8, 6, 0)
    };
    let packet = Packet {
        dmac: mac(0)?,
        smac: mac(6)?,
        src,
        dst,
        sport: word(l4_at)?,
        dport: word(l4_at + 2)?,
        proto,
        ttl,
        flags,
        options,
        fragment,
        no_checksum: proto == 17 && word(l4_at + checksum_at)? == 0,
        payload: l4[header_length..].to_vec(),
    };
    if !packet.no_checksum && checksum::compute(l4, packet.pseudo_header(l4.len())) != 0 {
        return Err("the transport checksum is wrong".into());
    }
    Ok(packet)
}
