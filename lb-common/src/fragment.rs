//! Fragments: what is known of a packet's first one, and what the programs hand to the agent when
//! another comes before it.

use crate::assert_layout;

/// What fragments of one packet have in common (RFC 791, RFC 8200, section 4.5); all in network
/// byte order. Aligned, since the verifier wants stores of eight bytes to be.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    /// Source address.
    pub saddr: A,
    /// Destination address.
    pub daddr: A,
    /// Identification, as it lies in the packet.
    pub id: u32,
    /// IANA protocol number of what is fragmented.
    pub proto: u32,
}

/// What became of a packet's first fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstFragment {
    /// The half's tag, as it was.
    pub tag: u64,
    /// Its slot, or [`ECHOED`].
    pub slot: u32,
    /// Tick counter when it came.
    pub seen: u32,
}

/// No slot: the first fragment was an echo request, and was answered.
pub const ECHOED: u32 = u32::MAX;

/// Whether the agent keeps fragments that come too early.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HoldSwitch {
    /// Zero: it does not.
    pub on: u32,
    /// Tick (the lower 32 bits of the kernel's counter) after which the programs switch it off.
    pub until: u32,
}

/// Goes before the bytes of a frame that the agent is to keep.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldHeader {
    /// What tells its packet; an IPv4 address in the first word.
    pub key: FragmentKey<[u32; 4]>,
    /// Interface that it came in by.
    pub ifindex: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// `FAMILY_V4` or `FAMILY_V6` of [`crate::entry`].
    pub family: u32,
    /// Zero.
    pub reserved: u32,
}

/// Longest frame that can be kept: what the kernel takes back in one page, with room to spare
/// (net/bpf/test_run.c, `TEST_XDP_FRAME_SIZE`).
pub const MAX_HELD: u32 = 3000;

assert_layout! {
    FragmentKey<u32>: size 16, align 8;
    FragmentKey<[u32; 4]>: size 40, align 8;
    FirstFragment: size 16, align 8;
    HoldSwitch: size 8, align 4;
    HeldHeader: size 56, align 8;
}
