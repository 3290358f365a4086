//! The way of a packet that may be ours: known flow or new one, then out.

use core::ptr;

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect};
use lb_common::{
    IPPROTO_TCP,
    entry::NextHop,
    flow::{Kind, State, advance, tcp_flags},
    maps::MAX_INTERFACES,
    verdict::Verdict,
    vlan::Tags,
};

use crate::{
    create::{NewFlow, created},
    family::{Family, Key, V4, V6},
    flow::{self, Found, SlotRef},
    lookup,
    maps::NEXTHOPS,
    packet::{Ethernet, Ipv4, Ipv6, copy_mac},
    parse::Packet,
    pipeline::Stop,
    rewrite::{self, Rewrite, RewriteNetwork},
    settings::{interface_position, setting},
    stats::count_backend,
};

/// Handles a packet whose destination passed the filter.
///
/// `Ok` is the XDP action and the verdict of a forwarded packet.
#[inline(always)]
pub(crate) fn forward<F, L3>(packet: &Packet<L3, F::Addr>) -> Result<(u32, Verdict), Stop>
where
    F: NewFlow,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let found = flow_of::<F, L3>(packet)?;
    transmit::<F, L3>(packet, &found)
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
fn note<F: Family, L3>(found: &Found<F::Addr>, packet: &Packet<L3, F::Addr>, now: u32) -> bool {
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
            flow::release::<F>(found);
            return false;
        }
    }

    let next = advance(state, kind, proto, flags);
    if next == state && !aged {
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
    let Some(hop) = interface_position(arrival.ingress) else {
        return;
    };
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

/// Rewrites the packet by its half and sends it on.
#[inline(always)]
fn transmit<F, L3>(
    packet: &Packet<L3, F::Addr>,
    found: &Found<F::Addr>,
) -> Result<(u32, Verdict), Stop>
where
    F: Family,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let half = found.slot.half;
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (mut rewrite, mut tags, hop, backend) = unsafe {
        (
            Rewrite {
                saddr: (*half).new_saddr,
                daddr: (*half).new_daddr,
                ports: (*half).new_ports,
                l3_delta: (*half).l3_delta,
                l4_delta: (*half).l4_delta,
                dmac: &raw const (*half).dmac,
            },
            (*half).tags,
            (*half).hop,
            (*half).backend,
        )
    };
    if !found.slot.tag().same_identity(found.tag) {
        return Err(Stop::Left(Verdict::DropContended));
    }
    let next: &NextHop = NEXTHOPS.get(hop).ok_or(Verdict::DropInternal)?;
    if next.ifindex == 0 {
        return Err(Stop::Left(Verdict::PassUnresolved));
    }
    if hop >= MAX_INTERFACES as u32 {
        rewrite.dmac = &raw const next.dmac;
        tags = next.tags;
    }
    if tags != Tags::NONE || packet.l3_length > next.mtu as usize {
        return Err(Stop::Detour);
    }
    let reply = (found.tag.0 >> 16) as u8 == Kind::Reply as u8;
    let (kind, verdict) = if reply {
        (Kind::Reply, Verdict::ForwardReply)
    } else {
        (Kind::Forward, Verdict::ForwardRequest)
    };
    count_backend(backend, kind, packet.len);
    // SAFETY: the frame has not been resized since it was parsed.
    unsafe { rewrite::apply(packet, &rewrite, next) };
    if next.ifindex == packet.ingress {
        return Ok((xdp_action::XDP_TX, verdict));
    }
    // SAFETY: no pointer is passed.
    let action = unsafe { bpf_redirect(next.ifindex, 0) };
    Ok((action as u32, verdict))
}

/// IPv4 packets.
#[inline(always)]
pub(crate) fn forward4(packet: &Packet<Ipv4, u32>) -> Result<(u32, Verdict), Stop> {
    forward::<V4, Ipv4>(packet)
}

/// IPv6 packets.
#[inline(always)]
pub(crate) fn forward6(packet: &Packet<Ipv6, [u32; 4]>) -> Result<(u32, Verdict), Stop> {
    forward::<V6, Ipv6>(packet)
}
