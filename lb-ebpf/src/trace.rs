//! Tells of single packets while somebody watches; see `lb_common::trace`.
//!
//! Two calls frame the way of a packet: [`note`] keeps its first bytes before anything is
//! rewritten, [`tell`] reads them again once the verdict is known. While nobody watches, each is
//! one load of a word that nobody writes. While somebody does, what is told does not depend on
//! how the packet was handled: addresses come from the bytes that were kept, the backend from the
//! flow table.

use core::{cell::UnsafeCell, slice};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use lb_common::{
    IPPROTO_TCP, IPPROTO_UDP,
    entry::{FAMILY_V4, FAMILY_V6},
    flow::Kind,
    trace::{
        NO_BACKEND, TRACE_SLOTS, TRACE_SNAP, TraceEvent, TraceFilter, TraceRecord, trace_facts,
    },
    verdict::Verdict,
};

use crate::{
    family::{Family, Key, V4, V6},
    flow,
    maps::{TRACE_EVENTS, TRACE_FILTERS, TRACE_RECORD, TRACE_STATS},
    packet::{
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Frame, IPPROTO_FRAGMENT, Ipv4, Ipv6, Tcp,
        split_ports,
    },
};

/// `lb_common::trace::TraceSwitch` as one word, `on` in the lower half.
#[repr(transparent)]
struct Switch(UnsafeCell<u64>);

// SAFETY: an aligned word, which is read and written whole.
unsafe impl Sync for Switch {}

impl Switch {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: valid and aligned; volatile because the agent writes it.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn off(&self) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(0) }
    }
}

/// In a section of its own, which the agent finds by its name. A global, for it is reached
/// without a lookup.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.trace")]
static TRACE_SWITCH: Switch = Switch(UnsafeCell::new(0));

/// `BPF_RB_NO_WAKEUP`: the agent looks by itself.
const NO_WAKEUP: u64 = 1;

/// EtherTypes of VLAN tags (IEEE 802.1Q, 802.1ad), network byte order.
const VLAN: [u16; 2] = [0x8100_u16.to_be(), 0x88a8_u16.to_be()];
/// VLAN tags that are looked behind.
const TAGS: u32 = 2;
/// Extension headers that are looked behind.
const EXTENSIONS: u32 = 4;
/// Next header values of extension headers that say their length (RFC 8200, section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;

#[inline(always)]
fn is_on() -> bool {
    TRACE_SWITCH.load() as u32 != 0
}

/// To be called before a packet is decided on.
#[inline(always)]
pub(crate) fn note(frame: &Frame) {
    if is_on() {
        keep(frame);
    }
}

/// To be called once the verdict is known.
#[inline(always)]
pub(crate) fn tell(verdict: Verdict) {
    if is_on() {
        lb_trace(verdict as u32);
    }
}

/// Copies the first bytes of the frame. Switches the trace off if the agent has gone.
#[inline(never)]
fn keep(frame: &Frame) {
    let Some(record) = TRACE_RECORD.get_ptr_mut(0) else {
        return;
    };
    let until = (TRACE_SWITCH.load() >> 32) as u32;
    if flow::now().wrapping_sub(until) as i32 > 0 {
        TRACE_SWITCH.off();
        return;
    }
    // SAFETY: this CPU's scratch memory; `at` checks the frame's bounds, and the constants and the
    // mask those of the record.
    unsafe {
        let bytes = (&raw mut (*record).bytes).cast::<u8>();
        let mut index = 0;
        while index < TRACE_SNAP {
            let Some(word) = frame.at::<u64>(index) else {
                break;
            };
            bytes
                .add(index)
                .cast::<u64>()
                .write(word.cast::<u64>().read_unaligned());
            index += 8;
        }
        let whole = frame.len() & !7;
        if whole < TRACE_SNAP {
            for rest in 0..7 {
                let index = (whole & (TRACE_SNAP - 8)) + rest;
                let Some(byte) = frame.at::<u8>(index) else {
                    break;
                };
                bytes.add(index).write(*byte);
            }
        }
        let event = &raw mut (*record).event;
        (*event).time = bpf_ktime_get_ns();
        (*event).ingress = frame.ingress;
        (*event).length = frame.len() as u32;
        (*record).noted = 1;
    }
}

