//! What the kept bytes of a packet say, and the flow that it belongs to.

use lb_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP,
    entry::{FAMILY_V4, FAMILY_V6},
    flow::Kind,
    trace::{TRACE_SNAP, TraceEvent, TraceRecord, trace_facts},
    vlan::MAX_TAGS,
};

use super::record;
use crate::{
    extension::FRAGMENT,
    family::{Family, Key, V4, V6},
    flow,
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv4, Ipv6, Tcp},
    vlan,
};

/// VLAN tags that are looked behind.
const TAGS: u32 = MAX_TAGS;
/// Extension headers that are looked behind.
const EXTENSIONS: u32 = 4;
/// Next header values of extension headers that say their length (RFC 8200, section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// A `T` out of the kept bytes, if it is among them.
#[inline(always)]
fn read<T: Copy>(record: *const TraceRecord, offset: u32) -> Option<T> {
    let last = offset as u64 + size_of::<T>() as u64;
    // SAFETY: this CPU's scratch memory.
    let length = unsafe { (*record).event.captured } as u64;
    if last > length || offset as u64 > (TRACE_SNAP - size_of::<T>()) as u64 {
        return None;
    }
    // SAFETY: within the record, as just checked; any address will do for an unaligned read.
    Some(unsafe {
        (&raw const (*record).bytes)
            .cast::<u8>()
            .add(offset as usize)
            .cast::<T>()
            .read_unaligned()
    })
}

/// Reads the headers up to the transport header; answers with where that begins, or zero.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_network() -> u32 {
    match record() {
        Some(record) => network(record, &mut record.event).unwrap_or(0),
        None => 0,
    }
}

#[inline(always)]
fn network(record: *const TraceRecord, event: &mut TraceEvent) -> Option<u32> {
    let mut offset = core::mem::offset_of!(Ethernet, ethertype) as u32;
    event.ethertype = 0;
    let mut ethertype = read::<u16>(record, offset)?;
    for _ in 0..TAGS {
        if !vlan::is_tag(ethertype) {
            break;
        }
        ethertype = read::<u16>(record, offset + 4)?;
        offset += 4;
    }
    event.ethertype = ethertype;
    let l3 = offset + 2;
    if ethertype == ETHERTYPE_IPV4 {
        let header = read::<Ipv4>(record, l3)?;
        let [_, proto] = header.ttl_proto.to_ne_bytes();
        event.family = FAMILY_V4;
        event.saddr[0] = header.saddr;
        event.daddr[0] = header.daddr;
        event.proto = proto;
        // "More fragments" and the offset.
        let fragment = u16::from_be(header.fragment) & 0x3fff;
        if fragment != 0 {
            event.facts |= trace_facts::FRAGMENT;
        }
        if fragment & 0x1fff != 0 {
            return None;
        }
        Some(l3 + (header.version_ihl & 0x0f) as u32 * 4)
    } else if ethertype == ETHERTYPE_IPV6 {
        let header = read::<Ipv6>(record, l3)?;
        event.family = FAMILY_V6;
        event.saddr = header.saddr;
        event.daddr = header.daddr;
        event.proto = header.next_header;
        extensions(record, event, l3 + size_of::<Ipv6>() as u32)
    } else {
        None
    }
}

/// Looks behind the extension headers; answers with where the transport header begins, and with
/// nothing if it is in another fragment.
#[inline(always)]
fn extensions(record: *const TraceRecord, event: &mut TraceEvent, l4: u32) -> Option<u32> {
    let mut l4 = l4;
    for _ in 0..EXTENSIONS {
        match event.proto {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [next, length] = read::<[u8; 2]>(record, l4)?;
                event.proto = next;
                l4 += (length as u32 + 1) * 8;
            }
            FRAGMENT => {
                let [next, _, high, low] = read::<[u8; 4]>(record, l4)?;
                event.facts |= trace_facts::FRAGMENT;
                event.proto = next;
                l4 += 8;
                if high != 0 || low & 0xf8 != 0 {
                    return None;
                }
            }
            _ => break,
        }
    }
    Some(l4)
}

/// Reads the transport header, which begins at `l4`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_transport(l4: u32) -> u32 {
    let Some(record) = record() else {
        return 0;
    };
    match record.event.proto {
        IPPROTO_TCP | IPPROTO_UDP => {
            let Some(ports) = read::<u32>(record, l4) else {
                return 0;
            };
            record.event.ports = ports;
            record.event.facts |= trace_facts::PORTS;
            if record.event.proto == IPPROTO_TCP {
                let at = core::mem::offset_of!(Tcp, flags) as u32;
                record.event.flags = read::<u8>(record, l4 + at).unwrap_or(0);
            }
        }
        IPPROTO_ICMP | IPPROTO_ICMPV6 => {
            record.event.icmp = read::<[u8; 2]>(record, l4).unwrap_or([0; 2]);
        }
        _ => {}
    }
    0
}

/// Looks up the flow of an IPv4 packet with ports: whose it is and how it leaves.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_flow4() -> u32 {
    let Some(record) = record() else {
        return 0;
    };
    let event = &mut record.event;
    if event.facts & trace_facts::PORTS == 0 || event.family != FAMILY_V4 {
        return 0;
    }
    let key = Key {
        saddr: event.saddr[0],
        daddr: event.daddr[0],
        ports: event.ports,
        proto: event.proto,
    };
    let Some(found) = flow::find::<V4>(&key, V4::hash(&key)) else {
        return 0;
    };
    // SAFETY: map memory. Should another flow take the slot at this moment, the event is wrong
    // about where the packet went; it is a trace.
    unsafe {
        event.new_saddr[0] = (*found.slot.half).new_saddr;
        event.new_daddr[0] = (*found.slot.half).new_daddr;
        event.new_ports = (*found.slot.half).new_ports;
        event.backend = (*found.slot.half).backend;
    }
    event.facts |= facts_of(found.tag.0);
    0
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_flow6() -> u32 {
    let Some(record) = record() else {
        return 0;
    };
    let event = &mut record.event;
    if event.facts & trace_facts::PORTS == 0 || event.family != FAMILY_V6 {
        return 0;
    }
    let key = Key {
        saddr: event.saddr,
        daddr: event.daddr,
        ports: event.ports,
        proto: event.proto,
    };
    let Some(found) = flow::find::<V6>(&key, V6::hash(&key)) else {
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        event.new_saddr = (*found.slot.half).new_saddr;
        event.new_daddr = (*found.slot.half).new_daddr;
        event.new_ports = (*found.slot.half).new_ports;
        event.backend = (*found.slot.half).backend;
    }
    event.facts |= facts_of(found.tag.0);
    0
}

#[inline(always)]
fn facts_of(tag: u64) -> u8 {
    if (tag >> 16) as u8 == Kind::Reply as u8 {
        trace_facts::FLOW | trace_facts::REPLY
    } else {
        trace_facts::FLOW
    }
}
