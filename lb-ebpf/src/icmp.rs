//! ICMP errors about packets that were translated (RFC 5508, section 4.2; RFC 7915 for the idea
//! of the quote).
//!
//! Who complains of a packet quotes it as it was sent by us. The reverse of the quoted key is the
//! half that answers to it would take, and the error takes the same way with the same addresses,
//! wherever on the path it was made: its source becomes the VIP towards clients and the node
//! towards backends, as the kernel's nf_nat has it, since neither side knows of the networks
//! behind the other. The quote becomes what the addressee has sent. No state of a flow changes.

use lb_common::{IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, checksum, verdict::Verdict};

use crate::{
    create::NewFlow,
    departure,
    detour::Outcome,
    echo, extension,
    family::{Key, V4, V6},
    flow,
    headers::{IPV4_FRAGMENT_OFFSET, Icmp, Ipv4, Ipv6, Tcp, Udp, join_ports, split_ports},
    packet::Frame,
    parse::{Network, Packet},
    rewrite::{Rewrite, RewriteNetwork},
    server_return,
    vlan::Link,
};

/// Destination unreachable, time exceeded, parameter problem (RFC 792). Source quench is dead
/// (RFC 6633), and a redirect means nothing behind a translation.
const ERRORS4: [u8; 3] = [3, 11, 12];
/// Destination unreachable, too big, time exceeded, parameter problem (RFC 4443).
const ERRORS6: [u8; 4] = [1, 2, 3, 4];
/// Bytes of the transport header that are in every quote.
const LEAST: usize = 8;

/// The packet that an error quotes.
struct Quote {
    proto: u8,
    /// Offset of its network header in the frame.
    l3: usize,
    /// Offset of its transport header.
    l4: usize,
    /// Bytes of transport header and what follows.
    l4_length: usize,
}

/// How quoted addresses are changed.
trait RewriteQuote: NewFlow {
    /// Source and destination of a quote.
    fn addresses(frame: &Frame, quote: &Quote) -> Option<(Self::Addr, Self::Addr)>;

    /// Writes the addresses of a quote, with the checksum of its header; answers with the delta
    /// of the addresses and what the ICMP checksum changes by, unfolded.
    fn rewrite_quote(
        frame: &Frame,
        quote: &Quote,
        saddr: &Self::Addr,
        daddr: &Self::Addr,
    ) -> Option<(u16, u32)>;
}

