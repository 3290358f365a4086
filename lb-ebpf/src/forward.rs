//! The way of a packet that may be ours: known flow or new one, then out (see `transmit`).

use core::ptr;

use lb_common::{
    IPPROTO_TCP,
    entry::hop_number,
    flow::{ALONE, Kind, NO_PARTNER, State, advance, advance_alone, tcp_flags},
    verdict::Verdict,
    vlan::Tags,
};

use crate::{
    create::{NewFlow, created},
    family::{Family, Key, V4, V6},
    flow::{self, Found, SlotRef},
    headers::{Ethernet, Ipv4, Ipv6, copy_mac},
    lookup,
    packet::Frame,
    parse::Packet,
    pipeline::Stop,
    rewrite::RewriteNetwork,
    server_return::ServerReturn,
    settings::{client_hop, setting},
    transmit::transmit,
};

/// Handles a packet whose destination passed the filter.
///
/// `Ok` is the XDP action and the verdict of a forwarded packet.
#[inline(always)]
pub(crate) fn forward<F, L3>(
    frame: &Frame,
    packet: &Packet<L3, F::Addr>,
) -> Result<(u32, Verdict), Stop>
where
    F: NewFlow + ServerReturn,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let found = flow_of::<F, L3>(packet)?;
    transmit::<F, L3>(frame, packet, &found)
}

/// The half that a packet belongs to, of a known flow or a new one; takes note of the packet.
/// `Err`: the verdict for a packet that gets no flow.
#[inline(always)]
pub(crate) fn flow_of<F: NewFlow, L3>(
    packet: &Packet<L3, F::Addr>,
) -> Result<Found<F::Addr>, Verdict> {
    let key = Key {
        saddr: packet.saddr,
        daddr: packet.daddr,
        ports: packet.ports,
        proto: packet.proto,
    };
    let hash = F::hash(&key);
    let now = flow::now();
    Ok(match flow::find::<F>(&key, hash) {
        Some(found) if note::<F, L3>(&found, packet, now) => found,
        _ => {
            let draft = F::draft().ok_or(Verdict::DropInternal)?;
            // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU
            // meanwhile; the ethernet header was checked by `parse`.
            unsafe {
                (*draft).key = key;
                (*draft).hash = hash;
                (*draft).now = now;
                (*draft).ingress = packet.ingress;
                (*draft).flags = packet.flags;
                (*draft).ttl = packet.ttl;
                (*draft).half.tags = packet.tags;
                copy_mac(
                    &raw const (*packet.ethernet).source,
                    &raw mut (*draft).half.dmac,
                );
            }
            let slot = created(F::create())?;
            let slot = SlotRef::at::<F>(slot).ok_or(Verdict::DropInternal)?;
            let tag = slot.tag();
            // The agent may have ended the flow already, and another one begun in its slot.
            if !flow::holds::<F>(&slot, tag, &key, hash) {
                return Err(Verdict::DropContended);
            }
            Found { slot, tag }
        }
    })
}

/// Whether a half that was found before is this packet's, and still there.
#[inline(always)]
pub(crate) fn is_of<F: NewFlow, L3>(found: &Found<F::Addr>, packet: &Packet<L3, F::Addr>) -> bool {
    let key = Key {
        saddr: packet.saddr,
        daddr: packet.daddr,
        ports: packet.ports,
        proto: packet.proto,
    };
    let tag = found.slot.tag();
    tag.same_identity(found.tag) && flow::holds::<F>(&found.slot, tag, &key, F::hash(&key))
}

/// The half of a packet that leaves the node by its routes; takes note of the packet. Nothing begins
/// a flow there.
#[inline(always)]
pub(crate) fn leaving_flow_of<F: NewFlow, L3>(
    packet: &Packet<L3, F::Addr>,
) -> Result<Found<F::Addr>, Verdict> {
    let key = Key {
        saddr: packet.saddr,
        daddr: packet.daddr,
        ports: packet.ports,
        proto: packet.proto,
    };
    let found = flow::find::<F>(&key, F::hash(&key)).ok_or(Verdict::PassForeign)?;
    note::<F, L3>(&found, packet, flow::now());
    Ok(found)
}

/// What a flow may have to learn from a packet.
struct Arrival {
    flags: u8,
    now: u32,
    /// The flow was last noted a while ago.
    aged: bool,
    ingress: u32,
    tags: Tags,
    ethernet: *const Ethernet,
}

