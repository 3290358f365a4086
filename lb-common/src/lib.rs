//! Facts shared by the programs in the kernel and the agent beside them.
//!
//! Every type that crosses the border is `repr(C)`, has its size asserted at compile time and no
//! implicit padding. Every constant that both sides need stands here once. Anything that changes
//! the meaning of bytes in a pinned map must raise [`maps::SCHEMA`].
//!
//! Byte order: addresses and ports are kept as they stand in the packet (network byte order, in
//! memory order). An IPv4 address is a `u32` whose bytes in memory are the address; an IPv6
//! address is four such words; a port is a `u16` whose bytes in memory are big-endian. All other
//! integers are the host's.

#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod bench;
pub mod block;
pub mod checksum;
pub mod entry;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod lifetime;
pub mod maps;
pub mod settings;
pub mod socket;
pub mod trace;
pub mod verdict;
pub mod vlan;

/// IANA protocol number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;
/// IANA protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// IANA protocol number of ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;

/// Asserts size and alignment of a shared type at compile time, so that both halves agree.
macro_rules! assert_layout {
    ($($type:ty: size $size:literal, align $align:literal;)*) => {
        $(const _: () = {
            assert!(size_of::<$type>() == $size, concat!("size of ", stringify!($type)));
            assert!(align_of::<$type>() == $align, concat!("alignment of ", stringify!($type)));
        };)*
        $(
            // SAFETY: the type is `repr(C)`, made of integers and arrays of integers without
            // padding (its size is asserted above), so every bit pattern is a valid value.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $type {}
        )*
    };
}
pub(crate) use assert_layout;
