//! ICMP errors of the node's own: time exceeded, and too big for the way on.
//!
//! The packet in question moves back to make room for new headers in front of it, and becomes the
//! quote.

use lb_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, checksum, entry::InterfaceAddresses,
};

use crate::{
    answer_budget,
    detour::Arrival,
    echo::HOPS,
    family::{Family, V4, V6},
    headers::{Ethernet, Icmp, Ipv4, Ipv6},
    maps::ADDRESSES,
    packet::{Frame, Hook},
    parse::Network,
    pending::{self, halves},
    settings::interface_position,
    vlan::Link,
};

/// Longest quote: the answer is to have 576 bytes at most (RFC 1812, section 4.3.2.3).
const QUOTE4: usize = 576 - size_of::<Ipv4>() - size_of::<Icmp>();
/// The same for IPv6: 1280 bytes at most (RFC 4443, section 2.4).
const QUOTE6: usize = 1280 - size_of::<Ipv6>() - size_of::<Icmp>();
/// Bytes in a word of the checksum.
const WORD: usize = size_of::<u32>();
/// Type of service of errors: internetwork control (RFC 1812, section 4.3.2.5).
const CONTROL: u8 = 0xc0;
/// "Don't fragment".
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// Kind and code of an error, as one word in memory order.
const TIME_EXCEEDED4: u16 = u16::from_ne_bytes([11, 0]);
const FRAGMENTATION_NEEDED4: u16 = u16::from_ne_bytes([3, 4]);
const TIME_EXCEEDED6: u16 = u16::from_ne_bytes([3, 0]);
const TOO_BIG6: u16 = u16::from_ne_bytes([2, 0]);

