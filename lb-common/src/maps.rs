//! Names, sizes and the schema version of the maps that are pinned.

/// Version of everything that lies in pinned maps. The pin directory carries it in its name, so
/// that an agent never adopts bytes that it would read differently.
pub const SCHEMA: u32 = 3;

/// Services (VIP, port, protocol) that fit.
pub const MAX_SERVICES: u32 = 16_384;
/// Backend entries that fit: one per (service port, backend address), plus those that drain.
pub const MAX_BACKENDS: u32 = 262_144;
/// Next hops that fit: one per backend address. The first [`MAX_INTERFACES`] belong to the node's
/// own interfaces.
pub const MAX_NEXTHOPS: u32 = 262_144;
/// Interfaces that the programs can be attached to.
pub const MAX_INTERFACES: usize = 16;
/// Rules on the block list.
pub const MAX_BLOCK_RULES: u32 = 4_000_000;
/// Exceptions from the block list, of each address family.
pub const MAX_ALLOW_RULES: u32 = 4096;
/// Source ranges of all services that restrict theirs, of each address family.
pub const MAX_SOURCES: u32 = 65_536;
/// VIPs that the node holds for other nodes.
pub const MAX_HELD_VIPS: u32 = 16_384;
/// Prefixes of nodes that may send it packets for these, of each address family.
pub const MAX_SENDERS: u32 = 4096;
/// Rules whose counters outgrew their [`crate::block::Tally`].
pub const MAX_BLOCK_SPILL: u32 = 65_536;
/// Flow slots per address family, unless the configuration says otherwise. A power of two.
pub const DEFAULT_FLOW_SLOTS: u32 = 262_144;
/// Smallest table that can be asked for.
pub const MIN_FLOW_SLOTS: u32 = 1024;
/// Largest table that can be asked for (1 GiB of IPv4 slots).
pub const MAX_FLOW_SLOTS: u32 = 16_777_216;
/// Slots of the largest Maglev table; a prime.
pub const MAX_MAGLEV_SLOTS: u32 = 65_537;

/// Connected sockets of local clients that are remembered; the one used longest ago is forgotten
/// first.
pub const MAX_SOCKETS: u32 = 65_536;
/// Halves of conversations of local clients over unconnected UDP sockets that are remembered.
pub const MAX_CONVERSATIONS: u32 = 65_536;

/// Fragmented packets whose fragments are followed at a time, per address family.
pub const MAX_FRAGMENTED: u32 = 8_192;

/// Indices of the programs in [`name::DETOURS`] and [`name::TC_DETOURS`].
pub mod detour {
    /// [`super::name::PROGRAM_DETOUR`].
    pub const XDP: u32 = 0;
    /// [`super::name::PROGRAM_TC_DETOUR`].
    pub const TC: u32 = 0;
    /// Number of indices.
    pub const COUNT: u32 = 1;
}

/// Map names as they stand in the object and in the pin directory.
pub mod name {
    /// [`crate::entry::ServiceKey`] to [`crate::entry::ServiceEntry`].
    pub const SERVICES: &str = "SERVICES";
    /// Service id to its Maglev table (array of backend ids).
    pub const MAGLEV: &str = "MAGLEV";
    /// Backend id to [`crate::entry::BackendEntry`].
    pub const BACKENDS: &str = "BACKENDS";
    /// Index to [`crate::entry::NextHop`].
    pub const NEXTHOPS: &str = "NEXTHOPS";
    /// Buckets of IPv4 flow slots.
    pub const FLOWS4: &str = "FLOWS4";
    /// Buckets of IPv6 flow slots.
    pub const FLOWS6: &str = "FLOWS6";
    /// One [`crate::entry::DestinationFilter`].
    pub const FILTER: &str = "FILTER";
    /// Pages of the IPv4 block list; see [`crate::block`].
    pub const BLOCK4: &str = "BLOCK4";
    /// Pages of the IPv6 block list.
    pub const BLOCK6: &str = "BLOCK6";
    /// IPv4 prefixes that are never blocked.
    pub const ALLOW4: &str = "ALLOW4";
    /// IPv6 prefixes that are never blocked.
    pub const ALLOW6: &str = "ALLOW6";
    /// [`crate::entry::Source`] prefixes of IPv4 that services admit.
    pub const SOURCES4: &str = "SOURCES4";
    /// [`crate::entry::Source`] prefixes of IPv6 that services admit.
    pub const SOURCES6: &str = "SOURCES6";
    /// VIPs that the node holds for others, which send it packets for them within another header:
    /// [`crate::entry::AddressKey`] to nothing of importance. This and
    /// the next two are filled at the start, and not pinned.
    pub const HELD_VIPS: &str = "HELD_VIPS";
    /// IPv4 prefixes that these packets may come from.
    pub const SENDERS4: &str = "SENDERS4";
    /// IPv6 prefixes that these packets may come from.
    pub const SENDERS6: &str = "SENDERS6";
    /// [`crate::block::RuleKey`] to [`crate::entry::Counter`]: what rules dropped beyond their
    /// tallies.
    pub const BLOCK_SPILL: &str = "BLOCK_SPILL";
    /// Per-CPU [`crate::entry::Counter`] for each verdict.
    pub const VERDICT_STATS: &str = "VERDICT_STATS";
    /// Per-CPU [`crate::entry::BackendStats`] for each backend id.
    pub const BACKEND_STATS: &str = "BACKEND_STATS";
    /// [`crate::entry::AddressKey`] of every VIP, whose echo requests are answered, to
    /// [`crate::entry::vip_flags`].
    pub const VIPS: &str = "VIPS";
    /// [`crate::entry::InterfaceAddresses`] of each of the node's interfaces, by position.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// XDP programs that others jump to, by the indices in [`super::detour`].
    pub const DETOURS: &str = "DETOURS";
    /// The same for tc programs.
    pub const TC_DETOURS: &str = "TC_DETOURS";
    /// One per-CPU [`crate::entry::EvictionStats`].
    pub const EVICTION_STATS: &str = "EVICTION_STATS";
    /// One word: what has been used of the budget for new flows.
    pub const BUDGET: &str = "BUDGET";
    /// One [`crate::entry::Meta`]: what an adopting agent must know first.
    pub const META: &str = "META";

