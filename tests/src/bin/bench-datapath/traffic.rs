//! The packets: flows by their number, in both directions.
//!
//! Flow `n` of a population goes from one client, port 16384 + n / 64, to one of 64 VIPs, each of
//! which has one backend: address n % 8, port n / 8 % 8 of it. So the reply's addresses and ports
//! follow from the number as well: the client's port is kept, for nobody else has it there.

use anyhow::{Result, ensure};
use lb_common::{
    IPPROTO_TCP, IPPROTO_UDP,
    bench::{FIELDS, FIRST_WORD, FRAME, Field, Template, WORDS},
};
use lb_tests::{
    packet::Packet,
    world::{CLIENT, CLIENT6, NODE, NODE6},
};

/// Number of VIPs of each protocol and family.
pub(crate) const VIPS: u32 = 64;
/// The client's port in flow 0.
const CLIENT_PORT: u16 = 16_384;
/// The backends' first port.
const BACKEND_PORT: u16 = 8080;

/// Which side a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ingress {
    /// The clients'.
    Front,
    /// The backends'.
    Back,
}

/// A packet and how it varies.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// What the driver is told.
    pub(crate) template: Template,
    /// Where it comes in.
    pub(crate) ingress: Ingress,
}

/// Flows of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Population {
    /// IPv6 instead of IPv4.
    pub(crate) v6: bool,
    /// UDP instead of TCP.
    pub(crate) udp: bool,
    /// How many; a power of two.
    pub(crate) flows: u32,
}

impl Population {
    /// IANA protocol number.
    pub(crate) fn protocol(self) -> u8 {
        if self.udp { IPPROTO_UDP } else { IPPROTO_TCP }
    }

    /// Port of the VIPs.
    pub(crate) fn vip_port(self) -> u16 {
        if self.udp { 53 } else { 80 }
    }

    /// VIP `number` of [`VIPS`], without the port.
    pub(crate) fn vip(self, number: u32) -> String {
        if self.v6 {
            format!("2001:db8:100::{:x}", 64 + number)
        } else {
            format!("198.51.100.{}", 64 + number)
        }
    }

    /// The backend of VIP `number`.
    pub(crate) fn backend(self, number: u32) -> String {
        let (address, port) = (2 + number % 8, u32::from(BACKEND_PORT) + number / 8);
        if self.v6 {
            format!("[fd99:1::{address}]:{port}")
        } else {
            format!("10.99.1.{address}:{port}")
        }
    }

    /// Packets of the first `flows` flows, from the client; `flags` count for TCP only.
    pub(crate) fn requests(self, flows: u32, flags: u8) -> Result<Traffic> {
        let client = if self.v6 { CLIENT6 } else { CLIENT };
        let (vip, port) = (self.vip(0), self.vip_port());
        let packet = self.packet((client, CLIENT_PORT), (&vip, port), flags);
        let fields = [
            (Part::Destination, 0, VIPS - 1),
            (Part::SourcePort, 6, u32::MAX),
        ];
        Traffic::new(&packet, Ingress::Front, flows, &fields)
    }

    /// Packets of the first `flows` flows, from the backends.
    pub(crate) fn replies(self, flows: u32, flags: u8) -> Result<Traffic> {
        let (backend, node) = if self.v6 {
            ("fd99:1::2", NODE6)
        } else {
            ("10.99.1.2", NODE)
        };
        let packet = self.packet((backend, BACKEND_PORT), (node, CLIENT_PORT), flags);
        let fields = [
            (Part::Source, 0, 7),
            (Part::SourcePort, 3, 7),
            (Part::DestinationPort, 6, u32::MAX),
        ];
        Traffic::new(&packet, Ingress::Back, flows, &fields)
    }

    fn packet(self, from: (&str, u16), to: (&str, u16), flags: u8) -> Packet {
        if self.udp {
            Packet::udp(from.0, from.1, to.0, to.1)
        } else {
            Packet::tcp(from.0, from.1, to.0, to.1, flags)
        }
    }
}

/// A part of the packet that follows the flow's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Source address, last 32 bits.
    Source,
    /// The same, but the last eight bits.
    SourceNetwork,
    /// Destination address, last 32 bits.
    Destination,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestinationPort,
}

impl Part {
    /// Offset of the part's last byte, which its lowest bits are in, and bits to leave out there.
    fn end(self, v6: bool) -> (usize, u32) {
        let (source, ports) = if v6 { (22 + 15, 54) } else { (26 + 3, 34) };
        match self {
            Part::Source => (source, 0),
            Part::SourceNetwork => (source, 8),
            Part::Destination => (ports - 1, 0),
            Part::SourcePort => (ports + 1, 0),
            Part::DestinationPort => (ports + 3, 0),
        }
    }
}

impl Traffic {
    /// `packet`, varied over `flows` flows (a power of two): each part by the bits of the flow's
    /// number that are left of it after so many, under a mask.
    pub(crate) fn new(
        packet: &Packet,
        ingress: Ingress,
        flows: u32,
        parts: &[(Part, u32, u32)],
    ) -> Result<Self> {
        ensure!(flows.is_power_of_two(), "{flows} flows: no power of two");
        ensure!(parts.len() <= FIELDS, "more parts than the driver can vary");
        let mut packet = packet.clone();
        // As long as the driver's frame.
        packet.payload = Vec::new();
        packet.payload = vec![0x2a; FRAME - packet.build().len()];
        let frame = packet.build();
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(frame[FIRST_WORD..].chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        let mut fields = [Field::default(); FIELDS];
        for (field, (part, shift, mask)) in fields.iter_mut().zip(parts) {
            let (last, skip) = part.end(packet.src.is_ipv6());
            let word = (last - FIRST_WORD) / 8;
            let behind = (FIRST_WORD + word * 8 + 7 - last) as u32;
            *field = Field {
                word: word as u32,
                shift: *shift,
                mask: *mask,
                left: behind * 8 + skip,
            };
        }
        Ok(Self {
            template: Template {
                first: u64::from_ne_bytes(frame[..8].try_into()?),
                words,
                fields,
                mask: flows - 1,
                reserved: 0,
            },
            ingress,
        })
    }

    /// The frame before anything varies.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; FRAME];
        frame[..8].copy_from_slice(&self.template.first.to_ne_bytes());
        for (bytes, word) in frame[FIRST_WORD..]
            .chunks_exact_mut(8)
            .zip(self.template.words)
        {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        frame
    }

    /// Number of flows.
    pub(crate) fn flows(&self) -> u32 {
        self.template.mask + 1
    }
}
