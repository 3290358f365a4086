//! Flows whose backends answer the clients themselves: packets go on as they are, one hop less, and
//! for a tunnel with another header around them (RFC 2003, RFC 2473; RFC 6040 for the class).

use lb_agent::domain::service::Forwarding;
use lb_common::verdict::Verdict;

use super::{
    Model, Prediction,
    fault::Fault,
    link::Link,
    node::Departure,
    parse::Ip,
    rewrite::{Expected, put_address},
    sum,
    table::Half,
};

/// Hops of the header that is put around.
const HOPS: u8 = 64;

impl Half {
    /// Whether the backend answers the client itself.
    pub(super) fn is_alone(&self) -> bool {
        self.forwarding != Forwarding::Nat
    }

    /// Bytes that are put around its packets.
    pub(super) fn around(&self) -> usize {
        match (self.forwarding, self.key.dst.is_ipv6()) {
            (Forwarding::DsrIpip, false) => 20,
            (Forwarding::DsrIpip, true) => 40,
            _ => 0,
        }
    }
}

impl Model {
    /// The verdict for a packet of such a flow that has tags or must get some: nobody sees to them
    /// here.
    pub(super) fn untagged(link: &Link, half: &Half, departure: &Departure) -> Result<(), Verdict> {
        let is_tagged = !link.tags.is_empty() || !departure.way.tags.is_empty();
        if half.is_alone() && is_tagged {
            return Err(Verdict::PassUnresolved);
        }
        Ok(())
    }

    /// Sends a packet of such a flow on, which is short enough and has hops left.
    pub(super) fn pass_on(
        &mut self,
        verdict: Verdict,
        frame: &[u8],
        (link, ip): (&Link, &Ip),
        (half, departure): (&Half, &Departure),
        ingress: u32,
    ) -> Result<Prediction, Verdict> {
        Self::untagged(link, half, departure)?;
        if verdict == Verdict::ForwardRequest {
            self.count(half, frame);
        }
        let hash = self.table(ip.is_v6()).hash(&half.key);
        let mut out = aged(frame, ip);
        if half.forwarding == Forwarding::DsrIpip {
            out = wrapped(out, ip, half, hash, self.fault);
        }
        Ok(self.send(verdict, out, link, &departure.way, ingress))
    }
}

/// The packet with one hop less.
fn aged(frame: &[u8], ip: &Ip) -> Expected {
    let mut out = Expected::of(frame, ip);
    if ip.is_v6() {
        out.bytes[7] -= 1;
        return out;
    }
    let length = usize::from(out.bytes[0] % 16) * 4;
    let error = sum::error(&out.bytes[..length], 0);
    out.bytes[8] -= 1;
    out.bytes[10..12].fill(0);
    let checksum = sum::with_error(&out.bytes[..length], 0, error);
    out.put_sum(10, checksum);
    out
}

/// The packet within another.
fn wrapped(inner: Expected, ip: &Ip, half: &Half, hash: u64, fault: Option<Fault>) -> Expected {
    let bytes = &inner.bytes;
    let class = if fault == Some(Fault::DropsClass) {
        0
    } else if ip.is_v6() {
        bytes[0] << 4 | bytes[1] >> 4
    } else {
        bytes[1]
    };
    let (src, dst) = (half.new_src.ip(), half.new_dst.ip());
    let mut outer = Vec::new();
    let mut checksums = inner.checksums;
    if ip.is_v6() {
        let label = (hash >> 32) as u32 & 0x000f_ffff;
        outer.extend((6 << 28 | u32::from(class) << 20 | label).to_be_bytes());
        outer.extend((ip.length() as u16).to_be_bytes());
        outer.extend([41, HOPS]);
        outer.extend([0; 32]);
        put_address(&mut outer, 8, src);
        put_address(&mut outer, 24, dst);
    } else {
        outer.extend([0x45, class]);
        outer.extend((ip.length() as u16 + 20).to_be_bytes());
        outer.extend(&bytes[4..6]);
        outer.extend([bytes[6] & 0x40, 0, HOPS, 4]);
        outer.extend([0; 10]);
        put_address(&mut outer, 12, src);
        put_address(&mut outer, 16, dst);
        let checksum = sum::with_error(&outer, 0, 0);
        outer[10..12].copy_from_slice(&checksum.to_be_bytes());
        checksums.iter_mut().for_each(|at| *at += outer.len());
        checksums.push(10);
    }
    outer.extend(bytes);
    Expected {
        bytes: outer,
        checksums,
        never_zero: Vec::new(),
    }
}
