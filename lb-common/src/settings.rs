//! Configuration that changes only when the programs are loaded: read-only globals, which the
//! verifier folds, so that what is not used costs nothing.

use crate::{assert_layout, flow::Lifetimes, maps::MAX_INTERFACES};

/// The read-only globals of all programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Seed of every hash; the same as in [`crate::entry::Meta`].
    pub seed: u64,
    /// Number of buckets in each flow table minus one.
    pub bucket_mask: u32,
    /// Ticks after which a hit refreshes both halves of a flow.
    pub refresh_ticks: u32,
    /// How long idle flows live, in ticks.
    pub lifetimes: Lifetimes,
    /// How long a flow that is not established is safe from newer ones, in ticks.
    pub grace_ticks: u32,
    /// New flows admitted in each window of 2^`budget_shift` ticks, all CPUs together; 0: any
    /// number.
    pub budget: u32,
    /// See `budget`.
    pub budget_shift: u32,
    /// First port (host byte order) that flows may be given on the node's addresses.
    pub port_first: u16,
    /// Last such port, inclusive.
    pub port_last: u16,
    /// How many of `interfaces` to look at.
    pub interface_count: u32,
    /// Interfaces the programs run on; the position is the index of their own
    /// [`crate::entry::NextHop`]. 0: none.
    pub interfaces: [u32; MAX_INTERFACES],
    /// A bit for each position of `interfaces` where questions for the link address of a VIP are
    /// answered.
    pub announce: u32,
    /// [`decapsulate`].
    pub decapsulate: u32,
    /// Not 0: frames may come to XDP whose transport checksum is yet to be computed, as from a veth,
    /// whose other end is a local stack's. Those are left to tc.
    pub pending: u32,
}

/// Bits of [`Settings::decapsulate`]. None of them: nothing is taken off.
pub mod decapsulate {
    /// The header around packets to the VIPs in [`crate::maps::name::HELD_VIPS`] is taken off.
    pub const ON: u32 = 1;
    /// Only if its source is in [`crate::maps::name::SENDERS4`] or
    /// [`crate::maps::name::SENDERS6`].
    pub const FROM_SENDERS: u32 = 2;
}

assert_layout! {
    Settings: size 136, align 8;
}
