//! From bytes to one description of the packet, once. Later steps never look at lengths again.

use lb_common::{IPPROTO_TCP, IPPROTO_UDP, verdict::Verdict, vlan::Tags};

use crate::{
    extension,
    headers::{
        Ethernet, FragmentHeader, IPV4_FRAGMENT_OFFSET, IPV4_MORE_FRAGMENTS, Ipv4, Ipv6, Tcp, Udp,
    },
    packet::Frame,
};

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
    /// Bytes of the IP packet, by its own word; of each of the packets that it is cut into when it
    /// is sent, where it is (tc).
    pub(crate) l3_length: usize,
    /// Where the frame ends.
    pub(crate) end: usize,
    /// Bytes of the frame.
    pub(crate) len: u64,
    pub(crate) ingress: u32,
    /// VLAN tags that it came with.
    pub(crate) tags: Tags,
}

/// What the first look at an IP header says; the transport header comes after the block list.
pub(crate) struct Network<L3, A> {
    pub(crate) header: *mut L3,
    pub(crate) saddr: A,
    pub(crate) daddr: A,
    /// Offset of the IP header in the frame.
    pub(crate) l3_offset: usize,
    /// Offset of the transport header in the frame.
    pub(crate) l4_offset: usize,
    /// Bytes of transport header and payload, by the IP header's word.
    pub(crate) l4_length: usize,
    pub(crate) proto: u8,
    pub(crate) ttl: u8,
    pub(crate) fragment: Fragment,
}

/// The place of a packet among the fragments of one.
#[derive(Clone, Copy)]
pub(crate) struct Fragment {
    /// It does not begin with the transport header.
    pub(crate) later: bool,
    /// Others follow.
    pub(crate) more: bool,
    /// What all of them carry, as it lies in the packet.
    pub(crate) id: u32,
}

impl Fragment {
    /// No fragment at all.
    const WHOLE: Self = Self {
        later: false,
        more: false,
        id: 0,
    };

    /// Whether there is nothing before and nothing behind it.
    #[inline(always)]
    pub(crate) fn is_whole(self) -> bool {
        !self.later && !self.more
    }
}

/// Length of a link header without tags.
pub(crate) const UNTAGGED: usize = size_of::<Ethernet>();

impl Network<Ipv4, u32> {
    /// Whether the packet is one of those that nearly all are: TCP or UDP directly behind the
    /// header, in one piece, with hops to go.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.l4_offset == self.l3_offset + size_of::<Ipv4>()
            && self.fragment.is_whole()
            && self.ttl > 1
            && matches!(self.proto, IPPROTO_TCP | IPPROTO_UDP)
    }
}

impl Network<Ipv6, [u32; 4]> {
    /// As for IPv4.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.ttl > 1 && matches!(self.proto, IPPROTO_TCP | IPPROTO_UDP)
    }

    /// Goes on behind the extension headers. `Err` as for [`extension::follow`], and if the
    /// headers are longer than the packet says it is.
    #[inline(always)]
    pub(crate) fn follow_extensions(&mut self, frame: &Frame) -> Result<(), Verdict> {
        let chain = extension::follow(frame, self.l4_offset, self.proto)?;
        if chain.length > self.l4_length {
            return Err(Verdict::PassMalformed);
        }
        self.proto = chain.proto;
        self.l4_offset += chain.length;
        self.l4_length -= chain.length;
        let FragmentHeader {
            offset_more, id, ..
        } = chain.fragment;
        self.fragment = Fragment {
            later: offset_more & extension::OFFSET != 0,
            more: offset_more & extension::MORE != 0,
            id,
        };
        Ok(())
    }
}

