//! Packets to backends that answer their clients themselves: with the backend's link address, or
//! within another header around them.
//!
//! Functions of the program, each checked by the verifier once and by itself: full translation, the
//! common case, must not pay for it. The header around a packet comes from the node's own address,
//! so that filters by source on the way (BCP 38) let it pass and backends can tell who sends; what
//! should spread over a backend's receive queues has the flow's hash in the IPv6 flow label (RFC
//! 6438), while IPv4 relies on devices and kernels that look at the inner header.

mod headers;

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh, xdp_md},
    helpers::generated::{bpf_redirect_neigh, bpf_skb_adjust_room, bpf_xdp_adjust_head},
};
use lb_common::{
    entry::{NextHop, hop_flags, hop_number},
    flow::{Half, Kind, Tag},
    verdict::Verdict,
    vlan::Tags,
};

use crate::{
    family::{Family, V4, V6},
    flow::{Found, SlotRef},
    headers::{Ethernet, copy_mac},
    maps::NEXTHOPS,
    packet::{Frame, Hook},
    stats::count_backend,
    transmit::{self, to_stack},
    vlan::Link,
};

/// How a next hop can be sent to.
enum Reach {
    /// By link addresses.
    Link,
    /// By the kernel, which finds the neighbour.
    Neighbour,
    /// It is the node itself.
    Stack,
}

/// How a next hop can be sent to from here.
#[inline(always)]
fn reach(frame: &Frame, next: &NextHop) -> Result<Reach, Verdict> {
    if next.ifindex == 0 {
        return Err(Verdict::PassUnresolved);
    }
    if next.flags & hop_flags::LOCAL != 0 {
        return Ok(Reach::Stack);
    }
    let back = next.flags == hop_flags::NO_XDP && next.ifindex == frame.ingress;
    let refused = next.flags & (hop_flags::NEIGHBOUR | hop_flags::NO_XDP) != 0;
    if frame.hook == Hook::Xdp && refused && !back {
        return Err(Verdict::PassUnresolved);
    }
    Ok(if next.flags & hop_flags::NEIGHBOUR != 0 {
        Reach::Neighbour
    } else {
        Reach::Link
    })
}

const L3: usize = size_of::<Ethernet>();

/// What a family adds for backends that answer clients themselves.
pub(crate) trait ServerReturn: Family {
    /// Its network header.
    type Header;
    /// EtherType, network byte order.
    const ETHERTYPE: u16;
    /// What the kernel is told of a header that is put around a packet.
    const ROOM: u64;

    /// [`direct`] as a function of the program for this hook.
    fn direct(frame: &Frame, slot: u32, tag: u64) -> u64;

    /// Bytes of a packet, by its header.
    ///
    /// # Safety
    ///
    /// The header must be valid, here and below.
    unsafe fn length(header: *const Self::Header) -> u32;

    /// The hops that a packet has left.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn hops(header: *const Self::Header) -> u8;

    /// Takes one hop off.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn age(header: *mut Self::Header);

    /// Writes the header around a packet, with the addresses of the half's rewrite.
    ///
    /// # Safety
    ///
    /// As above, and the half must be valid.
    unsafe fn wrap(
        outer: *mut Self::Header,
        inner: *const Self::Header,
        half: *const Half<Self::Addr>,
        hash: u32,
    );

    /// The neighbour with this address.
    fn neighbour(addr: &Self::Addr) -> bpf_redir_neigh;
}

/// Added to a verdict to tell it from a program's answer; see [`crate::create::Created`].
const REFUSED: u64 = 1 << 32;

/// Sends a packet of such a flow; answers with what the program has to return.
#[inline(always)]
pub(crate) fn send<F: ServerReturn>(frame: &Frame, found: &Found<F::Addr>) -> Result<u32, Verdict> {
    let answer = F::direct(frame, found.slot.index, found.tag.0);
    if answer < REFUSED {
        return Ok(answer as u32);
    }
    let verdict = answer - REFUSED;
    for candidate in [
        Verdict::PassUnresolved,
        Verdict::DropTooBig,
        Verdict::DropTtlExceeded,
        Verdict::DropContended,
    ] {
        if candidate as u64 == verdict {
            return Err(candidate);
        }
    }
    Err(Verdict::DropInternal)
}

