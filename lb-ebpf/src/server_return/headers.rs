//! What the two families' headers hold, and how one looks around a packet.

use core::mem::offset_of;

use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, bpf_redir_neigh,
};
use lb_common::{checksum, flow::Half};

use super::{ServerReturn, lb_direct_tc4, lb_direct_tc6, lb_direct_xdp4, lb_direct_xdp6};
use crate::{
    family::{V4, V6},
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_IPIP, IPPROTO_IPV6, Ipv4, Ipv6},
    packet::{Frame, Hook},
};

/// Hops that the header around a packet may take.
const HOPS: u8 = 64;
/// "Don't fragment", network byte order.
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

impl ServerReturn for V4 {
    type Header = Ipv4;
    const ETHERTYPE: u16 = ETHERTYPE_IPV4;
    const ROOM: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64;

    #[inline(always)]
    fn direct(frame: &Frame, slot: u32, tag: u64) -> u64 {
        match frame.hook {
            Hook::Xdp => lb_direct_xdp4(frame.ctx.cast(), slot, tag),
            Hook::Tc => lb_direct_tc4(frame.ctx.cast(), slot, tag),
        }
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn length(header: *const Ipv4) -> u32 {
        // SAFETY: the caller's header; the struct is packed.
        u16::from_be(unsafe { (*header).total_length }) as u32
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn hops(header: *const Ipv4) -> u8 {
        // SAFETY: as above.
        unsafe { (*header).ttl_proto }.to_ne_bytes()[0]
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn age(header: *mut Ipv4) {
        // SAFETY: as above.
        unsafe {
            let old = (*header).ttl_proto;
            let [ttl, proto] = old.to_ne_bytes();
            let new = u16::from_ne_bytes([ttl.wrapping_sub(1), proto]);
            let delta = checksum::fold(checksum::replace16(old, new));
            (*header).ttl_proto = new;
            (*header).checksum = checksum::apply((*header).checksum, delta);
        }
    }

    /// Type of service, identification and "don't fragment" are the packet's (RFC 2003, section
    /// 3.1; RFC 6040, section 4.1).
    ///
    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn wrap(outer: *mut Ipv4, inner: *const Ipv4, half: *const Half<u32>, _hash: u32) {
        // SAFETY: as above.
        unsafe {
            let length = u16::from_be((*inner).total_length).wrapping_add(size_of::<Ipv4>() as u16);
            let header = Ipv4 {
                version_ihl: 0x45,
                tos: (*inner).tos,
                total_length: length.to_be(),
                id: (*inner).id,
                fragment: (*inner).fragment & DONT_FRAGMENT,
                ttl_proto: u16::from_ne_bytes([HOPS, IPPROTO_IPIP]),
                checksum: 0,
                saddr: (*half).new_saddr,
                daddr: (*half).new_daddr,
            };
            let halves = |word: u32| (word & 0xffff) + (word >> 16);
            let sum = u16::from_ne_bytes([header.version_ihl, header.tos]) as u32
                + header.total_length as u32
                + header.id as u32
                + header.fragment as u32
                + header.ttl_proto as u32
                + halves(header.saddr)
                + halves(header.daddr);
            *outer = header;
            (*outer).checksum = !checksum::fold(sum);
        }
    }

    #[inline(always)]
    fn neighbour(addr: &u32) -> bpf_redir_neigh {
        // SAFETY: integers only.
        let mut neighbour: bpf_redir_neigh = unsafe { core::mem::zeroed() };
        neighbour.nh_family = AF_INET;
        neighbour.__bindgen_anon_1.ipv4_nh = *addr;
        neighbour
    }
}

/// `AF_INET` and `AF_INET6` of the kernel's linux/socket.h.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

impl ServerReturn for V6 {
    type Header = Ipv6;
    const ETHERTYPE: u16 = ETHERTYPE_IPV6;
    const ROOM: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64;

    #[inline(always)]
    fn direct(frame: &Frame, slot: u32, tag: u64) -> u64 {
        match frame.hook {
            Hook::Xdp => lb_direct_xdp6(frame.ctx.cast(), slot, tag),
            Hook::Tc => lb_direct_tc6(frame.ctx.cast(), slot, tag),
        }
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn length(header: *const Ipv6) -> u32 {
        // SAFETY: the caller's header; the struct is packed.
        u16::from_be(unsafe { (*header).payload_length }) as u32 + size_of::<Ipv6>() as u32
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn hops(header: *const Ipv6) -> u8 {
        // SAFETY: as above.
        unsafe { (*header).hop_limit }
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn age(header: *mut Ipv6) {
        // SAFETY: as above.
        unsafe { (*header).hop_limit = (*header).hop_limit.wrapping_sub(1) };
    }

    /// The traffic class is the packet's, the flow label the flow's (RFC 6438).
    ///
    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn wrap(outer: *mut Ipv6, inner: *const Ipv6, half: *const Half<[u32; 4]>, hash: u32) {
        const LABEL: u32 = 0x000f_ffff;
        // SAFETY: as above.
        unsafe {
            let first = u32::from_be((*inner).version_class_label);
            let length =
                u16::from_be((*inner).payload_length).wrapping_add(size_of::<Ipv6>() as u16);
            (*outer).version_class_label = (first & !LABEL | hash & LABEL).to_be();
            (*outer).payload_length = length.to_be();
            (*outer).next_header = IPPROTO_IPV6;
            (*outer).hop_limit = HOPS;
            let at = outer.cast::<u8>();
            let from = &raw const (*half).new_saddr;
            at.add(offset_of!(Ipv6, saddr))
                .cast::<[u32; 4]>()
                .write_unaligned(*from);
            let to = &raw const (*half).new_daddr;
            at.add(offset_of!(Ipv6, daddr))
                .cast::<[u32; 4]>()
                .write_unaligned(*to);
        }
    }

    #[inline(always)]
    fn neighbour(addr: &[u32; 4]) -> bpf_redir_neigh {
        // SAFETY: integers only.
        let mut neighbour: bpf_redir_neigh = unsafe { core::mem::zeroed() };
        neighbour.nh_family = AF_INET6;
        neighbour.__bindgen_anon_1.ipv6_nh = *addr;
        neighbour
    }
}
