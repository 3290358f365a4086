//! The floors: what a program cannot do without that looks at a packet and lets it go some way.
//!
//! The parse is the least that any balancer does (Ethernet, IPv4 or IPv6, the ports), on purpose
//! not the agent's own, which would hide what that one costs.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Transmits without a look.
#[xdp]
pub fn lb_transmit(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// Parses and transmits.
#[xdp]
pub fn lb_parse_transmit(ctx: XdpContext) -> u32 {
    after_parse(&ctx, XDP_TX)
}

/// Parses and passes on.
#[xdp]
pub fn lb_parse_pass(ctx: XdpContext) -> u32 {
    after_parse(&ctx, XDP_PASS)
}

/// Parses and drops.
#[xdp]
pub fn lb_parse_drop(ctx: XdpContext) -> u32 {
    after_parse(&ctx, XDP_DROP)
}

/// `action` for every packet that can be parsed. What was read decides, or the compiler would
/// not have it read; hardly a packet has the sum that is refused.
#[inline(always)]
fn after_parse(ctx: &XdpContext, action: u32) -> u32 {
    let word = parse(ctx).unwrap_or(0);
    if word == 0 { XDP_ABORTED } else { action }
}

/// A word that everything read has gone into.
#[inline(always)]
fn parse(ctx: &XdpContext) -> Option<u32> {
    let ethernet = read::<[u8; 14]>(ctx, 0)?;
    match u16::from_ne_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_IPV4 => {
            let ip = read::<Ipv4>(ctx, 14)?;
            let words = ip.words;
            if words[0] as u8 >> 4 != 4 || words[0] >> 16 == 0 || words[1] >> 16 & FRAGMENT != 0 {
                return None;
            }
            let header_length = ((words[0] & 15) as usize) * 4;
            let addresses = words[3] ^ words[4].rotate_left(7);
            transport(ctx, 14 + header_length, (words[2] >> 8) as u8, addresses)
        }
        ETHERTYPE_IPV6 => {
            let ip = read::<Ipv6>(ctx, 14)?;
            let words = ip.words;
            if words[0] as u8 >> 4 != 6 || words[1] as u16 == 0 {
                return None;
            }
            let mut addresses = 0_u32;
            for word in &words[2..] {
                addresses = addresses.rotate_left(3) ^ word;
            }
            transport(ctx, 54, (words[1] >> 16) as u8, addresses)
        }
        _ => None,
    }
}

/// The words of an IPv4 header without options, as they lie in memory.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv4 {
    words: [u32; 5],
}

/// The same of an IPv6 header.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv6 {
    words: [u32; 10],
}

/// "More fragments" and the offset in the upper half of an IPv4 header's second word.
const FRAGMENT: u32 = 0x3fff_u16.to_be() as u32;

#[inline(always)]
fn transport(ctx: &XdpContext, offset: usize, proto: u8, addresses: u32) -> Option<u32> {
    let (ports, flags) = match proto {
        TCP => {
            let words = read::<[u32; 5]>(ctx, offset)?;
            (words[0], words[3] >> 8)
        }
        UDP => (read::<[u32; 2]>(ctx, offset)?[0], 0),
        _ => return None,
    };
    Some(addresses ^ ports.rotate_left(11) ^ flags << 24)
}

#[inline(always)]
fn read<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let at = ctx.data() + offset;
    if at + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: within the frame, by the check above.
    Some(unsafe { (at as *const T).read_unaligned() })
}