/// Reads an IPv4 header. `Err`: too short, or its lengths contradict each other or the frame.
#[inline(always)]
pub(crate) fn ipv4(frame: &Frame, l3_offset: usize) -> Result<Network<Ipv4, u32>, Verdict> {
    let header = frame.at::<Ipv4>(l3_offset).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds; the struct is packed, so any address will do.
    let header_now = unsafe { *header };
    let Ipv4 {
        version_ihl,
        total_length,
        id,
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
        || l3_offset + total_length > frame.len();
    if lies {
        return Err(Verdict::PassMalformed);
    }
    let [ttl, proto] = ttl_proto.to_ne_bytes();
    Ok(Network {
        header,
        saddr,
        daddr,
        l3_offset,
        l4_offset: l3_offset + header_length,
        l4_length: total_length - header_length,
        proto,
        ttl,
        fragment: Fragment {
            later: fragment & IPV4_FRAGMENT_OFFSET != 0,
            more: fragment & IPV4_MORE_FRAGMENTS != 0,
            id: id as u32,
        },
    })
}

/// Reads an IPv6 header. `Err` as for [`ipv4`].
#[inline(always)]
pub(crate) fn ipv6(frame: &Frame, l3_offset: usize) -> Result<Network<Ipv6, [u32; 4]>, Verdict> {
    let header = frame.at::<Ipv6>(l3_offset).ok_or(Verdict::PassMalformed)?;
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
        || l3_offset + size_of::<Ipv6>() + payload_length > frame.len();
    if lies {
        return Err(Verdict::PassMalformed);
    }
    Ok(Network {
        header,
        saddr,
        daddr,
        l3_offset,
        l4_offset: l3_offset + size_of::<Ipv6>(),
        l4_length: payload_length,
        proto: next_header,
        ttl: hop_limit,
        fragment: Fragment::WHOLE,
    })
}

impl<L3, A: Copy> Network<L3, A> {
    /// A packet of which only the network header is known, and whose transport header is taken
    /// to be at `l4`.
    #[inline(always)]
    pub(crate) fn packet(
        &self,
        frame: &Frame,
        tags: Tags,
        l4: *mut u8,
    ) -> Result<Packet<L3, A>, Verdict> {
        let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::PassMalformed)?;
        Ok(Packet {
            ethernet,
            l3: self.header,
            l4,
            saddr: self.saddr,
            daddr: self.daddr,
            ports: 0,
            proto: self.proto,
            flags: 0,
            ttl: self.ttl,
            l3_length: self.l4_offset - self.l3_offset + self.l4_length,
            end: frame.end(),
            len: frame.len() as u64,
            ingress: frame.ingress,
            tags,
        })
    }
}

/// Reads the transport header of a plain packet.
#[inline(always)]
pub(crate) fn transport<L3, A: Copy>(
    frame: &Frame,
    network: &Network<L3, A>,
) -> Result<Packet<L3, A>, Verdict> {
    transport_behind(frame, network, Tags::NONE)
}

/// Reads the transport header of a packet that is whole or the first fragment. `Err`: the
/// verdict for what is no TCP or UDP packet, or lies.
#[inline(always)]
pub(crate) fn transport_behind<L3, A: Copy>(
    frame: &Frame,
    network: &Network<L3, A>,
    tags: Tags,
) -> Result<Packet<L3, A>, Verdict> {
    let (l4, ports, flags, header_length) = match network.proto {
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
            (tcp.cast::<u8>(), ports, flags, header_length)
        }
        IPPROTO_UDP => {
            let udp = frame
                .at::<Udp>(network.l4_offset)
                .ok_or(Verdict::PassMalformed)?;
            // SAFETY: `at` checked the bounds; the struct is packed.
            let (ports, length) = unsafe { ((*udp).ports, u16::from_be((*udp).length) as usize) };
            // The length is that of all fragments together.
            let lies = length < size_of::<Udp>()
                || size_of::<Udp>() > network.l4_length
                || (length > network.l4_length && !network.fragment.more);
            if lies {
                return Err(Verdict::PassMalformed);
            }
            (udp.cast::<u8>(), ports, 0, size_of::<Udp>())
        }
        _ => return Err(Verdict::PassForeign),
    };
    let mut packet = network.packet(frame, tags, l4)?;
    packet.ports = ports;
    packet.flags = flags;
    let segment = frame.segment();
    if segment != 0 {
        packet.l3_length = network.l4_offset - network.l3_offset + header_length + segment;
    }
    Ok(packet)
}
