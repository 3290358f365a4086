//! Turns a packet into the one that leaves: link, network and transport header.

use lb_common::{IPPROTO_UDP, checksum, entry::NextHop};

use crate::{
    packet::{Ipv4, Ipv6, Tcp, Udp, copy_mac},
    parse::Packet,
};

/// Everything that changes about a packet, taken out of the flow table.
pub(crate) struct Rewrite<A> {
    pub(crate) saddr: A,
    pub(crate) daddr: A,
    pub(crate) ports: u32,
    pub(crate) l3_delta: u16,
    pub(crate) l4_delta: u16,
    /// In map memory.
    pub(crate) dmac: *const [u8; 6],
}

/// The part of the rewrite that depends on the family.
pub(crate) trait RewriteNetwork<A> {
    /// Writes addresses, hop count and the header's own checksum.
    ///
    /// # Safety
    ///
    /// The packet's pointers must still be valid: nothing may have resized the frame.
    unsafe fn rewrite_network(&self, rewrite: &Rewrite<A>);
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
            let new = u16::from_ne_bytes([self.ttl - 1, self.proto]);
            let delta = checksum::fold(rewrite.l3_delta as u32 + checksum::replace16(old, new));
            (*self.l3).ttl_proto = new;
            (*self.l3).checksum = checksum::apply((*self.l3).checksum, delta);
            (*self.l3).saddr = rewrite.saddr;
            (*self.l3).daddr = rewrite.daddr;
        }
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
            (*self.l3).hop_limit = self.ttl - 1;
            (*self.l3).saddr = rewrite.saddr;
            (*self.l3).daddr = rewrite.daddr;
        }
    }
}

/// Rewrites the whole packet. The hop count must be above one.
///
/// # Safety
///
/// The packet's pointers must still be valid: nothing may have resized the frame.
#[inline(always)]
pub(crate) unsafe fn apply<L3, A>(packet: &Packet<L3, A>, rewrite: &Rewrite<A>, hop: &NextHop)
where
    Packet<L3, A>: RewriteNetwork<A>,
{
    // SAFETY: `parse` checked the bounds of all three headers; the structs are packed.
    unsafe {
        copy_mac(rewrite.dmac, &raw mut (*packet.ethernet).destination);
        copy_mac(&raw const hop.smac, &raw mut (*packet.ethernet).source);
        apply_above_link(packet, rewrite);
    }
}

/// Rewrites all but the link header. The hop count must be above one.
///
/// # Safety
///
/// The packet's pointers must still be valid: nothing may have resized the frame.
#[inline(always)]
pub(crate) unsafe fn apply_above_link<L3, A>(packet: &Packet<L3, A>, rewrite: &Rewrite<A>)
where
    Packet<L3, A>: RewriteNetwork<A>,
{
    // SAFETY: `parse` checked the bounds of both headers; the structs are packed.
    unsafe {
        packet.rewrite_network(rewrite);
        if packet.proto == IPPROTO_UDP {
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
