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
    flow::Found,
    headers::Ethernet,
    maps::NEXTHOPS,
    outline::Outline,
    packet::{Frame, Hook},
    parse::Packet,
    pipeline::Stop,
    rewrite::{self, LinkAddresses, Rewrite, RewriteNetwork},
    server_return::{self, ServerReturn},
    settings::interface_position,
    stats::count_backend,
    tc,
    vlan::{self, Link},
};

/// How a packet leaves. All fields have a value whatever the kind: the compiler keeps those of no
/// importance in registers, and the verifier wants to know what is in there.
pub(crate) struct Way {
    kind: WayKind,
    /// Interface of [`WayKind::Link`] and [`WayKind::Neighbour`].
    ifindex: u32,
    /// [`hop_flags`] of [`WayKind::Link`] and [`WayKind::ServerReturn`].
    flags: u32,
    /// Link addresses of [`WayKind::Link`].
    addresses: LinkAddresses,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WayKind {
    /// Out of an interface, with these link addresses.
    Link,
    /// Out of an interface, to the neighbour that the kernel finds, or waits for.
    Neighbour,
    /// To the node's own stack.
    Stack,
    /// To a backend that answers the client itself; see [`crate::server_return`].
    ServerReturn,
    /// It is on its way already.
    AsRouted,
    /// It cannot be sent from here, or not yet.
    Unresolved,
}

impl Way {
    /// Whether the packet is forwarded, now or later, which takes a hop from its count.
    #[inline(always)]
    pub(crate) fn takes_a_hop(&self) -> bool {
        match self.kind {
            WayKind::Stack | WayKind::AsRouted => false,
            WayKind::ServerReturn => self.flags & hop_flags::LOCAL == 0,
            WayKind::Link | WayKind::Neighbour | WayKind::Unresolved => true,
        }
    }

    /// Whether the backend answers the client itself.
    #[inline(always)]
    pub(crate) fn is_alone(&self) -> bool {
        self.kind == WayKind::ServerReturn
    }

    /// `Err`: it cannot be sent from here.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Verdict> {
        match self.kind {
            WayKind::Unresolved => Err(Verdict::PassUnresolved),
            _ => Ok(()),
        }
    }
}

/// The way of the packets of a half. `Err`: the packet is none of the flow's.
#[inline(always)]
pub(crate) fn way<A>(frame: &Frame, hop: u32, half: *const Half<A>) -> Result<Way, Verdict> {
    let hook = frame.hook;
    // SAFETY: map memory; only its address is taken.
    let learned = unsafe { &raw const (*half).dmac };
    let mut way = Way {
        kind: WayKind::Unresolved,
        ifindex: hop & !hop_number::DIRECT,
        flags: 0,
        addresses: LinkAddresses {
            destination: learned,
            source: learned,
        },
    };
    let Some(next) = NEXTHOPS.get(hop) else {
        way.kind = if hop == hop_number::LOCAL {
            if !frame.leaving {
                // From outside, with an address of the node as its source.
                return Err(Verdict::PassForeign);
            }
            WayKind::AsRouted
        } else if let Some(next) = server_return::next_hop(hop) {
            way.flags = next.flags;
            WayKind::ServerReturn
        } else if hop & hop_number::DIRECT == 0 {
            return Err(Verdict::DropInternal);
        } else if hook == Hook::Xdp {
            WayKind::Unresolved
        } else {
            WayKind::Neighbour
        };
        return Ok(way);
    };
    let next: &'static NextHop = next;
    way.ifindex = next.ifindex;
    way.flags = next.flags;
    way.addresses.source = &raw const next.smac;
    if hop >= MAX_INTERFACES as u32 {
        way.addresses.destination = &raw const next.dmac;
    }
    if next.ifindex == 0 {
        return Ok(way);
    }
    way.kind = WayKind::Link;
    if next.flags & (hop_flags::NEIGHBOUR | hop_flags::NO_XDP | hop_flags::LOCAL) != 0 {
        let back = next.flags == hop_flags::NO_XDP && next.ifindex == frame.ingress;
        if next.flags & hop_flags::LOCAL != 0 {
            way.kind = WayKind::Stack;
        } else if hook == Hook::Xdp && !back {
            way.kind = WayKind::Unresolved;
        } else if next.flags & hop_flags::NEIGHBOUR != 0 {
            way.kind = WayKind::Neighbour;
        }
    }
    Ok(way)
}

/// The VLAN tags that packets leave by this hop with, and the bytes that they may have. What goes
/// to the node's own stack keeps its tags and may have any length.
#[inline(always)]
pub(crate) fn limits<F: ServerReturn>(hop: u32, learned: Tags) -> (Tags, u32) {
    let Some(next) = NEXTHOPS.get(hop) else {
        return server_return::limits::<F>(hop);
    };
    let next: &NextHop = next;
    if next.ifindex == 0 || next.flags & hop_flags::LOCAL != 0 {
        return (Tags::NONE, u32::MAX);
    }
    let tags = if hop >= MAX_INTERFACES as u32 {
        next.tags
    } else {
        learned
    };
    (tags, next.mtu)
}

