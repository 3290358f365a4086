//! The link header with up to two VLAN tags: read on arrival, written as the egress wants it.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect};
use lb_common::{
    verdict::Verdict,
    vlan::{ETHERTYPE_8021AD, ETHERTYPE_8021Q, MAX_TAGS, Tags},
};

use crate::packet::{Ethernet, Frame, copy_mac};

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
}

impl Link {
    /// Where the network header begins.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        size_of::<Ethernet>() + self.tags.count() as usize * TAG
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
    };
    for position in 0..MAX_TAGS as usize {
        if !is_tag(link.ethertype) {
            return Ok(link);
        }
        let at = TAGS_OFFSET + position * TAG;
        let control = u16::from_be(half_word(frame, at + 2)?);
        if position == 0 {
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

/// [`Way::ifindex`] of the node's own stack.
pub(crate) const STACK: u32 = 0;

/// Where a frame goes on the link. The addresses lie in map memory.
pub(crate) struct Way {
    pub(crate) ifindex: u32,
    pub(crate) tags: Tags,
    pub(crate) dmac: *const [u8; 6],
    pub(crate) smac: *const [u8; 6],
}

/// Gives a frame whose network header is ready the link header of its way, and sends it. The
/// outer tag's priority goes over from one tag to the other. All pointers into the frame are dead
/// afterwards.
///
/// `Err`: no room for more tags.
#[inline(always)]
pub(crate) fn send(frame: &Frame, link: &Link, way: &Way) -> Result<u32, Verdict> {
    if way.ifindex == STACK {
        return Ok(xdp_action::XDP_PASS);
    }
    let ingress = frame.ingress;
    let (had, wanted) = (link.tags.count(), way.tags.count());
    if had == wanted {
        write(frame, link, way)?;
    } else {
        let delta = (had as i32 - wanted as i32) * TAG as i32;
        let moved = frame.move_start(delta).ok_or(Verdict::DropInternal)?;
        write(&moved, link, way)?;
    }
    if way.ifindex == ingress {
        return Ok(xdp_action::XDP_TX);
    }
    // SAFETY: no pointer is passed.
    Ok(unsafe { bpf_redirect(way.ifindex, 0) } as u32)
}

#[inline(always)]
fn write(frame: &Frame, link: &Link, way: &Way) -> Result<(), Verdict> {
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::DropInternal)?;
    // SAFETY: the caller's map memory; `at` checked the bounds of the frame.
    unsafe {
        copy_mac(way.dmac, &raw mut (*ethernet).destination);
        copy_mac(way.smac, &raw mut (*ethernet).source);
    }
    write_tags(frame, way.tags, link.priority, link.ethertype)
}

/// Writes tags and EtherType behind the link addresses.
#[inline(always)]
pub(crate) fn write_tags(
    frame: &Frame,
    tags: Tags,
    priority: u16,
    ethertype: u16,
) -> Result<(), Verdict> {
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
