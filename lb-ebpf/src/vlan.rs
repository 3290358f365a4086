//! The link header with up to two VLAN tags: read on arrival, written as the egress wants it.
//!
//! In XDP all tags lie in the frame. Of a buffer of the kernel's the outer one lies beside it
//! (`skb->vlan_tci`), the inner one in it; there the kernel's helpers put tags on and take them
//! off.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_vlan_pop, bpf_skb_vlan_push},
};
use lb_common::{
    verdict::Verdict,
    vlan::{ETHERTYPE_8021AD, ETHERTYPE_8021Q, MAX_TAGS, Tags},
};

use crate::headers::Ethernet;
use crate::packet::{Frame, Hook};

/// Bytes of a tag: EtherType and control information.
pub(crate) const TAG: usize = 4;
/// Offset of the first tag, or of the EtherType where there is none.
const TAGS_OFFSET: usize = size_of::<Ethernet>() - size_of::<u16>();
/// The priority in a tag's control information.
const PRIORITY_MASK: u16 = 0xf000;

/// The link header of a frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) tags: Tags,
    /// Priority bits of the outer tag.
    pub(crate) priority: u16,
    /// Of what comes behind the tags; network byte order.
    pub(crate) ethertype: u16,
    /// 1: the outer tag lies beside the frame, not in it.
    beside: u32,
}

impl Link {
    /// Where the network header begins.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        let inside = self.tags.count().wrapping_sub(self.beside) & 3;
        size_of::<Ethernet>() + inside as usize * TAG
    }

    /// Writes the tags that lie in the frame, and the EtherType, behind the link addresses.
    #[inline(always)]
    pub(crate) fn write_tags(&self, frame: &Frame) -> Result<(), Verdict> {
        if self.beside != 0 {
            write_tags(frame, self.tags.inner(), 0, self.ethertype)
        } else {
            write_tags(frame, self.tags, self.priority, self.ethertype)
        }
    }
}

/// Whether an EtherType (network byte order) announces a tag.
#[inline(always)]
pub(crate) fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_8021Q.to_be() || ethertype == ETHERTYPE_8021AD.to_be()
}

/// Reads the link header. `Err`: more tags than are followed, or the frame ends among them.
#[inline(always)]
pub(crate) fn read(frame: &Frame) -> Result<Link, Verdict> {
    let mut link = Link {
        tags: Tags::NONE,
        priority: 0,
        ethertype: half_word(frame, TAGS_OFFSET)?,
        beside: 0,
    };
    if let Some((kind, control)) = frame.tag_beside() {
        link.tags = link.tags.with(kind, control);
        link.priority = control & PRIORITY_MASK;
        link.beside = 1;
    }
    for position in 0..MAX_TAGS as usize {
        if !is_tag(link.ethertype) {
            return Ok(link);
        }
        if position + link.beside as usize >= MAX_TAGS as usize {
            break;
        }
        let at = TAGS_OFFSET + position * TAG;
        let control = u16::from_be(half_word(frame, at + 2)?);
        if link.tags == Tags::NONE {
            link.priority = control & PRIORITY_MASK;
        }
        link.tags = link.tags.with(u16::from_be(link.ethertype), control);
        link.ethertype = half_word(frame, at + TAG)?;
    }
    if is_tag(link.ethertype) {
        return Err(Verdict::PassNotIp);
    }
    Ok(link)
}

#[inline(always)]
fn half_word(frame: &Frame, at: usize) -> Result<u16, Verdict> {
    let word = frame.at::<u16>(at).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds.
    Ok(unsafe { word.read_unaligned() })
}

/// Gives a frame these tags in place of those it came with; the outer one's priority goes over from
/// one to the other. All pointers into the former frame are dead afterwards. In XDP the link
/// addresses must be written anew.
///
/// `Err`: no room for more tags.
#[inline(always)]
pub(crate) fn set_tags(frame: &Frame, link: &Link, tags: Tags) -> Result<Frame, Verdict> {
    let (had, wanted) = (link.tags.count(), tags.count());
    match frame.hook {
        Hook::Xdp => {
            let moved = if had == wanted {
                *frame
            } else {
                let delta = (had as i32 - wanted as i32) * TAG as i32;
                frame.move_start(delta).ok_or(Verdict::DropInternal)?
            };
            write_tags(&moved, tags, link.priority, link.ethertype)?;
            Ok(moved)
        }
        Hook::Tc => {
            let skb = frame.ctx.cast::<__sk_buff>();
            for position in 0..MAX_TAGS {
                // SAFETY: the program's own context.
                if position < had && unsafe { bpf_skb_vlan_pop(skb) } != 0 {
                    return Err(Verdict::DropInternal);
                }
            }
            for position in [1, 0] {
                if position >= wanted {
                    continue;
                }
                let (kind, vlan) = tags.tag(position);
                let control = if position == 0 {
                    vlan | link.priority
                } else {
                    vlan
                };
                // SAFETY: as above.
                if unsafe { bpf_skb_vlan_push(skb, kind.to_be(), control) } != 0 {
                    return Err(Verdict::DropInternal);
                }
            }
            Ok(frame.anew())
        }
    }
}

/// Writes tags and EtherType behind the link addresses.
#[inline(always)]
fn write_tags(frame: &Frame, tags: Tags, priority: u16, ethertype: u16) -> Result<(), Verdict> {
    let count = tags.count();
    let mut at = TAGS_OFFSET;
    for position in 0..MAX_TAGS {
        if position >= count {
            break;
        }
        let (kind, vlan) = tags.tag(position);
        let control = if position == 0 { vlan | priority } else { vlan };
        let word = frame.at::<[u16; 2]>(at).ok_or(Verdict::DropInternal)?;
        // SAFETY: `at` checked the bounds.
        unsafe { word.write_unaligned([kind.to_be(), control.to_be()]) };
        at += TAG;
    }
    let word = frame.at::<u16>(at).ok_or(Verdict::DropInternal)?;
    // SAFETY: as above.
    unsafe { word.write_unaligned(ethertype) };
    Ok(())
}
