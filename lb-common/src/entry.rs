//! Keys and values of the maps that the agent writes and the programs read.

use crate::{assert_layout, vlan::Tags};

/// Address family of a key: 4 or 6.
pub const FAMILY_V4: u8 = 4;
/// See [`FAMILY_V4`].
pub const FAMILY_V6: u8 = 6;

/// Where clients connect to: one VIP, port and protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The VIP in network byte order; IPv4 in the first word, the others zero.
    pub addr: [u32; 4],
    /// Network byte order.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
}

/// What the programs need to know of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Index into [`crate::maps::name::MAGLEV`].
    pub id: u32,
    /// Number of slots in its Maglev table; 0: no table yet.
    pub maglev_slots: u32,
    /// [`service_flags`].
    pub flags: u32,
    /// Keeps the size a multiple of eight; zero.
    pub reserved: u32,
}

/// Bits of [`ServiceEntry::flags`].
pub mod service_flags {
    /// Only clients whose address is under the service's id in
    /// [`crate::maps::name::SOURCES4`] or [`crate::maps::name::SOURCES6`] begin flows.
    pub const RESTRICTED: u32 = 1;
    /// The client's address alone chooses the backend.
    pub const BY_CLIENT: u32 = 2;
    /// Backends answer clients themselves: packets leave with the backend's link address, and as
    /// they came otherwise.
    pub const DSR_L2: u32 = 4;
    /// Backends answer clients themselves: packets leave within a header of their own address
    /// family, from the node to the backend.
    pub const DSR_IPIP: u32 = 8;
}

/// A client as it is looked up among the sources that a service admits. A prefix is as long as
/// [`SOURCE_SERVICE_BITS`] and that of the addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<A> {
    /// Id of the service.
    pub service: u32,
    /// Network byte order.
    pub addr: A,
}

/// Bits in front of the address in a [`Source`].
pub const SOURCE_SERVICE_BITS: u32 = 32;

/// One backend of one service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// Backend address, network byte order, of the service's family.
    pub addr: [u32; 4],
    /// Address of this node that the backend sees as the client.
    pub source: [u32; 4],
    /// Backend port, network byte order.
    pub port: u16,
    /// [`backend_flags`].
    pub flags: u16,
    /// Index into [`crate::maps::name::NEXTHOPS`].
    pub hop: u32,
    /// Id of the service it belongs to.
    pub service: u32,
    /// [`FAMILY_V4`] or [`FAMILY_V6`]; 0: no backend here.
    pub family: u32,
    /// Zero.
    pub reserved: [u32; 4],
}

/// Bits of [`BackendEntry::flags`].
pub mod backend_flags {
    /// Takes new flows. Without it existing flows go on, new ones do not arrive.
    pub const ACTIVE: u16 = 1;
}

/// Where a frame goes next on the link.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NextHop {
    /// Interface it leaves by; 0: unresolved.
    pub ifindex: u32,
    /// MTU of that interface in bytes.
    pub mtu: u32,
    /// Link-layer address of the neighbour (ignored where the flow learned its own).
    pub dmac: [u8; 6],
    /// Link-layer address of the interface.
    pub smac: [u8; 6],
    /// VLAN tags that frames leave with (ignored where the flow learned its own).
    pub tags: Tags,
    /// [`hop_flags`].
    pub flags: u32,
}

/// Bits of [`NextHop::flags`]. None of them: a frame is sent by link addresses, from XDP too.
pub mod hop_flags {
    /// The link address is not known at present: the kernel resolves it with the packet in hand,
    /// which only a program that has one of the kernel's buffers can ask for (tc).
    pub const NEIGHBOUR: u32 = 1;
    /// The interface takes no frames from XDP: a bridge, a veth whose peer does not poll.
    pub const NO_XDP: u32 = 2;
    /// The address is the node's own: the packet goes to the node's stack.
    pub const LOCAL: u32 = 4;
    /// It takes none of its own back by `XDP_TX`: a veth puts the frame into its peer's ring and
    /// wakes the peer only if that has a program (drivers/net/veth.c, `veth_xdp_flush`).
    pub const NO_TX: u32 = 8;
}

