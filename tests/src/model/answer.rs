//! What the node says of its own accord: to senders whose packets cannot go on.
//!
//! Time exceeded and too big (RFC 792, RFC 1191, RFC 4443): an error from the address that the node
//! has on the interface, or else from the one that the packet was sent to, with as much of the
//! packet as 576 bytes hold (RFC 1812, section 4.3.2.3), or 1280 (RFC 4443, section 2.4).

use std::net::IpAddr;

use lb_common::verdict::Verdict;

use super::{
    Model, Prediction,
    fault::Fault,
    link::Link,
    parse::{ICMP, ICMPV6, Ip, Parsed},
    rewrite::Expected,
    sum,
};

/// TTL or hop limit of what begins here.
pub(super) const HOPS: u8 = 64;
/// Type of service: internetwork control (RFC 1812, section 4.3.2.5).
const CONTROL: u8 = 0xc0;

/// Why a packet cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its hops are used up.
    LastHop,
    /// It may have this many bytes.
    TooBig(usize),
}

impl Trouble {
    /// The verdict where nobody is told.
    fn dropped(self) -> Verdict {
        match self {
            Self::LastHop => Verdict::DropTtlExceeded,
            Self::TooBig(_) => Verdict::DropTooBig,
        }
    }

    fn answered(self) -> Verdict {
        match self {
            Self::LastHop => Verdict::AnswerTimeExceeded,
            Self::TooBig(_) => Verdict::AnswerTooBig,
        }
    }

    /// Kind, code, and the last four bytes of the ICMP header.
    fn header(self, v6: bool) -> ([u8; 2], u32) {
        match (self, v6) {
            (Self::LastHop, false) => ([11, 0], 0),
            (Self::LastHop, true) => ([3, 0], 0),
            (Self::TooBig(mtu), false) => ([3, 4], mtu as u32),
            (Self::TooBig(mtu), true) => ([2, 0], mtu as u32),
        }
    }
}

/// Whether an address is that of one host, which answers may be sent to.
pub(super) fn is_of_a_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            // "This network", loopback, groups and what is reserved.
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast(),
    }
}

impl Model {
    /// What becomes of a packet that cannot go on.
    pub(super) fn tell(
        &self,
        frame: &[u8],
        packet: &Parsed,
        trouble: Trouble,
        ingress: u32,
    ) -> Result<Prediction, Verdict> {
        let Parsed { link, ip, .. } = packet;
        let to_group = link.is_to_group() && !self.errs(Fault::TellsGroups);
        if !is_of_a_host(ip.src) || to_group {
            return Err(trouble.dropped());
        }
        let v6 = ip.is_v6();
        let own = self.node.interface(ingress).and_then(|interface| {
            let known = interface.addresses[usize::from(v6)];
            known.filter(|_| !self.errs(Fault::TellsAsVip))
        });
        let out = error(frame, ip, own.unwrap_or(ip.dst), trouble, self.fault);
        let back = Link {
            dmac: link.smac,
            smac: link.dmac,
            ..link.clone()
        };
        Ok(self.send_back(trouble.answered(), out.behind(&back), ingress))
    }
}

/// The error about a packet.
fn error(frame: &[u8], ip: &Ip, from: IpAddr, trouble: Trouble, fault: Option<Fault>) -> Expected {
    let longest = if ip.is_v6() { 1280 - 48 } else { 576 - 28 };
    // Whole words of four bytes.
    let unit = if fault == Some(Fault::QuotesOddly) {
        2
    } else {
        4
    };
    let quoted = ip.length().min(longest) / unit * unit;
    let (kind, rest) = trouble.header(ip.is_v6());
    let mut message = kind.to_vec();
    message.extend([0, 0]);
    message.extend(rest.to_be_bytes());
    message.extend(&frame[ip.l3..ip.l3 + quoted]);

    let mut out = Expected {
        bytes: Vec::new(),
        checksums: Vec::new(),
        never_zero: Vec::new(),
    };
    let (header, pseudo) = match (from, ip.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.bytes.extend([0x45, CONTROL]);
            let total = 20 + message.len() as u16;
            out.bytes.extend(total.to_be_bytes());
            // No identification; not to be fragmented.
            out.bytes.extend([0, 0, 0x40, 0, HOPS, ICMP, 0, 0]);
            out.bytes.extend(from.octets());
            out.bytes.extend(to.octets());
            out.put_sum(10, sum::with_error(&out.bytes, 0, 0));
            (20, 0)
        }
        (from, to) => {
            out.bytes.extend([0x60 | CONTROL >> 4, CONTROL << 4, 0, 0]);
            out.bytes.extend((message.len() as u16).to_be_bytes());
            out.bytes.extend([ICMPV6, HOPS]);
            for address in [from, to] {
                if let IpAddr::V6(address) = address {
                    out.bytes.extend(address.octets());
                }
            }
            (40, sum::pseudo(from, to, ICMPV6, message.len()))
        }
    };
    out.bytes.extend(&message);
    out.put_sum(header + 2, sum::with_error(&message, pseudo, 0));
    out
}