/// A `T` out of the kept bytes, if the frame has it.
#[inline(always)]
fn read<T: Copy>(record: *const TraceRecord, offset: u32) -> Option<T> {
    let last = offset as u64 + size_of::<T>() as u64;
    // SAFETY: this CPU's scratch memory.
    let length = unsafe { (*record).event.length } as u64;
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

/// Hands the noted packet over to whoever wants it. A function of the program that the verifier
/// checks by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace(verdict: u32) -> u32 {
    let Some(record) = TRACE_RECORD.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    let event = unsafe {
        // It was switched on in the middle of a packet.
        if (*record).noted == 0 {
            return 0;
        }
        (*record).noted = 0;
        &mut (*record).event
    };
    event.verdict = verdict;
    event.backend = NO_BACKEND;
    event.saddr = [0; 4];
    event.daddr = [0; 4];
    event.new_saddr = [0; 4];
    event.new_daddr = [0; 4];
    event.ports = 0;
    event.new_ports = 0;
    event.icmp = [0; 2];
    event.family = 0;
    event.proto = 0;
    event.flags = 0;
    event.facts = 0;
    parse(record, event);
    if event.facts & trace_facts::PORTS != 0 {
        if event.family == FAMILY_V4 {
            follow4(event);
        } else {
            follow6(event);
        }
    }
    hand_over(record, event)
}

