//! Echo requests to a VIP (RFC 792, RFC 4443), answered where they arrive: a VIP need not be an
//! address of the node.

use lb_common::{checksum, entry::AddressKey, verdict::Verdict};

use crate::{
    answer,
    detour::Outcome,
    family::{V4, V6},
    fragment,
    headers::{Icmp, Ipv4, Ipv6},
    maps::VIPS,
    packet::Frame,
    parse::{Network, Packet},
    transmit,
    vlan::Link,
};

/// Kind and code of the messages, as one word in memory order.
const REQUEST4: u16 = u16::from_ne_bytes([8, 0]);
const REPLY4: u16 = u16::from_ne_bytes([0, 0]);
const REQUEST6: u16 = u16::from_ne_bytes([128, 0]);
const REPLY6: u16 = u16::from_ne_bytes([129, 0]);

/// Hop count of answers: what most hosts send with (RFC 1700).
pub(crate) const HOPS: u8 = 64;

/// A packet that can go back to its sender.
pub(crate) trait Echo {
    /// Exchanges the addresses of link and network, and gives it hops.
    fn turn_round(&self);
}

impl Echo for Packet<Ipv4, u32> {
    #[inline(always)]
    fn turn_round(&self) {
        // SAFETY: `parse` checked the bounds; the structs are packed.
        unsafe {
            core::mem::swap(
                &mut (*self.ethernet).source,
                &mut (*self.ethernet).destination,
            );
            // The checksum does not care which address is where.
            (*self.l3).saddr = self.daddr;
            (*self.l3).daddr = self.saddr;
            let old = (*self.l3).ttl_proto;
            let new = u16::from_ne_bytes([HOPS, self.proto]);
            let delta = checksum::fold(checksum::replace16(old, new));
            (*self.l3).ttl_proto = new;
            (*self.l3).checksum = checksum::apply((*self.l3).checksum, delta);
        }
    }
}

impl Echo for Packet<Ipv6, [u32; 4]> {
    #[inline(always)]
    fn turn_round(&self) {
        // SAFETY: as above.
        unsafe {
            core::mem::swap(
                &mut (*self.ethernet).source,
                &mut (*self.ethernet).destination,
            );
            (*self.l3).saddr = self.daddr;
            (*self.l3).daddr = self.saddr;
            (*self.l3).hop_limit = HOPS;
        }
    }
}

/// Whether an IPv4 packet is an echo request, or the first fragment of one.
#[inline(always)]
pub(crate) fn is_request4(frame: &Frame, network: &Network<Ipv4, u32>) -> bool {
    header(frame, network).is_ok_and(|(_, word)| word == REQUEST4)
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn is_request6(frame: &Frame, network: &Network<Ipv6, [u32; 4]>) -> bool {
    header(frame, network).is_ok_and(|(_, word)| word == REQUEST6)
}

/// Answers an IPv4 echo request, or the first fragment of one, if it is to a VIP.
#[inline(always)]
pub(crate) fn answer4(frame: &Frame, link: &Link, network: &Network<Ipv4, u32>) -> Outcome {
    let key = AddressKey::v4(network.daddr);
    if !is_vip(&key) || !answer::may_be_told4(network.saddr) {
        return Err(Verdict::PassForeign);
    }
    if network.fragment.more {
        fragment::remember::<V4, Ipv4>(network, None);
    }
    turned(frame, link, network, REPLY4)
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn answer6(frame: &Frame, link: &Link, network: &Network<Ipv6, [u32; 4]>) -> Outcome {
    let key = AddressKey::v6(&network.daddr);
    if !is_vip(&key) || !answer::may_be_told6(&network.saddr) {
        return Err(Verdict::PassForeign);
    }
    if network.fragment.more {
        fragment::remember::<V6, Ipv6>(network, None);
    }
    turned(frame, link, network, REPLY6)
}

/// The ICMP header, and its kind and code.
#[inline(always)]
fn header<L3, A>(frame: &Frame, network: &Network<L3, A>) -> Result<(*mut Icmp, u16), Verdict> {
    let icmp = frame
        .at::<Icmp>(network.l4_offset)
        .ok_or(Verdict::PassMalformed)?;
    if network.l4_length < size_of::<Icmp>() {
        return Err(Verdict::PassMalformed);
    }
    // SAFETY: `at` checked the bounds.
    Ok((icmp, unsafe { icmp.cast::<u16>().read_unaligned() }))
}

#[inline(always)]
fn is_vip(key: &AddressKey) -> bool {
    // SAFETY: the value is not looked at.
    unsafe { VIPS.get(key) }.is_some()
}

/// Makes the reply of the request. The pseudo-header of ICMPv6 sums up to the same.
#[inline(always)]
fn turned<L3, A: Copy>(frame: &Frame, link: &Link, network: &Network<L3, A>, reply: u16) -> Outcome
where
    Packet<L3, A>: Echo,
{
    let (icmp, former) = header(frame, network)?;
    let packet = network.packet(frame, link.tags, icmp.cast())?;
    packet.turn_round();
    // SAFETY: `header` checked the bounds; the struct is packed.
    unsafe {
        let delta = checksum::fold(checksum::replace16(former, reply));
        icmp.cast::<u16>().write_unaligned(reply);
        (*icmp).checksum = checksum::apply((*icmp).checksum, delta);
    }
    Ok((transmit::send_back(frame), Verdict::AnswerEcho))
}