    /// All maps that outlive the agent.
    pub const PINNED: &[&str] = &[
        SERVICES,
        MAGLEV,
        BACKENDS,
        NEXTHOPS,
        FLOWS4,
        FLOWS6,
        FILTER,
        BLOCK4,
        BLOCK6,
        ALLOW4,
        ALLOW6,
        SOURCES4,
        SOURCES6,
        BLOCK_SPILL,
        VERDICT_STATS,
        BACKEND_STATS,
        VIPS,
        ADDRESSES,
        DETOURS,
        TC_DETOURS,
        EVICTION_STATS,
        META,
    ];
    /// The programs' own [`crate::fragment::HoldSwitch`]; not pinned, so that every start begins with
    /// it off.
    pub const HOLD_SWITCH: &str = ".data.hold";
    /// Frames that the agent keeps, by CPU; not pinned.
    pub const HELD: &str = "HELD";
    /// [`crate::fragment::FragmentKey`] to [`crate::fragment::FirstFragment`], IPv4; not pinned.
    pub const FRAGMENTS4: &str = "FRAGMENTS4";
    /// The same for IPv6.
    pub const FRAGMENTS6: &str = "FRAGMENTS6";
    /// The programs' own [`crate::trace::TraceSwitch`]; not pinned, so that every start begins
    /// with it off.
    pub const TRACE_SWITCH: &str = ".data.trace";
    /// One [`crate::trace::TraceFilter`] for each watcher; not pinned.
    pub const TRACE_FILTERS: &str = "TRACE_FILTERS";
    /// Ring buffer of [`crate::trace::TraceEvent`]; not pinned.
    pub const TRACE_EVENTS: &str = "TRACE_EVENTS";
    /// Per-CPU [`crate::trace::TraceStats`] of each filter; not pinned.
    pub const TRACE_STATS: &str = "TRACE_STATS";
    /// Socket cookie to [`crate::socket::Connected`].
    pub const SOCKETS: &str = "SOCKETS";
    /// [`crate::socket::ConversationKey`] to [`crate::socket::Conversation`].
    pub const CONVERSATIONS: &str = "CONVERSATIONS";
    /// One per-CPU [`crate::socket::SocketStats`].
    pub const SOCKET_STATS: &str = "SOCKET_STATS";

    /// The maps of local clients, pinned only while those are served.
    pub const PINNED_LOCAL: [&str; 3] = [SOCKETS, CONVERSATIONS, SOCKET_STATS];

    /// The read-only globals ([`crate::settings::Settings`]).
    pub const SETTINGS: &str = "SETTINGS";
    /// The XDP program on each configured interface.
    pub const PROGRAM_XDP: &str = "lb_xdp";
    /// The program that [`PROGRAM_XDP`] hands packets to which are not plain.
    pub const PROGRAM_DETOUR: &str = "lb_xdp_detour";
    /// The same for the tc programs.
    pub const PROGRAM_TC_DETOUR: &str = "lb_tc_detour";
    /// The tc program that does everything, at ingress of interfaces without XDP.
    pub const PROGRAM_TC_INGRESS: &str = "lb_tc_ingress";
    /// The tc program at ingress of interfaces with XDP, for what XDP cannot send itself.
    pub const PROGRAM_TC_FINISH: &str = "lb_tc_finish";
    /// The tc program at egress, for replies of the node's own processes.
    pub const PROGRAM_TC_EGRESS: &str = "lb_tc_egress";
    /// A program for test run only, whose return value is the kernel's tick counter.
    pub const PROGRAM_PASS: &str = "lb_pass";
    /// Answers with the tick counter.
    pub const PROGRAM_CLOCK: &str = "lb_clock";
}
