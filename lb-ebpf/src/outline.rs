//! What the first stage of the detour finds out about a frame, for the others.
//!
//! It lies in a per-CPU map: what is read back from memory is unknown to the verifier, which
//! keeps it from following every number of tags and extension headers through each of them.

use lb_common::verdict::Verdict;

use crate::{
    maps::OUTLINE,
    packet::Frame,
    parse::{Fragment, Network},
    vlan::Link,
};

/// Greatest offset of a network header, as a mask.
const L3_MASK: u32 = 31;
/// The same for a transport header.
const L4_MASK: u32 = 511;

/// Where the headers of a frame lie, and what they say.
#[repr(C)]
pub(crate) struct Outline {
    pub(crate) link: Link,
    l3_offset: u32,
    l4_offset: u32,
    l4_length: u32,
    fragment_id: u32,
    /// Flags: 1, a later fragment; 2, others follow.
    fragment: u32,
    proto: u8,
    ttl: u8,
    /// 1: the frame is on its way out of the node.
    leaving: u8,
    reserved: u8,
}

impl Outline {
    /// Says of a frame, before a tc program jumps to the detour with it, whether it is on its way out
    /// of the node.
    #[inline(always)]
    pub(crate) fn begin(leaving: bool) {
        if let Some(outline) = OUTLINE.get_ptr_mut(0) {
            // SAFETY: as below.
            unsafe { (*outline).leaving = leaving as u8 };
        }
    }

    /// Writes this CPU's.
    #[inline(always)]
    pub(crate) fn write<L3, A>(
        frame: &Frame,
        link: &Link,
        network: &Network<L3, A>,
    ) -> Result<(), Verdict> {
        let outline = OUTLINE.get_ptr_mut(0).ok_or(Verdict::DropInternal)?;
        let Fragment { later, more, id } = network.fragment;
        // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
        unsafe {
            *outline = Self {
                link: *link,
                l3_offset: network.l3_offset as u32,
                l4_offset: network.l4_offset as u32,
                l4_length: network.l4_length as u32,
                fragment_id: id,
                fragment: later as u32 | (more as u32) << 1,
                proto: network.proto,
                ttl: network.ttl,
                leaving: frame.leaving as u8,
                reserved: 0,
            };
        }
        Ok(())
    }

    /// Whether the frame is on its way out of the node.
    #[inline(always)]
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving != 0
    }

    /// Offset of the network header in the frame.
    #[inline(always)]
    pub(crate) fn l3_offset(&self) -> usize {
        (self.l3_offset & L3_MASK) as usize
    }

    /// The description of the frame that this is about.
    #[inline(always)]
    pub(crate) fn network<L3, A>(&self, header: *mut L3, saddr: A, daddr: A) -> Network<L3, A> {
        Network {
            header,
            saddr,
            daddr,
            l3_offset: self.l3_offset(),
            l4_offset: (self.l4_offset & L4_MASK) as usize,
            l4_length: self.l4_length as usize,
            proto: self.proto,
            ttl: self.ttl,
            fragment: Fragment {
                later: self.fragment & 1 != 0,
                more: self.fragment & 2 != 0,
                id: self.fragment_id,
            },
        }
    }
}
