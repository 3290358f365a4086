//! The flow table: our own, in array maps.
//!
//! A flow has two halves, each in a slot of its own: *forward*, keyed by what clients send, and
//! *reply*, keyed by what the backend sends. Where backends answer clients themselves, there is the
//! forward half alone. A slot holds key and complete rewrite; for IPv4 it
//! is one cache line, for IPv6 two. Slots lie in buckets of [`WAYS`], every key has two candidate
//! buckets, and the way to look at first comes from the hash as well.
//!
//! # Protocol
//!
//! The [`Tag`] word says whose slot it is. A writer takes a free or expired slot by
//! compare-and-swap to a *claimed* tag, writes the fields, then publishes the final tag. It then
//! looks through the buckets again: if another slot carries the same key, it withdraws its own
//! and tries anew, so that no key ever stands twice. A reader takes the tag, compares the key,
//! uses the rewrite and reads the tag again: an identity that changed means that the slot was
//! given to another flow meanwhile, and counts as a miss. State changes alter the tag's state
//! bits only, which are no part of the identity.
//!
//! A key lies in its second bucket only where the first had no place. The first is then marked as
//! *spilled* before the key is published, and who looks for a key goes on to the second bucket
//! only from a spilled one: most new flows touch one bucket instead of two. The agent takes marks
//! back that no key needs any more: it lets a mark age, and clears it a whole sweep later if no
//! writer has renewed it and no key was seen that lies beyond it.
//!
//! # Who gives way
//!
//! A new flow takes a free slot or one whose flow is over; else the place of a flow that both
//! sides have closed; else that of the oldest flow that is not established, provided that it has
//! had its grace for an answer ([`crate::settings::Settings::grace_ticks`]). An established flow never gives way.
//!
//! The agent has the same memory mapped: it sweeps idle flows, cuts those of blocked clients and
//! counts, all without a system call.

pub use self::state::{State, advance, advance_alone, tcp_flags};
pub use crate::lifetime::Lifetimes;
use crate::{assert_layout, vlan::Tags};

/// Slots in a bucket.
pub const WAYS: u32 = 4;

/// The tag word of a slot.
///
/// ```text
/// 63            32 31      24 23     16 15      8 7       0
/// +---------------+----------+---------+---------+---------+
/// | fingerprint   | generation| kind   | proto   | state   |
/// +---------------+----------+---------+---------+---------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// A free slot. The generation of its former owner may remain in other bits.
    pub const STATE_MASK: u64 = 0xff;
    /// Everything that makes two tags the same flow in the same slot.
    pub const IDENTITY_MASK: u64 = !Self::STATE_MASK;

    /// Builds a tag. The fingerprint is the upper half of the flow hash.
    #[inline(always)]
    pub const fn new(hash: u64, generation: u8, kind: Kind, proto: u8, state: State) -> Self {
        Self(
            (hash & 0xffff_ffff_0000_0000)
                | ((generation as u64) << 24)
                | ((kind as u64) << 16)
                | ((proto as u64) << 8)
                | state as u64,
        )
    }

    /// The state bits as they are.
    #[inline(always)]
    pub const fn state_bits(self) -> u8 {
        self.0 as u8
    }

    /// The state; `None` for bits that no writer produces.
    pub const fn state(self) -> Option<State> {
        State::from_bits(self.state_bits())
    }

    /// Which half this is; `None` for bits that no writer produces.
    pub const fn kind(self) -> Option<Kind> {
        match (self.0 >> 16) as u8 {
            0 => Some(Kind::Forward),
            1 => Some(Kind::Reply),
            _ => None,
        }
    }

    /// IANA protocol number.
    #[inline(always)]
    pub const fn proto(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Counts how often the slot has been given away, modulo 256.
    #[inline(always)]
    pub const fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Upper half of the flow hash, the protocol and nothing else: what a lookup compares first.
    #[inline(always)]
    pub const fn matches(self, hash: u64, proto: u8) -> bool {
        (self.0 ^ hash) >> 32 == 0
            && self.proto() == proto
            && self.state_bits() >= State::HalfOpen as u8
    }

    /// The same tag in another state.
    #[inline(always)]
    pub const fn with_state(self, state: State) -> Self {
        Self((self.0 & Self::IDENTITY_MASK) | state as u64)
    }

    /// Whether `other` is the same flow in the same slot, whatever its state.
    #[inline(always)]
    pub const fn same_identity(self, other: Tag) -> bool {
        (self.0 ^ other.0) & Self::IDENTITY_MASK == 0
    }

    /// A slot that nobody holds.
    #[inline(always)]
    pub const fn is_free(self) -> bool {
        self.state_bits() == State::Free as u8
    }

    /// A slot with a flow in it.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.state_bits() >= State::HalfOpen as u8
    }
}

