//! The trace: what the programs tell of single packets while somebody watches.
//!
//! Nobody watches most of the time, so all that is asked of every packet is one word
//! ([`TraceSwitch::on`]). While it is set, the programs keep the first bytes of each packet before
//! they change it, and put an event into a ring buffer for those that some [`TraceFilter`] wants.
//! The switch falls by itself when the agent no longer renews it.

use crate::assert_layout;

/// Filters that can be in force at a time: one for each watcher.
pub const TRACE_SLOTS: u32 = 8;
/// Bytes of a frame that an event can carry.
pub const TRACE_SNAP: usize = 256;
/// Bytes of the ring buffer.
pub const TRACE_RING: usize = 1 << 20;
/// [`TraceEvent::backend`] where no flow is known.
pub const NO_BACKEND: u32 = u32::MAX;

/// Whether packets are looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TraceSwitch {
    /// Zero: off.
    pub on: u32,
    /// Tick (the lower 32 bits of the kernel's counter) after which the programs switch it off.
    pub until: u32,
}

/// Which packets one watcher wants. All conditions must hold.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TraceFilter {
    /// A bit for each verdict, by its discriminant. Zero: the slot is free.
    pub verdicts: u64,
    /// Source address under `smask`, network byte order, IPv4 in the first word.
    pub saddr: [u32; 4],
    /// See `saddr`; zero: any.
    pub smask: [u32; 4],
    /// Destination address under `dmask`.
    pub daddr: [u32; 4],
    /// See `daddr`; zero: any.
    pub dmask: [u32; 4],
    /// Events a window on each CPU.
    pub rate: u32,
    /// The window, in ticks.
    pub window: u32,
    /// Source or destination port, network byte order; zero: any.
    pub port: u16,
    /// Bytes of the frame to keep, at most [`TRACE_SNAP`].
    pub snap: u16,
    /// [`crate::entry::FAMILY_V4`] or [`crate::entry::FAMILY_V6`]; zero: any, and no IP as well.
    pub family: u8,
    /// IANA protocol number; zero: any.
    pub proto: u8,
    /// A second one that will do; zero: none.
    pub other_proto: u8,
    /// Zero.
    pub reserved: u8,
}

/// A packet and how it ended. Behind it stand `captured` bytes of the frame as it came in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub time: u64,
    /// Discriminant of the verdict.
    pub verdict: u32,
    /// Interface it came in on.
    pub ingress: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Bytes of it behind the event.
    pub captured: u32,
    /// Backend of the flow; [`NO_BACKEND`]: of no known flow.
    pub backend: u32,
    /// A bit for each filter that wants it.
    pub slots: u32,
    /// As it came in; network byte order, IPv4 in the first word.
    pub saddr: [u32; 4],
    /// As it came in.
    pub daddr: [u32; 4],
    /// As its flow has it leave; zero where no flow is known.
    pub new_saddr: [u32; 4],
    /// As its flow has it leave.
    pub new_daddr: [u32; 4],
    /// Both ports as they came in, as the four bytes of the packet; zero where there are none.
    pub ports: u32,
    /// Both ports as the flow has them leave.
    pub new_ports: u32,
    /// EtherType behind VLAN tags, network byte order.
    pub ethertype: u16,
    /// ICMP type and code, in this order.
    pub icmp: [u8; 2],
    /// 4 or 6; zero: no IP.
    pub family: u8,
    /// IANA protocol number.
    pub proto: u8,
    /// TCP flags.
    pub flags: u8,
    /// [`trace_facts`].
    pub facts: u8,
}

/// Bits of [`TraceEvent::facts`].
pub mod trace_facts {
    /// The ports are those of the packet.
    pub const PORTS: u8 = 1;
    /// The packet belongs to a flow; `backend` and what leaves are valid.
    pub const FLOW: u8 = 2;
    /// It is the reply half's.
    pub const REPLY: u8 = 4;
    /// It is a fragment.
    pub const FRAGMENT: u8 = 8;
}

/// Per-CPU counters of one slot, over all watchers it has had.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TraceStats {
    /// Events handed over.
    pub events: u64,
    /// Events left out beyond the filter's rate.
    pub over_rate: u64,
    /// Events that the ring buffer had no room for.
    pub no_room: u64,
    /// Tick at which the present window began.
    pub window_start: u32,
    /// Events in it.
    pub in_window: u32,
}

/// This CPU's record under construction.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TraceRecord {
    /// The event.
    pub event: TraceEvent,
    /// The frame as it came in.
    pub bytes: [u8; TRACE_SNAP],
    /// The packet that `bytes` are of is under way.
    pub noted: u32,
    /// Bytes that the filters want.
    pub snap: u32,
    /// Always zero, which the verifier does not know.
    pub zero: u64,
}

assert_layout! {
    TraceSwitch: size 8, align 4;
    TraceFilter: size 88, align 8;
    TraceEvent: size 112, align 8;
    TraceStats: size 32, align 8;
    TraceRecord: size 384, align 8;
}

const _: () = assert!(
    core::mem::offset_of!(TraceRecord, bytes) == size_of::<TraceEvent>(),
    "the bytes follow the event"
);
const _: () = assert!(crate::verdict::VERDICT_COUNT <= 64, "a filter has 64 bits");