/// Rewrites the packet by its half and sends it on. `Ok` is the program's answer and the verdict.
#[inline(always)]
pub(crate) fn transmit<F, L3>(
    frame: &Frame,
    packet: &Packet<L3, F::Addr>,
    found: &Found<F::Addr>,
) -> Result<(u32, Verdict), Stop>
where
    F: ServerReturn,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let half = found.slot.half;
    let mut rewrite = Rewrite::of(half, packet.ttl);
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (hop, backend, learned) = unsafe { ((*half).hop, (*half).backend, (*half).tags) };
    if !found.slot.tag().same_identity(found.tag) {
        return Err(Stop::Left(Verdict::DropContended));
    }
    let (tags, mtu) = limits::<F>(hop, learned);
    if packet.l3_length > mtu as usize || tags != Tags::NONE {
        Outline::keep_placed(found);
        return Err(Stop::Detour);
    }
    let way = way(frame, hop, half)?;
    if way.is_alone() {
        let action = server_return::send::<F>(frame, found)?;
        count_backend(backend, Kind::Forward, packet.len);
        return Ok((action, Verdict::ForwardRequest));
    }
    // A hop count that ends here is not plain, nor is what is on its way out already.
    if way.takes_a_hop() {
        rewrite.ttl = packet.ttl - 1;
    }
    way.check()?;
    let reply = (found.tag.0 >> 16) as u8 == Kind::Reply as u8;
    let (kind, verdict) = if reply {
        (Kind::Reply, Verdict::ForwardReply)
    } else {
        (Kind::Forward, Verdict::ForwardRequest)
    };
    count_backend(backend, kind, packet.len);
    if way.kind == WayKind::Link {
        // SAFETY: the frame has not been resized since it was parsed; map memory.
        unsafe { way.addresses.write(packet.ethernet) };
    }
    // SAFETY: as above.
    unsafe { rewrite::apply(frame, packet, &rewrite) };
    Ok((leave(frame, &way), verdict))
}

/// The program's answer for a frame that is ready for its way.
#[inline(always)]
fn leave(frame: &Frame, way: &Way) -> u32 {
    match way.kind {
        WayKind::Link => send(frame, way.ifindex, way.flags),
        WayKind::Neighbour => {
            // SAFETY: no pointer but null, which asks for the route of the packet itself.
            let action = unsafe { bpf_redirect_neigh(way.ifindex, ptr::null_mut(), 0, 0) };
            action as u32
        }
        WayKind::Stack | WayKind::ServerReturn | WayKind::AsRouted | WayKind::Unresolved => {
            to_stack(frame.hook)
        }
    }
}

/// What a program returns for a frame that goes on to the node's own stack.
#[inline(always)]
pub(crate) fn to_stack(hook: Hook) -> u32 {
    match hook {
        Hook::Xdp => xdp_action::XDP_PASS,
        Hook::Tc => tc::NEXT,
    }
}

/// Sends a frame whose network header is ready, with these tags in place of those it came with. All
/// pointers into the frame are dead afterwards. `Err`: no room for more tags.
#[inline(always)]
pub(crate) fn depart(frame: &Frame, link: &Link, way: &Way, tags: Tags) -> Result<u32, Verdict> {
    match way.kind {
        WayKind::Link => {
            let frame = vlan::set_tags(frame, link, tags)?;
            let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::DropInternal)?;
            // SAFETY: `at` checked the bounds; map memory.
            unsafe { way.addresses.write(ethernet) };
        }
        // The kernel puts on what the interface's frames carry.
        WayKind::Neighbour => {
            vlan::set_tags(frame, link, Tags::NONE)?;
        }
        WayKind::Stack | WayKind::ServerReturn | WayKind::AsRouted | WayKind::Unresolved => {}
    }
    Ok(leave(frame, way))
}

/// Sends a frame back out of the interface that it came in by; answers as [`send`].
#[inline(always)]
pub(crate) fn send_back(frame: &Frame) -> u32 {
    match interface_position(frame.ingress).and_then(|position| NEXTHOPS.get(position)) {
        Some(own) if own.ifindex == frame.ingress => send(frame, own.ifindex, own.flags),
        _ => match frame.hook {
            Hook::Xdp => xdp_action::XDP_TX,
            // SAFETY: no pointer is passed.
            Hook::Tc => unsafe { bpf_redirect(frame.ingress, 0) as u32 },
        },
    }
}

/// Sends the frame, whose link addresses are written, out of an interface with these [`hop_flags`];
/// answers with what the program has to return.
#[inline(always)]
pub(crate) fn send(frame: &Frame, ifindex: u32, flags: u32) -> u32 {
    let back = frame.hook == Hook::Xdp && ifindex == frame.ingress;
    if back && flags & hop_flags::NO_TX == 0 {
        return xdp_action::XDP_TX;
    }
    // SAFETY: no pointer is passed.
    let action = unsafe { bpf_redirect(ifindex, 0) };
    action as u32
}