/// Which half of a flow a slot holds.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Keyed by what the client sends.
    Forward = 0,
    /// Keyed by what the backend sends.
    Reply = 1,
}

/// Key and rewrite of one half of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half<A> {
    /// Key: source address of the packet, network byte order.
    pub saddr: A,
    /// Key: destination address.
    pub daddr: A,
    /// Rewrite: source address.
    pub new_saddr: A,
    /// Rewrite: destination address.
    pub new_daddr: A,
    /// Key: source and destination port as the four bytes of the packet.
    pub ports: u32,
    /// Rewrite: both ports, in the same form.
    pub new_ports: u32,
    /// Checksum delta of the addresses alone: that of the IPv4 header, and of the pseudo-header.
    pub l3_delta: u16,
    /// Checksum delta of the transport header (addresses and ports).
    pub l4_delta: u16,
    /// Index into [`crate::maps::name::NEXTHOPS`], or one of [`crate::entry::hop_number`].
    pub hop: u32,
    /// Slot number of the other half, [`NO_PARTNER`] or [`ALONE`].
    pub partner: u32,
    /// Backend id, whose counters the packet belongs to.
    pub backend: u32,
    /// Tick counter when a packet was last noted; the lower 32 bits.
    pub seen: u32,
    /// Link address to send to where `hop` is one of the node's interfaces: learned from the
    /// client's packets, so that replies go back the way the requests came.
    pub dmac: [u8; 6],
    /// Not the flow's but the bucket's, and valid in its first way only: see [`spilled`].
    pub spilled: u16,
    /// VLAN tags to send with where `hop` is one of the node's interfaces, learned likewise.
    pub tags: Tags,
}

/// Values of [`Half::spilled`].
pub mod spilled {
    /// No key whose first bucket this is lies in its second.
    pub const NO: u16 = 0;
    /// Some may.
    pub const YES: u16 = 1;
    /// Some might have at the last sweep but one; the agent's word only.
    pub const AGING: u16 = 2;
}

/// A slot of the table. `PAD` words fill it up to a multiple of the cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Slot<A, const PAD: usize> {
    /// See [`Tag`].
    pub tag: u64,
    /// Valid while the tag is live.
    pub half: Half<A>,
    /// Zero.
    pub reserved: [u32; PAD],
}

/// A bucket: the slots that a key may lie in.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Bucket<A, const PAD: usize> {
    /// The ways.
    pub slots: [Slot<A, PAD>; WAYS as usize],
}

/// A slot for an IPv4 half: one cache line.
pub type Slot4 = Slot<u32, 0>;
/// A slot for an IPv6 half: two cache lines.
pub type Slot6 = Slot<[u32; 4], 4>;
/// A bucket of IPv4 slots.
pub type Bucket4 = Bucket<u32, 0>;
/// A bucket of IPv6 slots.
pub type Bucket6 = Bucket<[u32; 4], 4>;

/// [`Half::partner`] while there is none yet, or none any more: a reply half that outlives its flow
/// so that the port is not used again before the backend has forgotten it.
pub const NO_PARTNER: u32 = u32::MAX;

/// [`Half::partner`] of a forward half without a reply half: the backend answers the client itself,
/// and no packet of its comes by here.
pub const ALONE: u32 = u32::MAX - 1;

/// First candidate bucket of a hash.
#[inline(always)]
pub const fn first_bucket(hash: u64, bucket_mask: u32) -> u32 {
    hash as u32 & bucket_mask
}

/// Second candidate bucket: another part of the hash, so that keys which share the first bucket
/// seldom share the second. The two may coincide.
#[inline(always)]
pub const fn second_bucket(hash: u64, bucket_mask: u32) -> u32 {
    (hash >> 32) as u32 & bucket_mask
}

/// The way of a bucket that a key is looked for first.
#[inline(always)]
pub const fn first_way(hash: u64) -> u32 {
    (hash >> 30) as u32 & (WAYS - 1)
}

assert_layout! {
    Half<u32>: size 56, align 4;
    Half<[u32; 4]>: size 104, align 4;
    Slot4: size 64, align 64;
    Slot6: size 128, align 64;
    Bucket4: size 256, align 64;
    Bucket6: size 512, align 64;
}

mod state;
#[cfg(test)]
mod tests;
