//! Frames whose transport checksum is yet to be computed.
//!
//! A buffer of the kernel's that comes from a local stack may lack it (`CHECKSUM_PARTIAL`): the sum of the
//! pseudo-header stands in its place, and the device that sends it puts the checksum there. What stands
//! beside the buffer says so, which XDP does not see and redirected frames do not have: a network card
//! sends them as they are. In tc the kernel takes care of it.

use core::mem::offset_of;

use lb_common::{IPPROTO_UDP, checksum, verdict::Verdict};

use crate::{
    family::Family,
    headers::{Tcp, Udp},
    packet::{Frame, Hook},
    parse::Network,
    settings::setting,
};

/// `Err`: a frame that has come to XDP is left to tc for that reason.
///
/// One in 65,536 whole packets looks the same; tc handles it as well.
#[inline(always)]
pub(crate) fn check<F: Family, L3>(
    frame: &Frame,
    network: &Network<L3, F::Addr>,
) -> Result<(), Verdict> {
    let is_asked = frame.hook == Hook::Xdp && setting!(pending) != 0;
    if is_asked && stands::<F, L3>(frame, network).is_some() {
        return Err(Verdict::PassUnresolved);
    }
    Ok(())
}

/// The sum of the pseudo-header, if it stands in the checksum's place; `None`: the checksum is there.
#[inline(always)]
pub(crate) fn stands<F: Family, L3>(frame: &Frame, network: &Network<L3, F::Addr>) -> Option<u16> {
    let field = match network.proto {
        IPPROTO_UDP => offset_of!(Udp, checksum),
        _ => offset_of!(Tcp, checksum),
    };
    let stands = frame.at::<u16>(network.l4_offset + field)?;
    // SAFETY: `at` checked the bounds.
    let stands = unsafe { stands.read_unaligned() };
    let addresses = F::sum(&network.saddr, &network.daddr);
    let proto = (network.proto as u16).to_be() as u32;
    let length = (network.l4_length as u16).to_be() as u32;
    (stands == checksum::fold(addresses + proto + length)).then_some(stands)
}

/// Sum of the two words of the checksum in one of the processor's.
#[inline(always)]
pub(crate) const fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}
