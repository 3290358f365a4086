//! Turns a packet into the one that leaves: link, network and transport header.
//!
//! In XDP the frame is all there is, and its checksums are complete, or it is left to tc (see
//! [`crate::pending`]). A buffer of the kernel's may carry a transport checksum that is yet to be computed (`CHECKSUM_PARTIAL`: only the sum of the
//! pseudo-header stands in its place), or one that the device has summed up (`CHECKSUM_COMPLETE`);
//! there the kernel's helpers know what to do, if they are told addresses and ports apart.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_update, bpf_l4_csum_replace},
};
use lb_common::{IPPROTO_UDP, checksum, flow::Half};

use crate::{
    headers::{Ethernet, Ipv4, Ipv6, Tcp, Udp, copy_mac},
    packet::{Frame, Hook},
    parse::Packet,
};

/// Everything that changes about a packet, taken out of the flow table.
pub(crate) struct Rewrite<A> {
    pub(crate) saddr: A,
    pub(crate) daddr: A,
    pub(crate) ports: u32,
    pub(crate) l3_delta: u16,
    pub(crate) l4_delta: u16,
    /// TTL or hop limit that it leaves with.
    pub(crate) ttl: u8,
}

impl<A: Copy> Rewrite<A> {
    /// What a half makes of its packets. Whether the half still is the flow's is the caller's to
    /// check.
    #[inline(always)]
    pub(crate) fn of(half: *const Half<A>, ttl: u8) -> Self {
        // SAFETY: map memory.
        unsafe {
            Self {
                saddr: (*half).new_saddr,
                daddr: (*half).new_daddr,
                ports: (*half).new_ports,
                l3_delta: (*half).l3_delta,
                l4_delta: (*half).l4_delta,
                ttl,
            }
        }
    }
}

/// The link addresses that a frame leaves with, in map memory.
pub(crate) struct LinkAddresses {
    pub(crate) destination: *const [u8; 6],
    pub(crate) source: *const [u8; 6],
}

impl LinkAddresses {
    /// Writes them.
    ///
    /// # Safety
    ///
    /// All pointers must be valid.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, ethernet: *mut Ethernet) {
        // SAFETY: the caller's promise; the struct is packed.
        unsafe {
            copy_mac(self.destination, &raw mut (*ethernet).destination);
            copy_mac(self.source, &raw mut (*ethernet).source);
        }
    }
}

/// The part of the rewrite that depends on the family.
pub(crate) trait RewriteNetwork<A> {
    /// Writes addresses, hop count and the header's own checksum.
    ///
    /// # Safety
    ///
    /// The packet's pointers must still be valid: nothing may have resized the frame.
    unsafe fn rewrite_network(&self, rewrite: &Rewrite<A>);

    /// What the device's sum over the packet must be corrected by, once the transport checksum has
    /// been: the change of a header that has no checksum of its own to balance it. The helper takes
    /// all pseudo-headers for IPv4's.
    fn unsummed(&self, rewrite: &Rewrite<A>) -> Option<u32>;
}

impl RewriteNetwork<u32> for Packet<Ipv4, u32> {
    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn rewrite_network(&self, rewrite: &Rewrite<u32>) {
        // SAFETY: `parse` checked the bounds; the struct is packed.
        unsafe {
            let old = (*self.l3).ttl_proto;
            let new = u16::from_ne_bytes([rewrite.ttl, self.proto]);
            let delta = checksum::fold(rewrite.l3_delta as u32 + checksum::replace16(old, new));
            (*self.l3).ttl_proto = new;
            (*self.l3).checksum = checksum::apply((*self.l3).checksum, delta);
            (*self.l3).saddr = rewrite.saddr;
            (*self.l3).daddr = rewrite.daddr;
        }
    }

    #[inline(always)]
    fn unsummed(&self, _rewrite: &Rewrite<u32>) -> Option<u32> {
        None
    }
}

