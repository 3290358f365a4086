//! Answers questions for the link address of VIPs that are no address of the node's own, where the
//! configuration asks for it: ARP (RFC 826) and neighbour solicitations (RFC 4861, section 7.2). The
//! question is turned round into its answer, in tc: such questions are rare.

use core::ffi::c_void;

use lb_common::{
    IPPROTO_ICMPV6, checksum,
    entry::{AddressKey, NextHop, vip_flags},
    verdict::Verdict,
};

use crate::{
    headers::{ETHERTYPE_IPV4, Ethernet, Ipv6, copy_mac},
    maps::{NEXTHOPS, VIPS},
    packet::{Frame, Hook},
    settings::{interface_position, setting},
    transmit::send,
};

/// An ARP packet of Ethernet and IPv4. All fields in network byte order.
#[repr(C, packed)]
struct Arp {
    hardware: u16,
    protocol: u16,
    /// Lengths of a link address and of a protocol address.
    lengths: [u8; 2],
    operation: u16,
    sender: [u8; 6],
    sender_ip: u32,
    target: [u8; 6],
    target_ip: u32,
}

const ARP_ETHERNET: u16 = 1_u16.to_be();
const ARP_REQUEST: u16 = 1_u16.to_be();
const ARP_REPLY: u16 = 2_u16.to_be();

/// A neighbour solicitation or advertisement with one option, a link address.
#[repr(C, packed)]
struct Neighbour {
    kind: u8,
    code: u8,
    checksum: u16,
    flags: u32,
    target: [u32; 4],
    option: u8,
    /// In units of eight bytes.
    option_length: u8,
    address: [u8; 6],
}

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// "Solicited" and "override".
const ADVERTISEMENT_FLAGS: u32 = 0x6000_0000_u32.to_be();

/// The frame's interface, if questions for `vip` are answered there.
#[inline(always)]
fn announced(frame: &Frame, vip: &AddressKey) -> Option<&'static NextHop> {
    let position = interface_position(frame.ingress)?;
    if setting!(announce) & (1 << position) == 0 {
        return None;
    }
    // SAFETY: a word, which the agent writes whole.
    if unsafe { VIPS.get(vip) }? & vip_flags::ANNOUNCED == 0 {
        return None;
    }
    NEXTHOPS.get(position).filter(|own| own.ifindex != 0)
}

/// Sends the frame back where it came from.
#[inline(always)]
fn answer(frame: &Frame, own: &NextHop) -> Result<(u32, Verdict), Verdict> {
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds; map memory.
    unsafe {
        copy_mac(
            &raw const (*ethernet).source,
            &raw mut (*ethernet).destination,
        );
        copy_mac(&raw const own.smac, &raw mut (*ethernet).source);
    }
    Ok((
        send(frame, own.ifindex, own.flags),
        Verdict::AnswerNeighbour,
    ))
}

/// Handles an ARP frame.
#[inline(always)]
pub(crate) fn arp(frame: &Frame) -> Result<(u32, Verdict), Verdict> {
    let arp = frame
        .at::<Arp>(size_of::<Ethernet>())
        .ok_or(Verdict::PassNotIp)?;
    // SAFETY: `at` checked the bounds, here and below; the struct is packed; map memory.
    unsafe {
        let question = (*arp).hardware == ARP_ETHERNET
            && (*arp).protocol == ETHERTYPE_IPV4
            && (*arp).lengths[0] == 6
            && (*arp).lengths[1] == 4
            && (*arp).operation == ARP_REQUEST;
        let vip = (*arp).target_ip;
        // Who asks for his own address tells it.
        if !question || (*arp).sender_ip == vip {
            return Err(Verdict::PassNotIp);
        }
        let own = announced(frame, &AddressKey::v4(vip)).ok_or(Verdict::PassNotIp)?;
        if frame.hook == Hook::Xdp {
            return Err(Verdict::PassUnresolved);
        }
        (*arp).operation = ARP_REPLY;
        copy_mac(&raw const (*arp).sender, &raw mut (*arp).target);
        (*arp).target_ip = (*arp).sender_ip;
        copy_mac(&raw const own.smac, &raw mut (*arp).sender);
        (*arp).sender_ip = vip;
        answer(frame, own)
    }
}