/// See [`ServerReturn::direct`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_direct_xdp4(ctx: *mut xdp_md, slot: u32, tag: u64) -> u64 {
    answer::<V4>(Frame::again(ctx.cast(), Hook::Xdp), slot, tag)
}

/// See [`ServerReturn::direct`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_direct_xdp6(ctx: *mut xdp_md, slot: u32, tag: u64) -> u64 {
    answer::<V6>(Frame::again(ctx.cast(), Hook::Xdp), slot, tag)
}

/// See [`ServerReturn::direct`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_direct_tc4(ctx: *mut __sk_buff, slot: u32, tag: u64) -> u64 {
    answer::<V4>(Frame::again(ctx.cast(), Hook::Tc), slot, tag)
}

/// See [`ServerReturn::direct`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_direct_tc6(ctx: *mut __sk_buff, slot: u32, tag: u64) -> u64 {
    answer::<V6>(Frame::again(ctx.cast(), Hook::Tc), slot, tag)
}

/// The same for a packet that may have VLAN tags, which none of these has yet: where there are, or
/// have to be, the packet is left to the stack. Counts its `length`; zero: it is none of the client's.
#[inline(always)]
pub(crate) fn send_untagged<F: ServerReturn>(
    frame: &Frame,
    link: &Link,
    slot: u32,
    tag: Tag,
    length: u64,
) -> Result<(u32, Verdict), Verdict> {
    let slot = SlotRef::at::<F>(slot).ok_or(Verdict::DropInternal)?;
    // SAFETY: map memory; whether it is this flow's is checked before the packet is sent.
    let (hop, backend) = unsafe { ((*slot.half).hop, (*slot.half).backend) };
    let next = next_hop(hop).ok_or(Verdict::DropContended)?;
    if link.tags != Tags::NONE || next.tags != Tags::NONE {
        return Err(Verdict::PassUnresolved);
    }
    let action = send::<F>(frame, &Found { slot, tag })?;
    if length != 0 {
        count_backend(backend, Kind::Forward, length);
    }
    Ok((action, Verdict::ForwardRequest))
}

/// Whether the backend of a half answers the client itself.
#[inline(always)]
pub(crate) fn is_alone<A>(slot: &SlotRef<A>) -> bool {
    // SAFETY: map memory.
    next_hop(unsafe { (*slot.half).hop }).is_some()
}

/// The next hop behind the number of a half whose backend answers clients itself.
#[inline(always)]
pub(crate) fn next_hop(hop: u32) -> Option<&'static NextHop> {
    if hop & (hop_number::DIRECT | hop_number::SERVER_RETURN) != hop_number::SERVER_RETURN {
        return None;
    }
    NEXTHOPS.get(hop & !(hop_number::SERVER_RETURN | hop_number::TUNNEL))
}

/// As [`transmit::limits`], less the bytes of the header that is put around the packet.
#[inline(always)]
pub(crate) fn limits<F: ServerReturn>(hop: u32) -> (Tags, u32) {
    match next_hop(hop) {
        Some(next) if next.ifindex != 0 && next.flags & hop_flags::LOCAL == 0 => {
            let around = if hop & hop_number::TUNNEL != 0 {
                size_of::<F::Header>() as u32
            } else {
                0
            };
            (next.tags, next.mtu.saturating_sub(around))
        }
        _ => (Tags::NONE, u32::MAX),
    }
}

#[inline(always)]
fn answer<F: ServerReturn>(frame: Frame, slot: u32, tag: u64) -> u64 {
    match direct::<F>(frame, slot, Tag(tag)) {
        Ok(action) => action as u64,
        Err(verdict) => REFUSED + verdict as u64,
    }
}

