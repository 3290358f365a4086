//! Protocol headers as they lie in a frame, their constants, and how their fields are taken apart.

/// Ethernet II (IEEE 802.3, clause 3).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ethernet {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    /// Network byte order.
    pub(crate) ethertype: u16,
}

/// Copies a link address as two words. The compiler would call a loop over bytes for it, since it
/// cannot know that packet and map do not overlap.
///
/// # Safety
///
/// Both must be valid for six bytes.
#[inline(always)]
pub(crate) unsafe fn copy_mac(from: *const [u8; 6], to: *mut [u8; 6]) {
    // SAFETY: the caller's promise; unaligned, since neither end is aligned.
    unsafe {
        let first = from.cast::<u32>().read_unaligned();
        let last = from.cast::<u16>().add(2).read_unaligned();
        to.cast::<u32>().write_unaligned(first);
        to.cast::<u16>().add(2).write_unaligned(last);
    }
}

/// EtherType of IPv4, network byte order.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of ARP, network byte order.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806_u16.to_be();
/// EtherType of IPv6, network byte order.
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();

/// IPv4 header without options (RFC 791). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) version_ihl: u8,
    pub(crate) tos: u8,
    pub(crate) total_length: u16,
    pub(crate) id: u16,
    pub(crate) fragment: u16,
    /// TTL in the first byte, protocol in the second: the checksum sees them as one word.
    pub(crate) ttl_proto: u16,
    pub(crate) checksum: u16,
    pub(crate) saddr: u32,
    pub(crate) daddr: u32,
}

/// "More fragments", network byte order.
pub(crate) const IPV4_MORE_FRAGMENTS: u16 = 0x2000_u16.to_be();
/// The fragment offset, network byte order.
pub(crate) const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();

/// IPv6 header (RFC 8200). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv6 {
    pub(crate) version_class_label: u32,
    pub(crate) payload_length: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) saddr: [u32; 4],
    pub(crate) daddr: [u32; 4],
}

/// IPv6 fragment header (RFC 8200, section 4.5). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct FragmentHeader {
    pub(crate) next_header: u8,
    pub(crate) reserved: u8,
    /// Offset in units of eight bytes, two reserved bits, "more fragments".
    pub(crate) offset_more: u16,
    pub(crate) id: u32,
}

/// Start of an ICMP or ICMPv6 message (RFC 792, RFC 4443). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) checksum: u16,
    /// Depends on the kind: an MTU, a pointer, identifier and sequence.
    pub(crate) rest: u32,
}

/// TCP header without options (RFC 9293). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) ports: u32,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) data_offset: u8,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) checksum: u16,
    pub(crate) urgent: u16,
}

/// UDP header (RFC 768). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Udp {
    pub(crate) ports: u32,
    pub(crate) length: u16,
    pub(crate) checksum: u16,
}

/// Source and destination port, in network byte order, out of the header's first four bytes.
#[inline(always)]
pub(crate) fn split_ports(ports: u32) -> [u16; 2] {
    [ports as u16, (ports >> 16) as u16]
}

/// The reverse of [`split_ports`].
#[inline(always)]
pub(crate) fn join_ports(source: u16, destination: u16) -> u32 {
    source as u32 | (destination as u32) << 16
}

/// Protocol number of IPv4 within another header (RFC 2003).
pub(crate) const IPPROTO_IPIP: u8 = 4;
/// Protocol number of IPv6 within another header (RFC 2473).
pub(crate) const IPPROTO_IPV6: u8 = 41;