impl RewriteNetwork<[u32; 4]> for Packet<Ipv6, [u32; 4]> {
    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn rewrite_network(&self, rewrite: &Rewrite<[u32; 4]>) {
        // SAFETY: `parse` checked the bounds; the struct is packed.
        unsafe {
            (*self.l3).hop_limit = rewrite.ttl;
            (*self.l3).saddr = rewrite.saddr;
            (*self.l3).daddr = rewrite.daddr;
        }
    }

    #[inline(always)]
    fn unsummed(&self, rewrite: &Rewrite<[u32; 4]>) -> Option<u32> {
        let old = u16::from_ne_bytes([self.proto, self.ttl]);
        let new = u16::from_ne_bytes([self.proto, rewrite.ttl]);
        Some(rewrite.l3_delta as u32 + checksum::replace16(old, new))
    }
}

/// Rewrites the whole packet but for its link addresses.
///
/// # Safety
///
/// The packet's pointers must still be valid: nothing may have resized the frame. They are not
/// afterwards.
#[inline(always)]
pub(crate) unsafe fn apply<L3, A>(frame: &Frame, packet: &Packet<L3, A>, rewrite: &Rewrite<A>)
where
    Packet<L3, A>: RewriteNetwork<A>,
{
    // SAFETY: `parse` checked the bounds of both headers; the structs are packed.
    unsafe {
        packet.rewrite_network(rewrite);
        if frame.hook == Hook::Tc {
            let at = frame.offset_of(packet.l4);
            let ports = packet.l4.cast::<u32>();
            if ports as usize + size_of::<u32>() > packet.end {
                return;
            }
            ports.write_unaligned(rewrite.ports);
            sum_in_buffer(frame, packet, rewrite, at as u32);
        } else if packet.proto == IPPROTO_UDP {
            let udp = packet.l4.cast::<Udp>();
            (*udp).ports = rewrite.ports;
            let old = (*udp).checksum;
            // Zero: there is none (RFC 768; for tunnels over IPv6 RFC 6935).
            if old != 0 {
                let new = checksum::apply(old, rewrite.l4_delta);
                (*udp).checksum = if new == 0 { u16::MAX } else { new };
            }
        } else {
            let tcp = packet.l4.cast::<Tcp>();
            // Checked by `parse`; the verifier has lost it where TCP and UDP came together.
            if tcp as usize + size_of::<Tcp>() > packet.end {
                return;
            }
            (*tcp).ports = rewrite.ports;
            (*tcp).checksum = checksum::apply((*tcp).checksum, rewrite.l4_delta);
        }
    }
}

/// Adjusts the transport checksum of a buffer of the kernel's, whose transport header is `at` this
/// offset. No pointer into the frame is valid afterwards.
#[inline(always)]
fn sum_in_buffer<L3, A>(frame: &Frame, packet: &Packet<L3, A>, rewrite: &Rewrite<A>, at: u32)
where
    Packet<L3, A>: RewriteNetwork<A>,
{
    let skb = frame.ctx.cast::<__sk_buff>();
    let (field, flags) = if packet.proto == IPPROTO_UDP {
        (offset_of!(Udp, checksum), BPF_F_MARK_MANGLED_0 as u64)
    } else {
        (offset_of!(Tcp, checksum), 0)
    };
    let at = at + field as u32;
    let addresses = rewrite.l3_delta as u64;
    let pseudo = flags | BPF_F_PSEUDO_HDR as u64;
    let size = size_of::<u32>() as u64;
    // SAFETY: a tc program's own context; the helpers check the offset.
    unsafe {
        bpf_l4_csum_replace(skb, at, 0, addresses, pseudo);
        let (old, new) = (packet.ports as u64, rewrite.ports as u64);
        bpf_l4_csum_replace(skb, at, old, new, flags | size);
        if let Some(delta) = <Packet<L3, A> as RewriteNetwork<A>>::unsummed(packet, rewrite) {
            bpf_csum_update(skb, delta);
        }
    }
}