/// Handles an IPv4 ICMP message that is no echo request.
#[inline(always)]
pub(crate) fn error4(frame: &Frame, link: &Link, network: &Network<Ipv4, u32>) -> Outcome {
    let icmp = echo::header(frame, network)?;
    // SAFETY: `header` checked the bounds; the struct is packed.
    if !ERRORS4.contains(unsafe { &(*icmp).kind }) {
        return Err(Verdict::PassForeign);
    }
    let l3 = network.l4_offset + size_of::<Icmp>();
    let header = frame.at::<Ipv4>(l3).ok_or(Verdict::PassMalformed)?;
    // SAFETY: as above.
    let header = unsafe { *header };
    let header_length = ((header.version_ihl & 0x0f) as usize) * 4;
    let quoted = size_of::<Icmp>() + header_length;
    let lies = header.version_ihl >> 4 != 4
        || header_length < size_of::<Ipv4>()
        || quoted + LEAST > network.l4_length;
    if lies {
        return Err(Verdict::PassMalformed);
    }
    if header.fragment & IPV4_FRAGMENT_OFFSET != 0 {
        return Err(Verdict::PassForeign);
    }
    let [_, proto] = header.ttl_proto.to_ne_bytes();
    let quote = Quote {
        proto,
        l3,
        l4: l3 + header_length,
        l4_length: network.l4_length - quoted,
    };
    translate::<V4, Ipv4>(frame, link, network, icmp, &quote)
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn error6(frame: &Frame, link: &Link, network: &Network<Ipv6, [u32; 4]>) -> Outcome {
    let icmp = echo::header(frame, network)?;
    // SAFETY: `header` checked the bounds; the struct is packed.
    if !ERRORS6.contains(unsafe { &(*icmp).kind }) {
        return Err(Verdict::PassForeign);
    }
    let l3 = network.l4_offset + size_of::<Icmp>();
    let header = frame.at::<Ipv6>(l3).ok_or(Verdict::PassMalformed)?;
    // SAFETY: as above.
    let header = unsafe { *header };
    if u32::from_be(header.version_class_label) >> 28 != 6 {
        return Err(Verdict::PassMalformed);
    }
    let chain = extension::follow(frame, l3 + size_of::<Ipv6>(), header.next_header)?;
    let quoted = size_of::<Icmp>() + size_of::<Ipv6>() + chain.length;
    if quoted + LEAST > network.l4_length {
        return Err(Verdict::PassMalformed);
    }
    if chain
        .fragment
        .is_some_and(|f| f.offset_more & extension::OFFSET != 0)
    {
        return Err(Verdict::PassForeign);
    }
    let quote = Quote {
        proto: chain.proto,
        l3,
        l4: l3 + size_of::<Ipv6>() + chain.length,
        l4_length: network.l4_length - quoted,
    };
    translate::<V6, Ipv6>(frame, link, network, icmp, &quote)
}

/// Sends an error on to whoever sent the packet that it is about.
#[inline(always)]
fn translate<F, L3>(
    frame: &Frame,
    link: &Link,
    network: &Network<L3, F::Addr>,
    icmp: *mut Icmp,
    quote: &Quote,
) -> Outcome
where
    F: RewriteQuote,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    // An error goes to the sender of what it is about; anything else is made up.
    let (saddr, daddr) = F::addresses(frame, quote).ok_or(Verdict::PassMalformed)?;
    let ours = matches!(quote.proto, IPPROTO_TCP | IPPROTO_UDP) && saddr == network.daddr;
    if !ours || !network.fragment.is_whole() {
        return Err(Verdict::PassForeign);
    }
    let ports = frame.at::<u32>(quote.l4).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds.
    let [source, destination] = split_ports(unsafe { ports.read_unaligned() });
    let key = Key {
        saddr: daddr,
        daddr: saddr,
        ports: join_ports(destination, source),
        proto: quote.proto,
    };
    let found = flow::find::<F>(&key, F::hash(&key)).ok_or(Verdict::PassForeign)?;
    // Only the port's place is kept: the error is not for the client's next connection.
    if flow::is_superseded(&found) {
        return Err(Verdict::PassForeign);
    }
    if server_return::is_alone(&found.slot) {
        let flow::Found { slot, tag } = found;
        let (action, _) = server_return::send_untagged::<F>(frame, link, slot.index, tag, 0)?;
        return Ok((action, Verdict::ForwardError));
    }
    let departure = departure::of::<F>(frame, &found, network.ttl)?;
    let packet = network.packet(frame, link.tags, icmp.cast())?;
    // Nobody is told about an error (RFC 1122, section 3.2.2).
    if departure.ends(packet.ttl) {
        return Err(Verdict::DropTtlExceeded);
    }
    if packet.l3_length > departure.mtu as usize {
        return Err(Verdict::DropTooBig);
    }
    departure.check()?;
    let rewrite = &departure.rewrite;
    let outer = checksum::fold(
        F::replace(&network.saddr, &rewrite.saddr) + F::replace(&network.daddr, &rewrite.daddr),
    );
    let message = rewrite_quote::<F>(frame, quote, rewrite).ok_or(Verdict::PassMalformed)?;
    let pseudo_header = if network.proto == IPPROTO_ICMPV6 {
        outer
    } else {
        0
    };
    let rewrite = Rewrite {
        l3_delta: outer,
        ..*rewrite
    };
    // SAFETY: the frame has not been resized since it was parsed; the structs are packed.
    unsafe {
        packet.rewrite_network(&rewrite);
        let delta = checksum::fold(message as u32 + pseudo_header as u32);
        (*icmp).checksum = checksum::apply((*icmp).checksum, delta);
    }
    Ok((departure.send(frame, link)?, Verdict::ForwardError))
}

