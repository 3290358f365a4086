//! Where a half sends a packet, and as what.

use lb_common::{entry::NextHop, flow::Kind, maps::MAX_INTERFACES, verdict::Verdict};

use crate::{
    family::Family, flow::Found, maps::NEXTHOPS, rewrite::Rewrite, stats::count_backend, vlan::Way,
};

/// Everything that a half says of a packet.
pub(crate) struct Departure<A> {
    pub(crate) rewrite: Rewrite<A>,
    pub(crate) way: Way,
    /// Longest IP packet that the way admits, in bytes.
    pub(crate) mtu: u32,
    /// Of a packet that is sent.
    pub(crate) verdict: Verdict,
    kind: Kind,
    backend: u32,
}

impl<A> Departure<A> {
    /// Counts a packet of `length` bytes that leaves.
    #[inline(always)]
    pub(crate) fn count(&self, length: u64) {
        count_backend(self.backend, self.kind, length);
    }
}

/// Reads it out of a half. `Err`: the slot has become another's, or its next hop is not known.
#[inline(always)]
pub(crate) fn of<F: Family>(found: &Found<F::Addr>) -> Result<Departure<F::Addr>, Verdict> {
    let half = found.slot.half;
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (mut rewrite, hop, backend, learned) = unsafe {
        (
            Rewrite {
                saddr: (*half).new_saddr,
                daddr: (*half).new_daddr,
                ports: (*half).new_ports,
                l3_delta: (*half).l3_delta,
                l4_delta: (*half).l4_delta,
                dmac: &raw const (*half).dmac,
            },
            (*half).hop,
            (*half).backend,
            (*half).tags,
        )
    };
    if !found.slot.tag().same_identity(found.tag) {
        return Err(Verdict::DropContended);
    }
    let next: &NextHop = NEXTHOPS.get(hop).ok_or(Verdict::DropInternal)?;
    if next.ifindex == 0 {
        return Err(Verdict::PassUnresolved);
    }
    let mut tags = learned;
    if hop >= MAX_INTERFACES as u32 {
        rewrite.dmac = &raw const next.dmac;
        tags = next.tags;
    }
    let reply = (found.tag.0 >> 16) as u8 == Kind::Reply as u8;
    let (kind, verdict) = if reply {
        (Kind::Reply, Verdict::ForwardReply)
    } else {
        (Kind::Forward, Verdict::ForwardRequest)
    };
    Ok(Departure {
        way: Way {
            ifindex: next.ifindex,
            tags,
            dmac: rewrite.dmac,
            smac: &raw const next.smac,
        },
        rewrite,
        mtu: next.mtu,
        verdict,
        kind,
        backend,
    })
}
