//! Echo requests to a VIP (RFC 792, RFC 4443): the same message comes back, whole or in fragments.

use lb_common::verdict::Verdict;

use super::{
    Model, Prediction,
    answer::{HOPS, is_of_a_host},
    fault::Fault,
    link::Link,
    parse::{Ip, word},
    rewrite::{self, Expected},
};

/// First words of request and reply: kind and code.
fn words(v6: bool) -> [u16; 2] {
    if v6 {
        [128 << 8, 129 << 8]
    } else {
        [8 << 8, 0]
    }
}

/// Whether a packet, which is ICMP and no later fragment, begins with an echo request.
pub(super) fn is_request(frame: &[u8], ip: &Ip) -> bool {
    let [request, _] = words(ip.is_v6());
    ip.l4_length >= 8 && frame.len() >= ip.l4 + 8 && word(frame, ip.l4) == request
}

impl Model {
    /// Answers an echo request if it is to a VIP; other addresses are the stack's.
    pub(super) fn answer_echo(
        &mut self,
        frame: &[u8],
        link: &Link,
        ip: &Ip,
        ingress: u32,
    ) -> Result<Prediction, Verdict> {
        let vips = &self.destinations.vips;
        let to_vip = vips.keys().any(|key| key.address.ip() == ip.dst);
        if !to_vip && !self.errs(Fault::AnswersForAll) {
            return Err(Verdict::PassForeign);
        }
        if !is_of_a_host(ip.src) || link.is_to_group() {
            return Err(Verdict::PassForeign);
        }
        self.remember(ip, None);
        let mut prediction = self.turn_round(frame, link, ip, ingress)?;
        if let Some(out) = &mut prediction.frame {
            // Of a first fragment the rest is elsewhere: all that changes is this word.
            let [request, reply] = words(ip.is_v6()).map(u64::from);
            let sum = u64::from(word(frame, ip.l4 + 2));
            let sum = (sum + 65_535 + request - reply) % 65_535;
            out.bytes[ip.l4..ip.l4 + 2].copy_from_slice(&(reply as u16).to_be_bytes());
            out.put_sum(ip.l4 + 2, sum as u16);
        }
        Ok(prediction)
    }

    /// Sends a packet back to its sender, with all its hops before it.
    pub(super) fn turn_round(
        &self,
        frame: &[u8],
        link: &Link,
        ip: &Ip,
        ingress: u32,
    ) -> Result<Prediction, Verdict> {
        let mut packet = Expected::of(frame, ip);
        rewrite::network(&mut packet, 0, ip.l4 - ip.l3, [ip.dst, ip.src], Some(HOPS));
        let mut out = packet.behind(link);
        // The link header too is the same, with all priorities.
        out.bytes[..ip.l3].copy_from_slice(&frame[..ip.l3]);
        out.bytes[0..6].copy_from_slice(&link.smac);
        out.bytes[6..12].copy_from_slice(&link.dmac);
        Ok(self.send_back(Verdict::AnswerEcho, out, ingress))
    }
}
