//! Where a half sends a packet, and as what.

use lb_common::{
    entry::{NextHop, hop_flags, hop_number},
    flow::Kind,
    maps::MAX_INTERFACES,
    verdict::Verdict,
};

use crate::{
    family::Family,
    flow::Found,
    maps::NEXTHOPS,
    packet::Frame,
    rewrite::Rewrite,
    stats::count_backend,
    vlan::{STACK, Way},
};

/// Everything that a half says of a packet.
pub(crate) struct Departure<A> {
    pub(crate) rewrite: Rewrite<A>,
    pub(crate) way: Way,
    /// To the node's own stack.
    local: bool,
    /// XDP can send it.
    sendable: bool,
    /// Longest IP packet that the way admits, in bytes.
    pub(crate) mtu: u32,
    /// Of a packet that is sent.
    pub(crate) verdict: Verdict,
    kind: Kind,
    backend: u32,
}

impl<A> Departure<A> {
    /// Whether a packet with this hop count goes no further.
    #[inline(always)]
    pub(crate) fn ends(&self, ttl: u8) -> bool {
        !self.local && ttl <= 1
    }

    /// `Err`: only tc could send it, and takes plain packets only.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Verdict> {
        if self.sendable {
            Ok(())
        } else {
            Err(Verdict::PassUnresolved)
        }
    }

    /// Counts a packet of `length` bytes that leaves.
    #[inline(always)]
    pub(crate) fn count(&self, length: u64) {
        count_backend(self.backend, self.kind, length);
    }
}

/// Reads it out of a half, for a packet with this hop count. `Err`: the slot has become another's,
/// or its next hop is not known, or none that XDP can send to.
#[inline(always)]
pub(crate) fn of<F: Family>(
    frame: &Frame,
    found: &Found<F::Addr>,
    ttl: u8,
) -> Result<Departure<F::Addr>, Verdict> {
    let half = found.slot.half;
    let mut rewrite = Rewrite::of(half, ttl);
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (hop, backend, learned) = unsafe { ((*half).hop, (*half).backend, (*half).tags) };
    if !found.slot.tag().same_identity(found.tag) {
        return Err(Verdict::DropContended);
    }
    let Some(next) = NEXTHOPS.get(hop) else {
        return Err(if hop == hop_number::LOCAL {
            // From outside, with an address of the node as its source.
            Verdict::PassForeign
        } else if hop & hop_number::DIRECT == 0 {
            Verdict::DropInternal
        } else {
            Verdict::PassUnresolved
        });
    };
    let next: &NextHop = next;
    if next.ifindex == 0 {
        return Err(Verdict::PassUnresolved);
    }
    let local = next.flags & hop_flags::LOCAL != 0;
    let mut way = Way {
        ifindex: next.ifindex,
        tags: learned,
        // SAFETY: map memory; only its address is taken.
        dmac: unsafe { &raw const (*half).dmac },
        smac: &raw const next.smac,
    };
    if hop >= MAX_INTERFACES as u32 {
        way.dmac = &raw const next.dmac;
        way.tags = next.tags;
    }
    let mut mtu = next.mtu;
    if local {
        way.ifindex = STACK;
        mtu = u32::MAX;
    } else {
        rewrite.ttl = ttl.wrapping_sub(1);
    }
    let back = next.flags == hop_flags::NO_XDP && next.ifindex == frame.ingress;
    let reply = (found.tag.0 >> 16) as u8 == Kind::Reply as u8;
    let (kind, verdict) = if reply {
        (Kind::Reply, Verdict::ForwardReply)
    } else {
        (Kind::Forward, Verdict::ForwardRequest)
    };
    Ok(Departure {
        way,
        local,
        sendable: next.flags & (hop_flags::NEIGHBOUR | hop_flags::NO_XDP) == 0 || local || back,
        rewrite,
        mtu,
        verdict,
        kind,
        backend,
    })
}
