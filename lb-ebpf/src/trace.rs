//! Tells of single packets while somebody watches; see `lb_common::trace`.
//!
//! Two calls frame the way of a packet: [`note`] keeps its first bytes before anything is
//! rewritten, [`tell`] reads them again once the verdict is known. While nobody watches, each is
//! one load of a word that nobody writes. While somebody does, what is told does not depend on
//! how the packet was handled: addresses come from the bytes that were kept, the backend from the
//! flow table.

mod headers;

use core::slice;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use lb_common::{
    trace::{NO_BACKEND, TRACE_SLOTS, TRACE_SNAP, TraceEvent, TraceFilter, TraceRecord},
    verdict::Verdict,
};

use self::headers::{lb_trace_flow4, lb_trace_flow6, lb_trace_network, lb_trace_transport};
use crate::{
    flow,
    headers::split_ports,
    lease::Lease,
    maps::{TRACE_EVENTS, TRACE_FILTERS, TRACE_RECORD, TRACE_STATS},
    packet::Frame,
};

/// In a section of its own, which the agent finds by its name. A global, for it is reached
/// without a lookup.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.trace")]
static TRACE_SWITCH: Lease = Lease::off();

/// `BPF_RB_NO_WAKEUP`: the agent looks by itself.
const NO_WAKEUP: u64 = 1;

#[inline(always)]
fn is_on() -> bool {
    TRACE_SWITCH.is_on()
}

/// To be called before a packet is decided on.
#[inline(always)]
pub(crate) fn note(frame: &Frame) {
    if is_on() {
        // In registers: the frame would lie on the stack if its address were taken.
        if let Some(start) = frame.at::<[u8; 0]>(0) {
            keep(
                start as usize,
                frame.end(),
                frame.len() as u32,
                frame.ingress,
            );
        }
    }
}

/// To be called once the verdict is known.
#[inline(always)]
pub(crate) fn tell(verdict: Verdict) {
    tell_index(verdict as u32);
}

/// The same for a verdict in a number.
#[inline(always)]
pub(crate) fn tell_index(verdict: u32) {
    if is_on() {
        lb_trace(verdict);
    }
}

/// Copies the first bytes of the frame. Switches the trace off if the agent has gone.
#[inline(never)]
fn keep(start: usize, end: usize, length: u32, ingress: u32) {
    let Some(record) = TRACE_RECORD.get_ptr_mut(0) else {
        return;
    };
    if !TRACE_SWITCH.holds() {
        return;
    }
    // SAFETY: this CPU's scratch memory; `at` checks the frame's bounds, and the constants and the
    // mask those of the record.
    unsafe {
        let bytes = (&raw mut (*record).bytes).cast::<u8>();
        // Added to each offset, so that the verifier takes each pointer for one of its own kind.
        // What it learns from its check then holds for that one alone; otherwise it would go
        // through the whole program again for every length of the frame that is told apart here.
        let zero = ((&raw const (*record).zero).read_volatile() & 7) as usize;
        let mut index = 0;
        while index < TRACE_SNAP {
            let Some(word) = at::<u64>(start, end, zero + index) else {
                break;
            };
            bytes.add(index).cast::<u64>().write(word.read_unaligned());
            index += 8;
        }
        // In tc the rest of a frame may lie elsewhere.
        let readable = end - start;
        let whole = readable & !7;
        if whole < TRACE_SNAP {
            for rest in 0..7 {
                let index = (whole & (TRACE_SNAP - 8)) + rest;
                let Some(byte) = at::<u8>(start, end, zero + index) else {
                    break;
                };
                bytes.add(index).write(*byte);
            }
        }
        let event = &raw mut (*record).event;
        (*event).time = bpf_ktime_get_ns();
        (*event).ingress = ingress;
        (*event).length = length;
        (*event).captured = if readable < TRACE_SNAP {
            readable as u32
        } else {
            TRACE_SNAP as u32
        };
        (*record).noted = 1;
    }
}

/// A pointer into a frame, if it reaches that far.
#[inline(always)]
fn at<T>(start: usize, end: usize, offset: usize) -> Option<*const T> {
    let first = start + offset;
    // Past the compiler, which would compare `first` instead: that teaches the verifier nothing.
    let last = core::hint::black_box(first + size_of::<T>());
    if last > end {
        return None;
    }
    Some(first as *const T)
}

/// This CPU's record.
#[inline(always)]
fn record() -> Option<&'static mut TraceRecord> {
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    TRACE_RECORD
        .get_ptr_mut(0)
        .map(|record| unsafe { &mut *record })
}

/// Hands the noted packet over to whoever wants it.
///
/// This and the steps that it takes are functions of the program that the verifier checks once,
/// each by itself: what one of them leaves in the record is unknown to the next, so that their
/// cases do not multiply.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace(verdict: u32) -> u32 {
    let Some(record) = record() else {
        return 0;
    };
    // It was switched on in the middle of a packet.
    if record.noted == 0 {
        return 0;
    }
    record.noted = 0;
    record.snap = 0;
    let event = &mut record.event;
    event.verdict = verdict;
    event.slots = 0;
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
    let l4 = lb_trace_network();
    if l4 != 0 {
        lb_trace_transport(l4);
        lb_trace_flow4();
        lb_trace_flow6();
    }
    for slot in 0..TRACE_SLOTS {
        lb_trace_filter(slot);
    }
    lb_trace_output()
}

/// Notes whether the watcher of this slot wants the event.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_filter(slot: u32) -> u32 {
    let (Some(record), Some(filter)) = (record(), TRACE_FILTERS.get(slot)) else {
        return 0;
    };
    let event = &mut record.event;
    let verdicts = filter.verdicts >> (event.verdict & 63);
    if verdicts & 1 == 0 || !wants(filter, event) || !within_rate(slot, filter) {
        return 0;
    }
    event.slots |= 1 << (slot & 31);
    if filter.snap as u32 > record.snap {
        record.snap = filter.snap as u32;
    }
    1
}

/// Puts the event into the ring buffer if anybody wants it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_trace_output() -> u32 {
    let Some(record) = record() else {
        return 0;
    };
    let slots = record.event.slots;
    if slots == 0 {
        return 0;
    }
    let mut captured = record.event.captured;
    if captured > record.snap {
        captured = record.snap;
    }
    if captured > TRACE_SNAP as u32 {
        captured = TRACE_SNAP as u32;
    }
    record.event.captured = captured;
    // SAFETY: the event and what follows it are in one record, and the length is within it.
    let bytes = unsafe {
        slice::from_raw_parts(
            (&raw const *record).cast::<u8>(),
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
        && (event.family == 0 || (filter.proto != event.proto && filter.other_proto != event.proto))
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
fn within_rate(slot: u32, filter: &TraceFilter) -> bool {
    let now = flow::now();
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
