//! Packets as the driver is told of them: one frame, and what of it follows the flow's number.

use anyhow::{Result, ensure};
use lb_common::bench::{FIELDS, FIRST_WORD, FRAME, Field, Template, WORDS, fold};

use crate::packet::Packet;

/// Which side a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// The clients'.
    Front,
    /// The backends'.
    Back,
}

/// A packet and how it varies.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// What the driver is told.
    pub template: Template,
    /// Where it comes in.
    pub ingress: Ingress,
}

/// A part of the packet that follows the flow's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Source address, last 32 bits.
    Source,
    /// The same, but the last eight bits.
    SourceNetwork,
    /// The last 32 bits of the upper half of an IPv6 source address.
    SourceSubnet,
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
            Part::SourceSubnet => (source - 8, 0),
            Part::Destination => (ports - 1, 0),
            Part::SourcePort => (ports + 1, 0),
            Part::DestinationPort => (ports + 3, 0),
        }
    }
}

impl Traffic {
    /// `packet`, varied over `flows` flows (a power of two): each part by the bits of the flow's
    /// number that are left of it after so many, under a mask.
    ///
    /// # Errors
    ///
    /// A number of flows or of parts that the driver does not know.
    pub fn new(
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
                fold: fold(flows - 1),
            },
            ingress,
        })
    }

    /// The frame before anything varies.
    pub fn frame(&self) -> Vec<u8> {
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
    pub fn flows(&self) -> u32 {
        self.template.mask + 1
    }
}