#[inline(always)]
fn direct<F: ServerReturn>(frame: Frame, slot: u32, tag: Tag) -> Result<u32, Verdict> {
    let slot = SlotRef::at::<F>(slot).ok_or(Verdict::DropInternal)?;
    // SAFETY: map memory; whether it is this flow's is checked below.
    let hop = unsafe { (*slot.half).hop };
    if !slot.tag().same_identity(tag) {
        return Err(Verdict::DropContended);
    }
    let tunnel = hop & hop_number::TUNNEL != 0;
    let next = next_hop(hop).ok_or(Verdict::DropInternal)?;
    let reach = reach(&frame, next)?;
    if matches!(reach, Reach::Stack) {
        // A process of the node, which holds the VIP as other backends do.
        return Ok(to_stack(frame.hook));
    }
    let header = frame.at::<F::Header>(L3).ok_or(Verdict::DropInternal)?;
    // SAFETY: `at` checked the bounds, here and below.
    let (length, hops) = unsafe { (F::length(header), F::hops(header)) };
    if hops <= 1 {
        return Err(Verdict::DropTtlExceeded);
    }
    let around = if tunnel { size_of::<F::Header>() } else { 0 };
    if length + around as u32 > next.mtu && !is_merged(&frame) {
        return Err(Verdict::DropTooBig);
    }
    let frame = if tunnel {
        make_room::<F>(&frame).ok_or(Verdict::DropInternal)?
    } else {
        frame
    };
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::DropInternal)?;
    let inner = frame
        .at::<F::Header>(L3 + around)
        .ok_or(Verdict::DropInternal)?;
    // SAFETY: as above; map memory.
    unsafe {
        F::age(inner);
        if tunnel {
            let outer = frame.at::<F::Header>(L3).ok_or(Verdict::DropInternal)?;
            F::wrap(outer, inner, slot.half, (tag.0 >> 32) as u32);
        }
        copy_mac(&raw const next.dmac, &raw mut (*ethernet).destination);
        copy_mac(&raw const next.smac, &raw mut (*ethernet).source);
        (*ethernet).ethertype = F::ETHERTYPE;
    }
    if matches!(reach, Reach::Link) {
        return Ok(transmit::send(&frame, next.ifindex, next.flags));
    }
    let action = if tunnel {
        // SAFETY: no pointer but null, which asks for the route of the packet itself.
        unsafe { bpf_redirect_neigh(next.ifindex, ptr::null_mut(), 0, 0) }
    } else {
        // SAFETY: map memory.
        let mut neighbour = F::neighbour(unsafe { &(*slot.half).new_daddr });
        let size = size_of::<bpf_redir_neigh>() as i32;
        // SAFETY: valid for its size.
        unsafe { bpf_redirect_neigh(next.ifindex, &raw mut neighbour, size, 0) }
    };
    Ok(action as u32)
}

/// Whether the kernel has merged segments, or has yet to cut them: what leaves is shorter, and is
/// shortened further where a header comes around it (`bpf_skb_net_grow` of net/core/filter.c).
#[inline(always)]
fn is_merged(frame: &Frame) -> bool {
    // SAFETY: the verifier knows the context's fields.
    frame.hook == Hook::Tc && unsafe { (*frame.ctx.cast::<__sk_buff>()).gso_size } != 0
}

/// Makes room for a header between the link header, which is to be written anew, and the packet's.
#[inline(always)]
fn make_room<F: ServerReturn>(frame: &Frame) -> Option<Frame> {
    let bytes = size_of::<F::Header>() as i32;
    // SAFETY: the program's own context; no pointer into the frame is used after this.
    let answer = unsafe {
        match frame.hook {
            Hook::Xdp => bpf_xdp_adjust_head(frame.ctx.cast(), -bytes),
            Hook::Tc => bpf_skb_adjust_room(frame.ctx.cast(), bytes, BPF_ADJ_ROOM_MAC, F::ROOM),
        }
    };
    (answer == 0).then(|| Frame::again(frame.ctx, frame.hook))
}
