//! Frames whose transport checksum is yet to be computed.
//!
//! A buffer of the kernel's that comes from a local stack may lack it (`CHECKSUM_PARTIAL`): the sum of the
//! pseudo-header stands in its place, and the device that sends it puts the checksum there. What stands
//! beside the buffer says so, which XDP does not see and redirected frames do not have: a network card
//! sends them as they are. In tc the kernel takes care of it.

use core::mem::offset_of;

use lb_common::{IPPROTO_UDP, checksum};

use crate::{
    headers::{Tcp, Udp},
    packet::{Frame, Hook},
    parse::Network,
    settings::setting,
};

/// Whether a frame that has come to XDP is to be left to tc for that reason. `addresses` is the sum of
/// its addresses.
///
/// One in 65,536 whole packets looks the same; tc handles it as well.
#[inline(always)]
pub(crate) fn is_for_tc<L3, A>(frame: &Frame, network: &Network<L3, A>, addresses: u32) -> bool {
    frame.hook == Hook::Xdp && setting!(pending) != 0 && stands(frame, network, addresses).is_some()
}

/// The sum of the pseudo-header, if it stands in the checksum's place; `None`: the checksum is there.
#[inline(always)]
pub(crate) fn stands<L3, A>(
    frame: &Frame,
    network: &Network<L3, A>,
    addresses: u32,
) -> Option<u16> {
    let field = match network.proto {
        IPPROTO_UDP => offset_of!(Udp, checksum),
        _ => offset_of!(Tcp, checksum),
    };
    let stands = frame.at::<u16>(network.l4_offset + field)?;
    // SAFETY: `at` checked the bounds.
    let stands = unsafe { stands.read_unaligned() };
    let proto = (network.proto as u16).to_be() as u32;
    let length = (network.l4_length as u16).to_be() as u32;
    (stands == checksum::fold(addresses + proto + length)).then_some(stands)
}

/// Sum of two addresses, unfolded.
#[inline(always)]
pub(crate) fn addresses4(saddr: u32, daddr: u32) -> u32 {
    halves(saddr) + halves(daddr)
}

/// Sum of two addresses, unfolded.
#[inline(always)]
pub(crate) fn addresses6(saddr: &[u32; 4], daddr: &[u32; 4]) -> u32 {
    let mut sum = 0;
    for word in 0..4 {
        sum += halves(saddr[word]) + halves(daddr[word]);
    }
    sum
}

/// Sum of the two words of the checksum in one of the processor's.
#[inline(always)]
pub(crate) const fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}
