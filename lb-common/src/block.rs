//! Keys and values of the block list.

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

/// Longest-prefix key for IPv4: prefix length in bits, then the address in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockKey4 {
    /// 0..=32.
    pub prefix_len: u32,
    /// Network byte order.
    pub addr: u32,
}

/// Longest-prefix key for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockKey6 {
    /// 0..=128.
    pub prefix_len: u32,
    /// Network byte order.
    pub addr: [u32; 4],
}

assert_layout! {
    BlockRule: size 4, align 4;
    BlockControl: size 8, align 4;
    BlockKey4: size 8, align 4;
    BlockKey6: size 20, align 4;
}
