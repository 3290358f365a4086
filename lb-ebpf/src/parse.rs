//! From bytes to one description of the packet, once. Later steps never look at lengths again.

use lb_common::{IPPROTO_TCP, IPPROTO_UDP, verdict::Verdict};

use crate::packet::{Ethernet, Frame, IPPROTO_FRAGMENT, IPV4_FRAGMENT_BITS, Ipv4, Ipv6, Tcp, Udp};

/// A TCP or UDP packet of one address family. The header pointers are checked and writable.
pub(crate) struct Packet<L3, A> {
    pub(crate) ethernet: *mut Ethernet,
    pub(crate) l3: *mut L3,
    pub(crate) l4: *mut u8,
    pub(crate) saddr: A,
    pub(crate) daddr: A,
    /// Source and destination port as they lie in the packet.
    pub(crate) ports: u32,
    pub(crate) proto: u8,
    /// TCP flags; 0 for UDP.
    pub(crate) flags: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// Where the frame ends.
    pub(crate) end: usize,
    /// Bytes of the frame.
    pub(crate) len: u64,
    pub(crate) ingress: u32,
}

/// What the first look at an IP header says; the transport header comes after the block list.
pub(crate) struct Network<L3, A> {
    pub(crate) header: *mut L3,
    pub(crate) saddr: A,
    pub(crate) daddr: A,
    /// Offset of the transport header in the frame.
    l4_offset: usize,
    /// Bytes of transport header and payload, by the IP header's word.
    l4_length: usize,
    proto: u8,
    ttl: u8,
    fragment: bool,
}

const L3_OFFSET: usize = size_of::<Ethernet>();

/// Reads an IPv4 header. `Err`: too short, or its lengths contradict each other or the frame.
#[inline(always)]
pub(crate) fn ipv4(frame: &Frame) -> Result<Network<Ipv4, u32>, Verdict> {
    let header = frame.at::<Ipv4>(L3_OFFSET).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds; the struct is packed, so any address will do.
    let header_now = unsafe { *header };
    let Ipv4 {
        version_ihl,
        total_length,
        fragment,
        ttl_proto,
        saddr,
        daddr,
        ..
    } = header_now;
    let total_length = u16::from_be(total_length) as usize;
    let header_length = ((version_ihl & 0x0f) as usize) * 4;
    let lies = version_ihl >> 4 != 4
        || header_length < size_of::<Ipv4>()
        || total_length < header_length
        || L3_OFFSET + total_length > frame.len();
    if lies {
        return Err(Verdict::PassMalformed);
    }
    let [ttl, proto] = ttl_proto.to_ne_bytes();
    Ok(Network {
        header,
        saddr,
        daddr,
        l4_offset: L3_OFFSET + header_length,
        l4_length: total_length - header_length,
        proto,
        ttl,
        fragment: fragment & IPV4_FRAGMENT_BITS != 0,
    })
}

/// Reads an IPv6 header. `Err` as for [`ipv4`].
#[inline(always)]
pub(crate) fn ipv6(frame: &Frame) -> Result<Network<Ipv6, [u32; 4]>, Verdict> {
    let header = frame.at::<Ipv6>(L3_OFFSET).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds; the struct is packed, so any address will do.
    let header_now = unsafe { *header };
    let Ipv6 {
        version_class_label,
        payload_length,
        next_header,
        hop_limit,
        saddr,
        daddr,
    } = header_now;
    let payload_length = u16::from_be(payload_length) as usize;
    let lies = u32::from_be(version_class_label) >> 28 != 6
        || L3_OFFSET + size_of::<Ipv6>() + payload_length > frame.len();
    if lies {
        return Err(Verdict::PassMalformed);
    }
    Ok(Network {
        header,
        saddr,
        daddr,
        l4_offset: L3_OFFSET + size_of::<Ipv6>(),
        l4_length: payload_length,
        proto: next_header,
        ttl: hop_limit,
        fragment: next_header == IPPROTO_FRAGMENT,
    })
}

/// Reads the transport header. `Err`: the verdict for what is no whole TCP or UDP packet.
#[inline(always)]
pub(crate) fn transport<L3, A: Copy>(
    frame: &Frame,
    network: &Network<L3, A>,
) -> Result<Packet<L3, A>, Verdict> {
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::PassMalformed)?;
    if network.fragment {
        return Err(Verdict::PassFragment);
    }
    let (l4, ports, flags) = match network.proto {
        IPPROTO_TCP => {
            let tcp = frame
                .at::<Tcp>(network.l4_offset)
                .ok_or(Verdict::PassMalformed)?;
            // SAFETY: `at` checked the bounds; the struct is packed.
            let (ports, offset, flags) =
                unsafe { ((*tcp).ports, (*tcp).data_offset >> 4, (*tcp).flags) };
            let header_length = offset as usize * 4;
            if header_length < size_of::<Tcp>() || header_length > network.l4_length {
                return Err(Verdict::PassMalformed);
            }
            (tcp.cast::<u8>(), ports, flags)
        }
        IPPROTO_UDP => {
            let udp = frame
                .at::<Udp>(network.l4_offset)
                .ok_or(Verdict::PassMalformed)?;
            // SAFETY: `at` checked the bounds; the struct is packed.
            let (ports, length) = unsafe { ((*udp).ports, u16::from_be((*udp).length) as usize) };
            if length < size_of::<Udp>() || length > network.l4_length {
                return Err(Verdict::PassMalformed);
            }
            (udp.cast::<u8>(), ports, 0)
        }
        _ => return Err(Verdict::PassForeign),
    };
    Ok(Packet {
        ethernet,
        l3: network.header,
        l4,
        saddr: network.saddr,
        daddr: network.daddr,
        ports,
        proto: network.proto,
        flags,
        ttl: network.ttl,
        end: frame.end(),
        len: frame.len() as u64,
        ingress: frame.ingress,
    })
}