/// Reads the headers as far as they go.
#[inline(always)]
fn parse(record: *const TraceRecord, event: &mut TraceEvent) {
    let mut offset = core::mem::offset_of!(Ethernet, ethertype) as u32;
    let Some(mut ethertype) = read::<u16>(record, offset) else {
        event.ethertype = 0;
        return;
    };
    for _ in 0..TAGS {
        if ethertype != VLAN[0] && ethertype != VLAN[1] {
            break;
        }
        let Some(inner) = read::<u16>(record, offset + 4) else {
            break;
        };
        ethertype = inner;
        offset += 4;
    }
    event.ethertype = ethertype;
    let l3 = offset + 2;
    let l4 = if ethertype == ETHERTYPE_IPV4 {
        let Some(header) = read::<Ipv4>(record, l3) else {
            return;
        };
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
            return;
        }
        l3 + (header.version_ihl & 0x0f) as u32 * 4
    } else if ethertype == ETHERTYPE_IPV6 {
        let Some(header) = read::<Ipv6>(record, l3) else {
            return;
        };
        event.family = FAMILY_V6;
        event.saddr = header.saddr;
        event.daddr = header.daddr;
        event.proto = header.next_header;
        match extensions(record, event, l3 + size_of::<Ipv6>() as u32) {
            Some(l4) => l4,
            None => return,
        }
    } else {
        return;
    };
    transport(record, event, l4);
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
            IPPROTO_FRAGMENT => {
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

#[inline(always)]
fn transport(record: *const TraceRecord, event: &mut TraceEvent, l4: u32) {
    match event.proto {
        IPPROTO_TCP | IPPROTO_UDP => {
            let Some(ports) = read::<u32>(record, l4) else {
                return;
            };
            event.ports = ports;
            event.facts |= trace_facts::PORTS;
            if event.proto == IPPROTO_TCP {
                let at = core::mem::offset_of!(Tcp, flags) as u32;
                event.flags = read::<u8>(record, l4 + at).unwrap_or(0);
            }
        }
        IPPROTO_ICMP | IPPROTO_ICMPV6 => {
            event.icmp = read::<[u8; 2]>(record, l4).unwrap_or([0; 2]);
        }
        _ => {}
    }
}

/// Looks the packet's flow up: whose it is and how it leaves.
#[inline(always)]
fn follow4(event: &mut TraceEvent) {
    let key = Key {
        saddr: event.saddr[0],
        daddr: event.daddr[0],
        ports: event.ports,
        proto: event.proto,
    };
    let Some(found) = flow::find::<V4>(&key, V4::hash(&key)) else {
        return;
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
}

/// The same for IPv6.
#[inline(always)]
fn follow6(event: &mut TraceEvent) {
    let key = Key {
        saddr: event.saddr,
        daddr: event.daddr,
        ports: event.ports,
        proto: event.proto,
    };
    let Some(found) = flow::find::<V6>(&key, V6::hash(&key)) else {
        return;
    };
    // SAFETY: as above.
    unsafe {
        event.new_saddr = (*found.slot.half).new_saddr;
        event.new_daddr = (*found.slot.half).new_daddr;
        event.new_ports = (*found.slot.half).new_ports;
        event.backend = (*found.slot.half).backend;
    }
    event.facts |= facts_of(found.tag.0);
}

#[inline(always)]
fn facts_of(tag: u64) -> u8 {
    if (tag >> 16) as u8 == Kind::Reply as u8 {
        trace_facts::FLOW | trace_facts::REPLY
    } else {
        trace_facts::FLOW
    }
}

/// Puts the event into the ring buffer if a filter wants it.
#[inline(always)]
fn hand_over(record: *mut TraceRecord, event: &mut TraceEvent) -> u32 {
    let now = flow::now();
    let mut slots = 0;
    let mut snap = 0;
    for slot in 0..TRACE_SLOTS {
        let Some(filter) = TRACE_FILTERS.get(slot) else {
            break;
        };
        if filter.verdicts >> (event.verdict & 63) & 1 == 0 || !wants(filter, event) {
            continue;
        }
        if within_rate(slot, filter, now) {
            slots |= 1 << slot;
            snap = if filter.snap > snap { filter.snap } else { snap };
        }
    }
    if slots == 0 {
        return 0;
    }
    let mut captured = event.length;
    if captured > snap as u32 {
        captured = snap as u32;
    }
    if captured > TRACE_SNAP as u32 {
        captured = TRACE_SNAP as u32;
    }
    event.slots = slots;
    event.captured = captured;
    // SAFETY: the event and what follows it are in one record, and the length is within it.
    let bytes = unsafe {
        slice::from_raw_parts(
            record.cast::<u8>(),
            size_of::<TraceEvent>() + captured as usize,
        )
    };
    let refused = TRACE_EVENTS
        .output_untyped::<[u8]>(bytes, NO_WAKEUP)
        .is_err();
    for slot in 0..TRACE_SLOTS {
        if slots >> slot & 1 == 0 {
            continue;
        }
        if let Some(stats) = TRACE_STATS.get_ptr_mut(slot) {
            // SAFETY: this CPU's value, which no other CPU writes.
            unsafe {
                if refused {
                    (*stats).no_room += 1;
                } else {
                    (*stats).events += 1;
                }
            }
        }
    }
    slots
}

#[inline(always)]
fn wants(filter: &TraceFilter, event: &TraceEvent) -> bool {
    if filter.family != 0 && filter.family != event.family {
        return false;
    }
    if filter.proto != 0
        && (event.family == 0
            || (filter.proto != event.proto && filter.other_proto != event.proto))
    {
        return false;
    }
    if filter.port != 0 {
        let [source, destination] = split_ports(event.ports);
        let [new_source, new_destination] = split_ports(event.new_ports);
        let port = filter.port;
        if source != port && destination != port && new_source != port && new_destination != port {
            return false;
        }
    }
    (under(&event.saddr, &filter.smask, &filter.saddr)
        || under(&event.new_saddr, &filter.smask, &filter.saddr))
        && (under(&event.daddr, &filter.dmask, &filter.daddr)
            || under(&event.new_daddr, &filter.dmask, &filter.daddr))
}

/// Whether an address lies within a prefix.
#[inline(always)]
fn under(address: &[u32; 4], mask: &[u32; 4], prefix: &[u32; 4]) -> bool {
    (address[0] & mask[0]) ^ prefix[0]
        | (address[1] & mask[1]) ^ prefix[1]
        | (address[2] & mask[2]) ^ prefix[2]
        | (address[3] & mask[3]) ^ prefix[3]
        == 0
}

/// Whether the filter's rate leaves room for one more; counts it either way.
#[inline(always)]
fn within_rate(slot: u32, filter: &TraceFilter, now: u32) -> bool {
    let Some(stats) = TRACE_STATS.get_ptr_mut(slot) else {
        return false;
    };
    // SAFETY: this CPU's value, which no other CPU writes.
    unsafe {
        if now.wrapping_sub((*stats).window_start) >= filter.window {
            (*stats).window_start = now;
            (*stats).in_window = 0;
        }
        if (*stats).in_window >= filter.rate {
            (*stats).over_rate += 1;
            return false;
        }
        (*stats).in_window += 1;
    }
    true
}