/// Makes an error out of an IPv4 packet: too big if packets may have `mtu` bytes only, else time
/// exceeded. A sender that would have the packet fragmented is told as well: we cannot, and senders
/// heed it all the same. `None`: the sender is not to be told.
#[inline(always)]
pub(crate) fn answer4(of: &Arrival<Ipv4, u32>, mtu: u32) -> Option<()> {
    let Arrival {
        frame,
        link,
        network,
    } = of;
    let (kind, rest) = match mtu {
        0 => (TIME_EXCEEDED4, 0),
        mtu => (FRAGMENTATION_NEEDED4, mtu.to_be()),
    };
    if !is_transport(network.proto) || network.fragment.later || !may_be_told4(network.saddr) {
        return None;
    }
    let (saddr, daddr) = (network.daddr, network.saddr);
    let own = addresses(frame.ingress).map_or(0, |own| own.v4);
    let source = if own != 0 { own } else { saddr };
    let length = network.l4_offset - network.l3_offset + network.l4_length;
    let headers = size_of::<Ipv4>() + size_of::<Icmp>();
    let l4 = network.l4_offset - network.l3_offset;
    let pending = pending_in_quote::<V4, _>(frame, network);
    let (frame, quote) = make_room(frame, link, network.l3_offset, length.min(QUOTE4), headers)?;
    let l3 = network.l3_offset;
    let ip = frame.at::<Ipv4>(l3)?;
    let icmp = frame.at::<Icmp>(l3 + size_of::<Ipv4>())?;
    let mut header = Ipv4 {
        version_ihl: 0x45,
        tos: CONTROL,
        total_length: ((headers + quote) as u16).to_be(),
        id: 0,
        fragment: DONT_FRAGMENT,
        ttl_proto: u16::from_ne_bytes([HOPS, IPPROTO_ICMP]),
        checksum: 0,
        saddr: source,
        daddr,
    };
    let first = u16::from_ne_bytes([header.version_ihl, header.tos]) as u32;
    let sum = first
        + header.total_length as u32
        + header.fragment as u32
        + header.ttl_proto as u32
        + halves(source)
        + halves(daddr);
    header.checksum = !checksum::fold(sum);
    let quoted = sum_of_quote::<{ QUOTE4 / WORD }>(&frame, l3 + headers, quote, l4, pending)?;
    // SAFETY: `at` checked the bounds; the structs are packed.
    unsafe {
        *ip = header;
        write_icmp(icmp, kind, rest, quoted);
    }
    Some(())
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn answer6(of: &Arrival<Ipv6, [u32; 4]>, mtu: u32) -> Option<()> {
    let Arrival {
        frame,
        link,
        network,
    } = of;
    let (kind, rest) = match mtu {
        0 => (TIME_EXCEEDED6, 0),
        mtu => (TOO_BIG6, mtu.to_be()),
    };
    let length = network.l4_offset - network.l3_offset + network.l4_length;
    if !is_transport(network.proto) || network.fragment.later || !may_be_told6(&network.saddr) {
        return None;
    }
    let (saddr, daddr) = (network.daddr, network.saddr);
    let own = addresses(frame.ingress).map_or([0; 4], |own| own.v6);
    let source = if own != [0; 4] { own } else { saddr };
    let headers = size_of::<Ipv6>() + size_of::<Icmp>();
    let l4 = network.l4_offset - network.l3_offset;
    let pending = pending_in_quote::<V6, _>(frame, network);
    let (frame, quote) = make_room(frame, link, network.l3_offset, length.min(QUOTE6), headers)?;
    let l3 = network.l3_offset;
    let ip = frame.at::<Ipv6>(l3)?;
    let icmp = frame.at::<Icmp>(l3 + size_of::<Ipv6>())?;
    let payload_length = ((size_of::<Icmp>() + quote) as u16).to_be();
    let mut sum = sum_of_quote::<{ QUOTE6 / WORD }>(&frame, l3 + headers, quote, l4, pending)?;
    // The pseudo-header (RFC 8200, section 8.1).
    sum += payload_length as u32 + (IPPROTO_ICMPV6 as u16).to_be() as u32;
    for word in 0..4 {
        sum += halves(source[word]) + halves(daddr[word]);
    }
    // SAFETY: as above.
    unsafe {
        *ip = Ipv6 {
            version_class_label: (0x6000_0000_u32 | (CONTROL as u32) << 20).to_be(),
            payload_length,
            next_header: IPPROTO_ICMPV6,
            hop_limit: HOPS,
            saddr: source,
            daddr,
        };
        write_icmp(icmp, kind, rest, sum);
    }
    Some(())
}

/// What errors are about; never other ICMP.
#[inline(always)]
fn is_transport(proto: u8) -> bool {
    matches!(proto, IPPROTO_TCP | IPPROTO_UDP)
}

/// Whether an answer may go to this address (RFC 1122, section 3.2.2): not multicast, broadcast,
/// loopback or none at all.
#[inline(always)]
pub(crate) fn may_be_told4(addr: u32) -> bool {
    let [first, ..] = addr.to_ne_bytes();
    first != 0 && first != 127 && first < 224
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn may_be_told6(addr: &[u32; 4]) -> bool {
    let [first, ..] = addr[0].to_ne_bytes();
    let low = addr[0] | addr[1] | addr[2];
    // Neither `::` nor `::1`.
    first != 0xff && (low != 0 || u32::from_be(addr[3]) > 1)
}

/// Whether a frame was sent to a group of stations: nobody is told (RFC 1122, section 3.2.2).
#[inline(always)]
pub(crate) fn is_to_group(frame: &Frame) -> bool {
    frame
        .at::<Ethernet>(0)
        // SAFETY: `at` checked the bounds; the struct is packed.
        .is_none_or(|ethernet| unsafe { (*ethernet).destination[0] } & 1 != 0)
}

/// The node's own addresses on an interface.
#[inline(always)]
fn addresses(ifindex: u32) -> Option<&'static InterfaceAddresses> {
    ADDRESSES.get(interface_position(ifindex)?)
}

/// Takes from the budget, cuts the frame behind the quote, moves its beginning by `headers` and
/// writes the link header back to the sender. Answers with the frame and the quote's length, a
/// multiple of the checksum's words.
#[inline(always)]
fn make_room(
    frame: &Frame,
    link: &Link,
    l3_offset: usize,
    quote: usize,
    headers: usize,
) -> Option<(Frame, usize)> {
    let ethernet = frame.at::<Ethernet>(0)?;
    // SAFETY: `at` checked the bounds; the struct is packed.
    let header = unsafe { *ethernet };
    let (destination, source) = (header.destination, header.source);
    // Sent to a group: nobody is told (RFC 1122, section 3.2.2).
    if destination[0] & 1 != 0 || !answer_budget::take() {
        return None;
    }
    let quote = quote & !(WORD - 1);
    let surplus = frame.len() as i32 - (l3_offset + quote) as i32;
    let frame = frame.move_end(-surplus)?.move_start(-(headers as i32))?;
    let ethernet = frame.at::<Ethernet>(0)?;
    // SAFETY: as above.
    unsafe {
        (*ethernet).destination = source;
        (*ethernet).source = destination;
    }
    link.write_tags(&frame).ok()?;
    Some((frame, quote))
}

/// What transport header and payload of a quote sum up to, however much is quoted, where their
/// checksum is [`pending`]: whoever sends it puts it there, also in a quote. A frame of XDP is sent as
/// it is.
#[inline(always)]
fn pending_in_quote<F: Family, L3>(frame: &Frame, network: &Network<L3, F::Addr>) -> Option<u16> {
    match frame.hook {
        Hook::Xdp => None,
        Hook::Tc => pending::stands::<F, L3>(frame, network).map(|stands| !stands),
    }
}

/// Sum of a quote of `length` bytes that begins at `offset`, at most `WORDS` words. From its
/// transport header on, at `l4`, it is the `pending` one if there is such.
#[inline(always)]
fn sum_of_quote<const WORDS: usize>(
    frame: &Frame,
    offset: usize,
    length: usize,
    l4: usize,
    pending: Option<u16>,
) -> Option<u32> {
    let (until, mut sum) = match pending {
        Some(rest) => (l4, rest as u32),
        None => (length, 0),
    };
    for index in 0..WORDS {
        if index * WORD >= until {
            break;
        }
        let word = frame.at::<u32>(offset + index * WORD)?;
        // SAFETY: `at` checked the bounds.
        sum += halves(unsafe { word.read_unaligned() });
    }
    Some(sum)
}

/// Writes the ICMP header; `sum` is that of everything else that its checksum covers.
///
/// # Safety
///
/// `icmp` must point into the frame.
#[inline(always)]
unsafe fn write_icmp(icmp: *mut Icmp, kind: u16, rest: u32, sum: u32) {
    let checksum = !checksum::fold(sum + kind as u32 + halves(rest));
    let [kind, code] = kind.to_ne_bytes();
    // SAFETY: the caller's promise; the struct is packed.
    unsafe {
        *icmp = Icmp {
            kind,
            code,
            checksum,
            rest,
        };
    }
}
