//! ICMP errors about packets that went through here (RFC 5508, section 4.2).
//!
//! The error quotes what this node has sent. Whoever it is sent on to must find in it what he has
//! sent himself, and must get it from the address that he knows.

use std::net::{IpAddr, SocketAddr};

use lb_common::{flow::Kind, verdict::Verdict};

use super::{
    Model, Prediction, extension,
    fault::Fault,
    flow::next_state,
    link::Link,
    parse::{ICMPV6, Ip, TCP, UDP, v4, v6, word},
    rewrite::{self, Expected},
    sum,
    table::{Half, Key, NO_FLOW},
};

/// Bytes of every ICMP header.
const HEADER: usize = 8;

/// A quoted packet.
struct Quote {
    src: SocketAddr,
    dst: SocketAddr,
    proto: u8,
    /// Offset of its network header in the frame.
    l3: usize,
    /// Offset of its transport header.
    l4: usize,
    /// Bytes from there on.
    l4_length: usize,
}

/// Whether a kind is one that speaks of a packet, and means something to its sender: unreachable,
/// (too big,) time exceeded, parameter problem.
fn is_error(kind: u8, v6: bool) -> bool {
    if v6 {
        (1..=4).contains(&kind)
    } else {
        [3, 11, 12].contains(&kind)
    }
}

/// Reads the quote of an error.
fn quote(frame: &[u8], ip: &Ip, fault: Option<Fault>) -> Result<Quote, Verdict> {
    let is_v6 = ip.is_v6();
    let l3 = ip.l4 + HEADER;
    let end = ip.l4 + ip.l4_length;
    let header = if is_v6 { 40 } else { 20 };
    if frame.len() < l3 + header {
        return Err(Verdict::PassMalformed);
    }
    let version = frame[l3] / 16;
    if version != if is_v6 { 6 } else { 4 } {
        return Err(Verdict::PassMalformed);
    }
    let (l4, proto, is_later, [src, dst]) = if is_v6 {
        let chain = extension::follow(frame, l3 + header, frame[l3 + 6], fault)?;
        let is_later = chain.fragment.is_some_and(|fragment| fragment.offset != 0);
        let addresses = [l3 + 8, l3 + 24].map(|at| v6(frame, at));
        (l3 + header + chain.length, chain.proto, is_later, addresses)
    } else {
        let length = usize::from(frame[l3] % 16) * 4;
        if length < header {
            return Err(Verdict::PassMalformed);
        }
        let is_later = word(frame, l3 + 6) & 0x1fff != 0;
        let addresses = [l3 + 12, l3 + 16].map(|at| v4(frame, at));
        (l3 + length, frame[l3 + 9], is_later, addresses)
    };
    // Every quote has eight bytes of the transport header at least.
    if l4 + 8 > end {
        return Err(Verdict::PassMalformed);
    }
    // What is no beginning has no transport header.
    if is_later {
        return Err(Verdict::PassForeign);
    }
    Ok(Quote {
        src: SocketAddr::new(src, word(frame, l4)),
        dst: SocketAddr::new(dst, word(frame, l4 + 2)),
        proto,
        l3,
        l4,
        l4_length: end - l4,
    })
}

/// The sum of what a transport checksum covers and a translation changes.
fn ends(src: SocketAddr, dst: SocketAddr) -> u64 {
    let addresses = sum::pseudo(src.ip(), dst.ip(), 0, 0);
    addresses + u64::from(src.port()) + u64::from(dst.port())
}

/// Makes the quote the packet that goes from `src` to `dst`. `base` is where `out` begins in the
/// frame.
fn restore(out: &mut Expected, quote: &Quote, base: usize, half: &Half, fault: Option<Fault>) {
    let (src, dst) = (half.new_dst, half.new_src);
    let (l3, l4) = (quote.l3 - base, quote.l4 - base);
    rewrite::network(out, l3, l4 - l3, [src.ip(), dst.ip()], None);
    out.bytes[l4..l4 + 2].copy_from_slice(&src.port().to_be_bytes());
    out.bytes[l4 + 2..l4 + 4].copy_from_slice(&dst.port().to_be_bytes());
    let udp = quote.proto == UDP;
    let at = l4 + if udp { 6 } else { 16 };
    // Of TCP all of the header must be there, as nf_nat has it.
    if !udp && quote.l4_length < 20 {
        return;
    }
    let former = word(&out.bytes, at);
    // UDP without a checksum.
    let absent = udp && former == 0 && fault != Some(Fault::SumsUnsummedQuotes);
    if absent || fault == Some(Fault::KeepsQuotedSums) {
        return;
    }
    // The rest of the quoted packet is not there, but has not changed.
    let change = 65_535 * 100 + ends(quote.src, quote.dst) - ends(src, dst);
    let checksum = ((u64::from(former) + change) % 65_535) as u16;
    if udp {
        out.put_udp_sum(at, checksum);
    } else {
        out.put_sum(at, checksum);
    }
}

