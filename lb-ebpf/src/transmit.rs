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
};

use crate::{
    flow::Found,
    maps::NEXTHOPS,
    packet::{Frame, Hook},
    parse::Packet,
    rewrite::{self, LinkAddresses, Rewrite, RewriteNetwork},
    server_return::{self, ServerReturn},
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
    /// To a backend that answers the client itself; see [`crate::server_return`].
    ServerReturn,
}

/// How a next hop can be sent to.
pub(crate) enum Reach {
    /// By link addresses.
    Link,
    /// By the kernel, which finds the neighbour.
    Neighbour,
    /// It is the node itself.
    Stack,
}

/// How a next hop can be sent to from here.
#[inline(always)]
pub(crate) fn reach(frame: &Frame, next: &NextHop) -> Result<Reach, Verdict> {
    if next.ifindex == 0 {
        return Err(Verdict::PassUnresolved);
    }
    if next.flags & (hop_flags::NEIGHBOUR | hop_flags::NO_XDP | hop_flags::LOCAL) != 0 {
        if next.flags & hop_flags::LOCAL != 0 {
            return Ok(Reach::Stack);
        }
        let back = next.flags == hop_flags::NO_XDP && next.ifindex == frame.ingress;
        if frame.hook == Hook::Xdp && !back {
            return Err(Verdict::PassUnresolved);
        }
        if next.flags & hop_flags::NEIGHBOUR != 0 {
            return Ok(Reach::Neighbour);
        }
    }
    Ok(Reach::Link)
}

/// The way of the packets of a half.
#[inline(always)]
fn way<A>(frame: &Frame, hop: u32, half: *const Half<A>) -> Result<Way, Verdict> {
    let hook = frame.hook;
    let Some(next) = NEXTHOPS.get(hop) else {
        return if hop == hop_number::LOCAL {
            // From outside, with an address of the node as its source.
            Err(Verdict::PassForeign)
        } else if hop & (hop_number::DIRECT | hop_number::SERVER_RETURN)
            == hop_number::SERVER_RETURN
        {
            Ok(Way::ServerReturn)
        } else if hop & hop_number::DIRECT == 0 {
            Err(Verdict::DropInternal)
        } else if hook == Hook::Xdp {
            Err(Verdict::PassUnresolved)
        } else {
            Ok(Way::Neighbour(hop & !hop_number::DIRECT))
        };
    };
    let next: &'static NextHop = next;
    match reach(frame, next)? {
        Reach::Link => {}
        Reach::Neighbour => return Ok(Way::Neighbour(next.ifindex)),
        Reach::Stack => return Ok(Way::Stack),
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

/// Rewrites the packet by its half and sends it on. `Ok` is the program's answer and the verdict.
#[inline(always)]
pub(crate) fn transmit<F, L3>(
    frame: &Frame,
    packet: &Packet<L3, F::Addr>,
    found: &Found<F::Addr>,
) -> Result<(u32, Verdict), Verdict>
where
    F: ServerReturn,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let half = found.slot.half;
    let mut rewrite = Rewrite::of(half, packet.ttl);
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (hop, backend) = unsafe { ((*half).hop, (*half).backend) };
    if !found.slot.tag().same_identity(found.tag) {
        return Err(Verdict::DropContended);
    }
    let way = way(frame, hop, half);
    if matches!(way, Ok(Way::ServerReturn)) {
        let action = server_return::send::<F>(frame, found)?;
        count_backend(backend, Kind::Forward, packet.len);
        return Ok((action, Verdict::ForwardRequest));
    }
    if !matches!(way, Ok(Way::Stack) | Err(Verdict::PassForeign)) {
        if packet.ttl <= 1 {
            return Err(Verdict::DropTtlExceeded);
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
        Way::Stack => to_stack(frame.hook),
        Way::ServerReturn => return Err(Verdict::DropInternal),
    };
    Ok((action, verdict))
}

/// What a program returns for a frame that goes on to the node's own stack.
#[inline(always)]
pub(crate) fn to_stack(hook: Hook) -> u32 {
    match hook {
        Hook::Xdp => xdp_action::XDP_PASS,
        Hook::Tc => tc::NEXT,
    }
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
