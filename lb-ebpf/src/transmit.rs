//! The last step of a packet of a known flow: rewritten by its half, and sent on.

use core::ptr;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_redirect, bpf_redirect_neigh},
};
use lb_common::{
    entry::{NextHop, hop_flags, hop_number},
    flow::{Half, Kind},
    maps::MAX_INTERFACES,
    verdict::Verdict,
    vlan::Tags,
};

use crate::{
    family::Family,
    flow::Found,
    maps::NEXTHOPS,
    packet::{Frame, Hook},
    parse::Packet,
    pipeline::Stop,
    rewrite::{self, LinkAddresses, Rewrite, RewriteNetwork},
    stats::count_backend,
    tc,
};

/// How a packet leaves.
enum Way {
    /// Out of the interface of this next hop, with these link addresses.
    Link(&'static NextHop, LinkAddresses),
    /// Out of an interface, to the neighbour that the kernel finds, or waits for.
    Neighbour(u32),
    /// To the node's own stack.
    Stack,
}

/// The way of the packets of a half.
#[inline(always)]
fn way<A>(frame: &Frame, hop: u32, half: *const Half<A>) -> Result<Way, Verdict> {
    let hook = frame.hook;
    let Some(next) = NEXTHOPS.get(hop) else {
        return if hop == hop_number::LOCAL {
            // From outside, with an address of the node as its source.
            Err(Verdict::PassForeign)
        } else if hop & hop_number::DIRECT == 0 {
            Err(Verdict::DropInternal)
        } else if hook == Hook::Xdp {
            Err(Verdict::PassUnresolved)
        } else {
            Ok(Way::Neighbour(hop & !hop_number::DIRECT))
        };
    };
    let next: &'static NextHop = next;
    if next.ifindex == 0 {
        return Err(Verdict::PassUnresolved);
    }
    if next.flags & (hop_flags::NEIGHBOUR | hop_flags::NO_XDP | hop_flags::LOCAL) != 0 {
        if next.flags & hop_flags::LOCAL != 0 {
            return Ok(Way::Stack);
        }
        let back = next.flags == hop_flags::NO_XDP && next.ifindex == frame.ingress;
        if hook == Hook::Xdp && !back {
            return Err(Verdict::PassUnresolved);
        }
        if next.flags & hop_flags::NEIGHBOUR != 0 {
            return Ok(Way::Neighbour(next.ifindex));
        }
    }
    let destination = if hop >= MAX_INTERFACES as u32 {
        &raw const next.dmac
    } else {
        // SAFETY: map memory; only its address is taken.
        unsafe { &raw const (*half).dmac }
    };
    let source = &raw const next.smac;
    Ok(Way::Link(
        next,
        LinkAddresses {
            destination,
            source,
        },
    ))
}

/// Whether packets leave by this hop with VLAN tags on.
#[inline(always)]
fn has_tags(hop: u32, learned: Tags) -> bool {
    match NEXTHOPS.get(hop) {
        Some(next) if hop >= MAX_INTERFACES as u32 => next.tags != Tags::NONE,
        Some(_) => learned != Tags::NONE,
        None => false,
    }
}

/// Whether a packet of this many bytes is not plain for its way out: tagged, or too long. What
/// goes to the node's own stack may have any length, and keeps its tags.
#[inline(always)]
fn needs_detour(hop: u32, learned: Tags, length: usize) -> bool {
    let Some(next) = NEXTHOPS.get(hop) else {
        return false;
    };
    let next: &NextHop = next;
    if next.ifindex == 0 || next.flags & hop_flags::LOCAL != 0 {
        return false;
    }
    length > next.mtu as usize || has_tags(hop, learned)
}

/// Rewrites the packet by its half and sends it on. `Ok` is the program's answer and the verdict.
#[inline(always)]
pub(crate) fn transmit<F, L3>(
    frame: &Frame,
    packet: &Packet<L3, F::Addr>,
    found: &Found<F::Addr>,
) -> Result<(u32, Verdict), Stop>
where
    F: Family,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let half = found.slot.half;
    let mut rewrite = Rewrite::of(half, packet.ttl);
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (hop, backend, learned) = unsafe { ((*half).hop, (*half).backend, (*half).tags) };
    if !found.slot.tag().same_identity(found.tag) {
        return Err(Stop::Left(Verdict::DropContended));
    }
    if needs_detour(hop, learned, packet.l3_length) {
        if frame.hook == Hook::Xdp {
            return Err(Stop::Detour);
        }
        // The kernel's own path cares for MTUs behind tc; tags are for XDP to write.
        if has_tags(hop, learned) {
            return Err(Stop::Left(Verdict::PassUnresolved));
        }
    }
    let way = way(frame, hop, half);
    if !matches!(way, Ok(Way::Stack) | Err(Verdict::PassForeign)) {
        if packet.ttl <= 1 {
            return Err(Stop::Left(Verdict::DropTtlExceeded));
        }
        rewrite.ttl = packet.ttl - 1;
    }
    let way = way?;
    let reply = (found.tag.0 >> 16) as u8 == Kind::Reply as u8;
    let (kind, verdict) = if reply {
        (Kind::Reply, Verdict::ForwardReply)
    } else {
        (Kind::Forward, Verdict::ForwardRequest)
    };
    count_backend(backend, kind, packet.len);
    if let Way::Link(_, addresses) = &way {
        // SAFETY: the frame has not been resized since it was parsed; map memory.
        unsafe { addresses.write(packet.ethernet) };
    }
    // SAFETY: as above.
    unsafe { rewrite::apply(frame, packet, &rewrite) };
    let action = match way {
        Way::Link(next, _) => send(frame, next),
        Way::Neighbour(ifindex) => {
            // SAFETY: no pointer but null, which asks for the route of the packet itself.
            let action = unsafe { bpf_redirect_neigh(ifindex, ptr::null_mut(), 0, 0) };
            action as u32
        }
        Way::Stack => match frame.hook {
            Hook::Xdp => xdp_action::XDP_PASS,
            Hook::Tc => tc::NEXT,
        },
    };
    Ok((action, verdict))
}

/// Sends the frame, whose link addresses are written, out of the interface of a next hop; answers
/// with what the program has to return.
#[inline(always)]
pub(crate) fn send(frame: &Frame, next: &NextHop) -> u32 {
    let back = frame.hook == Hook::Xdp && next.ifindex == frame.ingress;
    if back && next.flags & hop_flags::NO_TX == 0 {
        return xdp_action::XDP_TX;
    }
    // SAFETY: no pointer is passed.
    let action = unsafe { bpf_redirect(next.ifindex, 0) };
    action as u32
}