impl Model {
    /// Sends an ICMP message that is no echo request on, if it is an error about a flow.
    pub(super) fn translate_error(
        &mut self,
        frame: &[u8],
        link: &Link,
        ip: &Ip,
        ingress: u32,
    ) -> Result<Prediction, Verdict> {
        if frame.len() < ip.l4 + HEADER || ip.l4_length < HEADER {
            return Err(Verdict::PassMalformed);
        }
        if !is_error(frame[ip.l4], ip.is_v6()) {
            return Err(Verdict::PassForeign);
        }
        let quote = quote(frame, ip, self.fault)?;
        // An error is for the sender of what it quotes.
        let lies = quote.src.ip() != ip.dst && !self.errs(Fault::BelievesQuotes);
        if lies || ip.fragment.is_some_and(|fragment| fragment.more) {
            return Err(Verdict::PassForeign);
        }
        if ![TCP, UDP].contains(&quote.proto) {
            return Err(Verdict::PassForeign);
        }
        // It goes where an answer to the quoted packet would.
        let key = Key {
            src: quote.dst,
            dst: quote.src,
            proto: quote.proto,
        };
        let half = self.table(ip.is_v6()).find(&key).cloned();
        // A port that is only held has no flow any more.
        let holds = self.errs(Fault::ErrorsOfHeldPorts);
        let half = half.filter(|half| half.flow != NO_FLOW || holds);
        let half = half.ok_or(Verdict::PassForeign)?;
        let departure = self.departure(&half)?;
        Self::untagged(link, &half, &departure)?;
        // Nobody is told about an error (RFC 1122, section 3.2.2).
        if ip.ttl <= 1 {
            return Err(Verdict::DropTtlExceeded);
        }
        if ip.length() > departure.mtu && !self.errs(Fault::IgnoresMtu) {
            return Err(Verdict::DropTooBig);
        }
        if self.errs(Fault::ErrorsAnswer) {
            let state = next_state(half.state, Kind::Reply, half.key.proto, 0);
            if let Some(half) = self.table(ip.is_v6()).find_mut(&key) {
                half.state = state;
            }
        }
        if half.is_alone() {
            // The backend has sent what is quoted, as it is.
            let (of, by) = ((link, ip), (&half, &departure));
            return self.pass_on(Verdict::ForwardError, frame, of, by, ingress);
        }
        let mut out = rewrite::headers(frame, ip, &half, self.fault);
        let mut addresses = [half.new_src.ip(), half.new_dst.ip()];
        if self.errs(Fault::ErrorsKeepSource) {
            addresses[0] = ip.src;
            out = Expected::of(frame, ip);
            rewrite::network(&mut out, 0, ip.l4 - ip.l3, addresses, Some(ip.ttl - 1));
        }
        if !self.errs(Fault::KeepsQuotes) {
            restore(&mut out, &quote, ip.l3, &half, self.fault);
        }
        seal(&mut out, frame, ip, addresses);
        Ok(self.send(Verdict::ForwardError, out, link, &departure.way, ingress))
    }
}

/// Puts the checksum of a message right that is between these addresses now; an error in it stays.
fn seal(out: &mut Expected, frame: &[u8], ip: &Ip, [src, dst]: [IpAddr; 2]) {
    let pseudo = |src, dst| match ip.proto {
        ICMPV6 => sum::pseudo(src, dst, ICMPV6, ip.l4_length),
        _ => 0,
    };
    let before = &frame[ip.l4..ip.l4 + ip.l4_length];
    let error = sum::error(before, pseudo(ip.src, ip.dst));
    let l4 = ip.l4 - ip.l3;
    out.bytes[l4 + 2..l4 + 4].fill(0);
    let after = &out.bytes[l4..l4 + ip.l4_length];
    let checksum = sum::with_error(after, pseudo(src, dst), error);
    out.put_sum(l4 + 2, checksum);
}