/// Numbers in [`crate::flow::Half::hop`] that are no index into the next hops.
pub mod hop_number {
    /// Set, with an interface's index in the other bits: out of that interface, to the neighbour
    /// that the kernel finds. For clients behind an interface without a number of its own.
    pub const DIRECT: u32 = 1 << 31;
    /// Set, with an index into the next hops in the other bits: the backend answers the client
    /// itself, so nothing of the packet but its hop count is rewritten.
    pub const SERVER_RETURN: u32 = 1 << 30;
    /// Beside [`SERVER_RETURN`]: the packet leaves within another header, whose addresses are those
    /// of the half's rewrite.
    pub const TUNNEL: u32 = 1 << 29;
    /// The reply half of a flow to a process of the node: it is met on the way out, which the
    /// kernel's routes have chosen already.
    pub const LOCAL: u32 = u32::MAX;
}

/// The address of a VIP, as a key. In words of eight bytes, since the verifier wants stores of
/// that size to be aligned.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey {
    family: u64,
    addr: [u64; 2],
}

impl AddressKey {
    /// The key of an IPv4 address, in network byte order.
    #[inline(always)]
    pub const fn v4(addr: u32) -> Self {
        Self {
            family: FAMILY_V4 as u64,
            addr: [addr as u64, 0],
        }
    }

    /// The key of an IPv6 address.
    #[inline(always)]
    pub const fn v6(addr: &[u32; 4]) -> Self {
        Self {
            family: FAMILY_V6 as u64,
            addr: [
                addr[0] as u64 | (addr[1] as u64) << 32,
                addr[2] as u64 | (addr[3] as u64) << 32,
            ],
        }
    }
}

/// Flags of a VIP's address.
pub mod vip_flags {
    /// Who asks for its link address is told.
    pub const ANNOUNCED: u32 = 1;
}

/// The node's addresses on an interface, which its own ICMP errors come from; zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct InterfaceAddresses {
    /// Network byte order.
    pub v4: u32,
    /// Network byte order.
    pub v6: [u32; 4],
}

/// Packets and bytes. Bytes are those of the frame as received.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Per-CPU counters of one backend. A service's are the sum over its backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BackendStats {
    /// From clients to the backend.
    pub inbound: Counter,
    /// From the backend to clients.
    pub outbound: Counter,
    /// Flows created.
    pub flows: u64,
}

/// Per-CPU counters of flows that gave way to newer ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EvictionStats {
    /// Closed by both sides, and kept only for the sake of their ports.
    pub closed: u64,
    /// Not yet established, beyond their grace.
    pub half_open: u64,
}

/// A bit for every destination that may be ours: a cheap answer for foreign traffic. False
/// positives cost a lookup, false negatives do not exist. See [`crate::hash::filter_bit`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationFilter {
    /// 65,536 bits.
    pub words: [u64; FILTER_WORDS],
}

/// Words of a [`DestinationFilter`].
pub const FILTER_WORDS: usize = 1024;

/// What an agent that adopts pinned maps must know before it loads its programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// [`crate::maps::SCHEMA`] of the agent that created the maps; 0: just created.
    pub schema: u32,
    /// Slots in each flow table.
    pub flow_slots: u32,
    /// Seed of every hash; drawn at creation, kept as long as the flow tables live.
    pub seed: u64,
}

assert_layout! {
    ServiceKey: size 20, align 4;
    ServiceEntry: size 16, align 4;
    Source<u32>: size 8, align 4;
    Source<[u32; 4]>: size 20, align 4;
    BackendEntry: size 64, align 4;
    NextHop: size 28, align 4;
    AddressKey: size 24, align 8;
    InterfaceAddresses: size 20, align 4;
    Counter: size 16, align 8;
    BackendStats: size 40, align 8;
    EvictionStats: size 16, align 8;
    DestinationFilter: size 8192, align 8;
    Meta: size 16, align 8;
}