/// Makes the quoted packet the one that the addressee has sent; answers with what the ICMP
/// checksum changes by.
#[inline(always)]
fn rewrite_quote<F: RewriteQuote>(
    frame: &Frame,
    quote: &Quote,
    rewrite: &Rewrite<F::Addr>,
) -> Option<u16> {
    let ports = frame.at::<u32>(quote.l4)?;
    let checksum = match quote.proto {
        IPPROTO_UDP => frame
            .at::<Udp>(quote.l4)
            // SAFETY: `at` checked the bounds; the struct is packed.
            .map(|udp| unsafe { &raw mut (*udp).checksum }),
        // nf_nat has it the same way: nothing but the whole header.
        _ if quote.l4_length >= size_of::<Tcp>() => frame
            .at::<Tcp>(quote.l4)
            // SAFETY: as above.
            .map(|tcp| unsafe { &raw mut (*tcp).checksum }),
        _ => None,
    };
    let [source, destination] = split_ports(rewrite.ports);
    let new_ports = join_ports(destination, source);
    // SAFETY: `at` checked the bounds.
    let old_ports = unsafe { ports.read_unaligned() };
    let (addresses, header) = F::rewrite_quote(frame, quote, &rewrite.daddr, &rewrite.saddr)?;
    let mut message = header + checksum::replace32(old_ports, new_ports);
    // SAFETY: as above; nothing has been resized.
    unsafe {
        ports.write_unaligned(new_ports);
        if let Some(checksum) = checksum {
            let old = checksum.read_unaligned();
            // Zero with UDP: there is none.
            if old != 0 || quote.proto == IPPROTO_TCP {
                let delta = addresses as u32 + checksum::replace32(old_ports, new_ports);
                let mut new = checksum::apply(old, checksum::fold(delta));
                if new == 0 && quote.proto == IPPROTO_UDP {
                    new = u16::MAX;
                }
                checksum.write_unaligned(new);
                message += checksum::replace16(old, new);
            }
        }
    }
    Some(checksum::fold(message))
}

impl RewriteQuote for V4 {
    #[inline(always)]
    fn addresses(frame: &Frame, quote: &Quote) -> Option<(u32, u32)> {
        let header = frame.at::<Ipv4>(quote.l3)?;
        // SAFETY: `at` checked the bounds; the struct is packed.
        Some(unsafe { ((*header).saddr, (*header).daddr) })
    }

    #[inline(always)]
    fn rewrite_quote(frame: &Frame, quote: &Quote, saddr: &u32, daddr: &u32) -> Option<(u16, u32)> {
        let (former_saddr, former_daddr) = Self::addresses(frame, quote)?;
        let header = frame.at::<Ipv4>(quote.l3)?;
        let delta = checksum::fold(
            checksum::replace32(former_saddr, *saddr) + checksum::replace32(former_daddr, *daddr),
        );
        // SAFETY: `at` checked the bounds; the struct is packed.
        unsafe {
            let old = (*header).checksum;
            let new = checksum::apply(old, delta);
            (*header).checksum = new;
            (*header).saddr = *saddr;
            (*header).daddr = *daddr;
            Some((delta, delta as u32 + checksum::replace16(old, new)))
        }
    }
}

impl RewriteQuote for V6 {
    #[inline(always)]
    fn addresses(frame: &Frame, quote: &Quote) -> Option<([u32; 4], [u32; 4])> {
        let header = frame.at::<Ipv6>(quote.l3)?;
        // SAFETY: as above.
        Some(unsafe { ((*header).saddr, (*header).daddr) })
    }

    #[inline(always)]
    fn rewrite_quote(
        frame: &Frame,
        quote: &Quote,
        saddr: &[u32; 4],
        daddr: &[u32; 4],
    ) -> Option<(u16, u32)> {
        let (former_saddr, former_daddr) = Self::addresses(frame, quote)?;
        let header = frame.at::<Ipv6>(quote.l3)?;
        let delta =
            checksum::fold(V6::replace(&former_saddr, saddr) + V6::replace(&former_daddr, daddr));
        // SAFETY: as above.
        unsafe {
            (*header).saddr = *saddr;
            (*header).daddr = *daddr;
        }
        Some((delta, delta as u32))
    }
}
