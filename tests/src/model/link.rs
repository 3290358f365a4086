//! The link header: addresses and up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use lb_common::verdict::Verdict;

use super::parse::word;

/// EtherTypes that announce a tag: 802.1Q and 802.1ad.
const TAG_KINDS: [u16; 2] = [0x8100, 0x88a8];
/// Tags that are read; a frame with more is not looked into.
const MAX_TAGS: usize = 2;

/// A VLAN tag without its priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its EtherType.
    pub kind: u16,
    /// Number of the VLAN.
    pub vlan: u16,
}

/// A link header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Destination address.
    pub dmac: [u8; 6],
    /// Source address.
    pub smac: [u8; 6],
    /// The outer tag first.
    pub tags: Vec<Tag>,
    /// Priority bits of the outer tag, drop eligibility among them, where they stand in it.
    pub priority: u16,
    /// Of what follows.
    pub ethertype: u16,
}

fn mac(frame: &[u8], at: usize) -> [u8; 6] {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[at..at + 6]);
    mac
}

impl Link {
    /// Reads the header of a frame.
    ///
    /// # Errors
    ///
    /// The verdict for one that ends too soon, or has too many tags.
    pub fn read(frame: &[u8]) -> Result<Self, Verdict> {
        let ethertype_at = |at: usize| {
            if frame.len() < at + 2 {
                return Err(Verdict::PassMalformed);
            }
            Ok(word(frame, at))
        };
        let mut at = 12;
        let mut ethertype = ethertype_at(at)?;
        let mut tags = Vec::new();
        let mut priority = 0;
        while TAG_KINDS.contains(&ethertype) {
            if tags.len() == MAX_TAGS {
                return Err(Verdict::PassNotIp);
            }
            let kind = ethertype;
            ethertype = ethertype_at(at + 4)?;
            let control = word(frame, at + 2);
            if tags.is_empty() {
                priority = control & 0xf000;
            }
            tags.push(Tag {
                kind,
                vlan: control & 0x0fff,
            });
            at += 4;
        }
        Ok(Self {
            dmac: mac(frame, 0),
            smac: mac(frame, 6),
            tags,
            priority,
            ethertype,
        })
    }

    /// Bytes of the header.
    pub fn length(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Whether the frame is for several stations.
    pub fn is_to_group(&self) -> bool {
        self.dmac[0] & 1 != 0
    }

    /// The header as it stands in a frame. Inner tags have no priority.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = [self.dmac, self.smac].concat();
        let mut priority = self.priority;
        for tag in &self.tags {
            bytes.extend(tag.kind.to_be_bytes());
            bytes.extend((tag.vlan | priority).to_be_bytes());
            priority = 0;
        }
        bytes.extend(self.ethertype.to_be_bytes());
        bytes
    }
}
