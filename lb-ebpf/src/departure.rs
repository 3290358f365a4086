//! Where a half sends a packet, and as what.

use lb_common::{flow::Kind, verdict::Verdict, vlan::Tags};

use crate::{
    flow::Found,
    packet::Frame,
    rewrite::Rewrite,
    server_return::ServerReturn,
    stats::count_backend,
    transmit::{self, Way},
    vlan::Link,
};

/// Everything that a half says of a packet.
pub(crate) struct Departure<A> {
    pub(crate) rewrite: Rewrite<A>,
    way: Way,
    /// VLAN tags that it leaves with.
    tags: Tags,
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
        ttl <= 1 && self.way.takes_a_hop()
    }

    /// `Err`: it cannot be sent from here.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Verdict> {
        self.way.check()
    }

    /// Whether the backend answers the client itself: [`crate::server_return::send`] sends the packet.
    #[inline(always)]
    pub(crate) fn is_alone(&self) -> bool {
        self.way.is_alone()
    }

    /// Counts a packet of `length` bytes that leaves.
    #[inline(always)]
    pub(crate) fn count(&self, length: u64) {
        count_backend(self.backend, self.kind, length);
    }

    /// Sends the frame, which is rewritten; answers with what the program has to return.
    #[inline(always)]
    pub(crate) fn send(&self, frame: &Frame, link: &Link) -> Result<u32, Verdict> {
        transmit::depart(frame, link, &self.way, self.tags)
    }
}

/// Reads it out of a half, for a packet with this hop count. `Err`: the slot has become another's,
/// or the packet is none of the flow's.
#[inline(always)]
pub(crate) fn of<F: ServerReturn>(
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
    let way = transmit::way(frame, hop, half)?;
    if frame.leaving && way.takes_a_hop() {
        return Err(Verdict::PassForeign);
    }
    let (tags, mtu) = transmit::limits::<F>(hop, learned);
    if way.takes_a_hop() {
        rewrite.ttl = ttl.wrapping_sub(1);
    }
    let reply = (found.tag.0 >> 16) as u8 == Kind::Reply as u8;
    let (kind, verdict) = if reply {
        (Kind::Reply, Verdict::ForwardReply)
    } else {
        (Kind::Forward, Verdict::ForwardRequest)
    };
    Ok(Departure {
        rewrite,
        way,
        tags,
        mtu,
        verdict,
        kind,
        backend,
    })
}
