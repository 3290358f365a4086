//! ICMP and ICMPv6 errors about packets of a conversation, in both directions.

use super::{
    flow::Flow,
    intended::Otherwise,
    pair::Step,
    rows::{ALL, Expect, HERE, NOTHING, Rows, THERE},
    segment::{DF, Segment, Sum, TCP},
};
use crate::row::Side;

/// Types and codes that are about a packet, and what their second word may hold (RFC 792, RFC 1191;
/// RFC 4443).
const KINDS: [&[(u8, u8, u32)]; 2] = [
    &[
        (3, 0, 0),
        (3, 1, 0),
        (3, 2, 0),
        (3, 3, 0),
        (3, 4, 1400),
        (3, 4, 0),
        (3, 13, 0),
        (11, 0, 0),
        (11, 1, 0),
        (12, 0, 0x0800_0000),
    ],
    &[
        (1, 0, 0),
        (1, 1, 0),
        (1, 3, 0),
        (1, 4, 0),
        (2, 0, 1400),
        (3, 0, 0),
        (3, 1, 0),
        (4, 0, 4),
        (4, 1, 6),
        (4, 2, 40),
    ],
];

/// Who finds fault: routers on the way to the client and to the backend.
const ROUTERS: [[&str; 2]; 2] = [
    ["203.0.113.9", "192.0.2.7"],
    ["2001:db8:9::9", "2001:db8:7::7"],
];

/// One error message.
#[derive(Clone)]
struct Fault {
    what: String,
    /// Comes from the backend's side, about a request; else from the client's, about a reply.
    about_request: bool,
    /// From a router, not from the host itself.
    router: bool,
    kind: (u8, u8, u32),
    /// Bytes of the quote behind the IP header.
    quoted: usize,
}

impl Fault {
    fn new(what: impl Into<String>, about_request: bool, kind: (u8, u8, u32)) -> Self {
        Self {
            what: what.into(),
            about_request,
            router: true,
            kind,
            quoted: 28,
        }
    }

    fn side(&self) -> Side {
        if self.about_request {
            Side::Back
        } else {
            Side::Front
        }
    }

    /// The packet that it is about, where the fault is found.
    fn subject(&self, flow: &Flow, site: usize) -> Segment {
        let plain = if self.about_request {
            flow.request_behind(site)
        } else {
            flow.reply_in_front()
        };
        Segment {
            tos: 0x28,
            fragment: if flow.v6 { 0 } else { DF },
            ttl: 1,
            payload: (0..200).collect(),
            ..plain
        }
    }

    /// The message, about whatever `subject` makes of the packet, and what `outer` makes of it.
    fn step(
        &self,
        flow: &Flow,
        subject: impl Fn(&mut Segment),
        outer: impl Fn(&mut Segment),
    ) -> Step {
        let frames = [0, 1].map(|site| {
            let mut about = self.subject(flow, site);
            subject(&mut about);
            let packet = about.packet();
            let header = packet.len() - about.transport().len();
            let quote = &packet[..packet.len().min(header + self.quoted)];
            let routers = ROUTERS[usize::from(flow.v6)];
            let (from, to) = match (self.about_request, self.router) {
                (true, true) => (routers[1], flow.node()),
                (true, false) => (flow.backend(), flow.node()),
                (false, true) => (routers[0], flow.vip()),
                (false, false) => (flow.client.as_str(), flow.vip()),
            };
            let (kind, code, word) = self.kind;
            let mut message = Segment::message((from, to), (kind, code), word, quote);
            outer(&mut message);
            message.from(self.side())
        });
        let Self {
            what,
            about_request,
            router,
            kind,
            quoted,
        } = self;
        let what = format!(
            "{what}: error {kind:?}, about a request {about_request}, of a router {router}, \
             quoting {quoted} bytes, in {flow:?}"
        );
        Step::each(what, self.side(), frames)
    }
}