/// Takes note of a packet of a known flow: its state and the time. `false`: the flow is over and
/// the packet begins a new one.
#[inline(always)]
pub(crate) fn note<F: Family, L3>(
    found: &Found<F::Addr>,
    packet: &Packet<L3, F::Addr>,
    now: u32,
) -> bool {
    let Found { slot, tag } = found;
    let state = tag.state_bits();
    let flags = packet.flags;
    // SAFETY: map memory.
    let seen = unsafe { ptr::read_volatile(&raw const (*slot.half).seen) };
    let aged = now.wrapping_sub(seen) >= setting!(refresh_ticks);
    let plain = flags & (tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST) == 0;
    if state == State::Established as u8 && plain && !aged {
        return true;
    }
    let arrival = Arrival {
        flags,
        now,
        aged,
        ingress: packet.ingress,
        tags: packet.tags,
        ethernet: packet.ethernet,
    };
    note_change::<F>(found, &arrival)
}

/// The part of [`note`] that few packets need.
#[inline(never)]
fn note_change<F: Family>(found: &Found<F::Addr>, arrival: &Arrival) -> bool {
    let Found { slot, tag } = found;
    let Arrival {
        flags, now, aged, ..
    } = *arrival;
    let state = tag.state_bits();
    let proto = tag.proto();
    let kind = if (tag.0 >> 16) as u8 == Kind::Forward as u8 {
        Kind::Forward
    } else {
        Kind::Reply
    };
    // SAFETY: map memory.
    let (partner, backend) = unsafe { ((*slot.half).partner, (*slot.half).backend) };

    if kind == Kind::Forward {
        let opens = flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST) == tcp_flags::SYN;
        let over = if proto == IPPROTO_TCP {
            let closing = state >= State::ClosingByClient as u8;
            opens && (closing || !lookup::is_active(backend))
        } else {
            // The agent cuts these flows, unless it ends between two steps or a packet is quicker.
            aged && !lookup::is_active(backend)
        };
        if over {
            if proto == IPPROTO_TCP {
                flow::supersede::<F>(found, now);
            } else {
                flow::release::<F>(found);
            }
            return false;
        }
    }

    // Only the port's place is kept: what still comes is not for the client's next connection.
    if kind == Kind::Reply && state >= State::Finished as u8 && partner == NO_PARTNER {
        return false;
    }
    let alone = partner == ALONE;
    let next = if alone {
        advance_alone(state, proto, flags)
    } else {
        advance(state, kind, proto, flags)
    };
    if next == state && !aged {
        return true;
    }
    if alone {
        slot.swap_tag(
            *tag,
            tag.with_state(State::from_bits(next).unwrap_or(State::Reset)),
        );
        // SAFETY: map memory; as below.
        unsafe { ptr::write_volatile(&raw mut (*slot.half).seen, now) };
        return true;
    }
    let Some(other) = flow::partner::<F>(partner, slot.index) else {
        // A reply may come before the forward half is linked; it is let through. A request whose
        // reply half is gone makes a new pair.
        if kind == Kind::Forward {
            flow::release::<F>(found);
        }
        return kind == Kind::Reply;
    };
    if next != state {
        let state = State::from_bits(next).unwrap_or(State::Reset);
        other.slot.swap_tag(other.tag, other.tag.with_state(state));
        slot.swap_tag(*tag, tag.with_state(state));
    }
    // SAFETY: map memory; losing a race here shifts an idle time by one refresh.
    unsafe {
        ptr::write_volatile(&raw mut (*other.slot.half).seen, now);
        ptr::write_volatile(&raw mut (*slot.half).seen, now);
    }
    if aged && kind == Kind::Forward {
        learn::<F>(&other, arrival);
    }
    true
}

/// Lets the reply half follow the way by which the client's packets come in now: another router
/// may have taken over.
#[inline(always)]
fn learn<F: Family>(reply: &Found<F::Addr>, arrival: &Arrival) {
    // SAFETY: map memory.
    if unsafe { (*reply.slot.half).hop } == hop_number::LOCAL {
        return;
    }
    let hop = client_hop(arrival.ingress);
    // SAFETY: map memory, and an ethernet header that `parse` checked. A packet that another CPU
    // sends meanwhile may meet half of each way; it is one.
    unsafe {
        ptr::write_volatile(&raw mut (*reply.slot.half).hop, hop);
        ptr::write_volatile(&raw mut (*reply.slot.half).tags, arrival.tags);
        copy_mac(
            &raw const (*arrival.ethernet).source,
            &raw mut (*reply.slot.half).dmac,
        );
    }
}

/// IPv4 packets.
#[inline(always)]
pub(crate) fn forward4(frame: &Frame, packet: &Packet<Ipv4, u32>) -> Result<(u32, Verdict), Stop> {
    forward::<V4, Ipv4>(frame, packet)
}

/// IPv6 packets.
#[inline(always)]
pub(crate) fn forward6(
    frame: &Frame,
    packet: &Packet<Ipv6, [u32; 4]>,
) -> Result<(u32, Verdict), Stop> {
    forward::<V6, Ipv6>(frame, packet)
}
