//! Values of the block list. Its keys are prefix length and address in network byte order, as
//! the kernel's longest-prefix tries want them.

use crate::assert_layout;

/// What a matching block rule holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRule {
    /// Index into [`crate::maps::name::BLOCK_STATS`].
    pub id: u32,
}

/// Says which structures hold anything, so that an empty one costs no lookup.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BlockControl {
    /// Number of IPv4 rules.
    pub rules4: u32,
    /// Number of IPv6 rules.
    pub rules6: u32,
}

assert_layout! {
    BlockRule: size 4, align 4;
    BlockControl: size 8, align 4;
}