/// Errors that find the other side.
pub(crate) fn translated(rows: &mut Rows<'_>) {
    for (v6, proto) in ALL {
        let mut flow = rows.open(v6, proto);
        for about_request in [true, false] {
            let expect = if about_request { HERE } else { THERE };
            for kind in KINDS[usize::from(v6)] {
                for router in [true, false] {
                    // RFC 792: at least eight bytes; RFC 1812 and RFC 4443: as much as fits.
                    for quoted in [8, 12, 20, 28, 29, 208, 220] {
                        let fault = Fault {
                            router,
                            quoted,
                            ..Fault::new("", about_request, *kind)
                        };
                        rows.check(&mut flow, |flow| fault.step(flow, |_| {}, |_| {}), expect);
                    }
                }
            }
            let kind = KINDS[usize::from(v6)][1];
            let plain = Fault::new("", about_request, kind);
            let mut also =
                |what: &str, subject: &dyn Fn(&mut Segment), outer: &dyn Fn(&mut Segment)| {
                    for quoted in [8, 28, 220] {
                        let fault = Fault {
                            what: what.into(),
                            quoted,
                            ..plain.clone()
                        };
                        rows.check(&mut flow, |flow| fault.step(flow, subject, outer), expect);
                    }
                };
            let as_is = |_: &mut Segment| {};
            also(
                "about a damaged packet",
                &|s| s.sum = Sum::Wrong(77),
                &as_is,
            );
            also("marked", &as_is, &|s| s.tos = 0xb9);
            also("at its last hop but one", &as_is, &|s| s.ttl = 2);
            if proto != TCP {
                also(
                    "about one without a checksum",
                    &|s| s.sum = Sum::Absent,
                    &as_is,
                );
            }
            if !v6 {
                also("with options", &as_is, &|s| s.options = vec![1, 1, 1, 0]);
                also(
                    "about one with options",
                    &|s| s.options = vec![1; 8],
                    &as_is,
                );
            }
            // An extension (RFC 4884) behind the quote, which is none of the packet.
            let extended = |s: &mut Segment| {
                s.payload.resize(8 + 128, 0);
                s.payload[if v6 { 4 } else { 5 }] = if v6 { 16 } else { 32 };
                s.payload
                    .extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0x12, 0x34, 0x40]);
            };
            // Not behind eight bytes of TCP: what fills the quote up is no checksum.
            if proto != TCP {
                also("with an extension", &as_is, &extended);
            }
        }
    }
}

/// Errors that are nobody's.
pub(crate) fn refused(rows: &mut Rows<'_>) {
    for (v6, proto) in ALL {
        let mut flow = rows.open(v6, proto);
        for about_request in [true, false] {
            let kind = KINDS[usize::from(v6)][1];
            let fault = |what: &str| Fault::new(what, about_request, kind);
            let as_is = |_: &mut Segment| {};
            let damaged = fault("a damaged error");
            let damage = |s: &mut Segment| s.sum = Sum::Wrong(5);
            let kept = Expect::Differs(Otherwise::ErrorSumIsKept);
            rows.check(&mut flow, |flow| damaged.step(flow, as_is, damage), kept);
            if !v6 {
                let quench = Fault::new("source quench", about_request, (4, 0, 0));
                let withheld = Expect::Withheld(Otherwise::QuenchIsDead);
                rows.check(&mut flow, |flow| quench.step(flow, as_is, as_is), withheld);
            }
            let mut no =
                |fault: &Fault, subject: &dyn Fn(&mut Segment), outer: &dyn Fn(&mut Segment)| {
                    rows.check(&mut flow, |flow| fault.step(flow, subject, outer), NOTHING);
                };
            no(
                &fault("about a stranger"),
                &|s| {
                    s.sport ^= 0x0100;
                    s.dport ^= 0x0100;
                },
                &as_is,
            );
            no(
                &fault("about the other direction"),
                &|s| {
                    std::mem::swap(&mut s.src, &mut s.dst);
                    std::mem::swap(&mut s.sport, &mut s.dport);
                },
                &as_is,
            );
            no(&fault("at its last hop"), &as_is, &|s| s.ttl = 1);
            for quoted in [0, 1, 4, 7] {
                let short = Fault {
                    quoted,
                    ..fault("that quotes too little")
                };
                no(&short, &as_is, &as_is);
            }
            no(&fault("that quotes half an IP header"), &as_is, &|s| {
                s.payload.truncate(8 + 16)
            });
            no(&fault("that quotes nothing"), &as_is, &|s| {
                s.payload.truncate(8)
            });
            if !v6 {
                no(
                    &fault("about a later fragment"),
                    &|s| s.fragment = 7,
                    &as_is,
                );
                let redirect = Fault {
                    kind: (5, 1, 0x0a63_0007),
                    ..fault("a redirect")
                };
                no(&redirect, &as_is, &as_is);
            }
        }
    }
}