/// Handles a packet that may be a neighbour solicitation; `None`: it is none for a VIP.
#[inline(always)]
pub(crate) fn neighbour(frame: &Frame) -> Option<Result<(u32, Verdict), Verdict>> {
    let l3 = frame.at::<Ipv6>(size_of::<Ethernet>())?;
    // SAFETY: `at` checked the bounds; the struct is packed.
    if unsafe { (*l3).next_header } != IPPROTO_ICMPV6 {
        return None;
    }
    let answer = match frame.hook {
        Hook::Xdp => solicited_in_xdp(frame.ctx),
        Hook::Tc => solicited_in_tc(frame.ctx),
    };
    match answer {
        NONE => None,
        ASIDE => Some(Err(Verdict::PassUnresolved)),
        action => Some(Ok((action as u32, Verdict::AnswerNeighbour))),
    }
}

/// Answers of the functions below beyond all actions: the frame is no question for a VIP, or is
/// one that cannot be answered from here.
const NONE: u64 = u64::MAX;
const ASIDE: u64 = u64::MAX - 1;

/// A function of its own: what it reads of the header would otherwise have the compiler hold the
/// addresses in words that do not lie well on the stack.
#[inline(never)]
fn solicited_in_xdp(ctx: *mut c_void) -> u64 {
    solicited(&Frame::again(ctx, Hook::Xdp))
}

/// See [`solicited_in_xdp`].
#[inline(never)]
fn solicited_in_tc(ctx: *mut c_void) -> u64 {
    solicited(&Frame::again(ctx, Hook::Tc))
}

#[inline(always)]
fn solicited(frame: &Frame) -> u64 {
    match try_solicited(frame) {
        None => NONE,
        Some(Ok((action, _))) => action as u64,
        Some(Err(_)) => ASIDE,
    }
}

#[inline(always)]
fn try_solicited(frame: &Frame) -> Option<Result<(u32, Verdict), Verdict>> {
    let l3 = frame.at::<Ipv6>(size_of::<Ethernet>())?;
    let message = frame.at::<Neighbour>(size_of::<Ethernet>() + size_of::<Ipv6>())?;
    // SAFETY: `at` checked the bounds; the structs are packed; map memory.
    unsafe {
        let question = (*l3).hop_limit == u8::MAX
            && (*l3).payload_length == (size_of::<Neighbour>() as u16).to_be()
            && (*message).kind == SOLICITATION
            && (*message).code == 0
            && (*message).option == SOURCE_ADDRESS
            && (*message).option_length == 1;
        // Without a source it asks whether the address is free (RFC 4862), and has no option.
        let asker = (*l3).saddr;
        if !question || asker == [0; 4] {
            return None;
        }
        let vip = (*message).target;
        let own = announced(frame, &AddressKey::v6(&vip))?;
        if frame.hook == Hook::Xdp {
            return Some(Err(Verdict::PassUnresolved));
        }
        (*l3).saddr = vip;
        (*l3).daddr = asker;
        (*message).kind = ADVERTISEMENT;
        (*message).flags = ADVERTISEMENT_FLAGS;
        (*message).option = TARGET_ADDRESS;
        copy_mac(&raw const own.smac, &raw mut (*message).address);
        (*message).checksum = 0;
        let mut sum =
            (size_of::<Neighbour>() as u16).to_be() as u32 + (IPPROTO_ICMPV6 as u16).to_be() as u32;
        // The VIP is source and target.
        for word in 0..4 {
            sum += halves(vip[word]) * 2 + halves(asker[word]);
        }
        let bytes = message.cast::<u16>();
        for index in [0, 2, 3, 12, 13, 14, 15] {
            sum += bytes.add(index).read_unaligned() as u32;
        }
        (*message).checksum = !checksum::fold(sum);
        Some(answer(frame, own))
    }
}

/// Sum of a word's halves.
#[inline(always)]
fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}
