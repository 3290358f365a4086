//! Packets one by one whose coming out is a case of its own, for both families and protocols.

use std::{collections::BTreeSet, time::Duration};

use super::{
    draw::{ACK, FIN, PSH, RST, SYN, URG},
    flow::Flow,
    intended::Otherwise,
    pair::{LATE, Outcome, Pair, Step},
    reading::Reading,
    segment::{Segment, TCP, UDP},
};
use crate::{row::Side, traffic::ip};

/// What a row must come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// Alike, and so many frames at the client and at the backend.
    Alike(usize, usize),
    /// The programs translate it as plainly as any packet, and the kernel does not, for this
    /// reason.
    Differs(Otherwise),
    /// The kernel sends something on, and the programs do not, for this reason.
    Withheld(Otherwise),
    /// The programs answer, with a checksum as wrong as the question's, and the kernel does not.
    AsWrong(Otherwise),
}

/// Nothing comes out of either.
pub(crate) const NOTHING: Expect = Expect::Alike(0, 0);
/// One frame at the backend.
pub(crate) const THERE: Expect = Expect::Alike(0, 1);
/// One frame at the client.
pub(crate) const HERE: Expect = Expect::Alike(1, 0);

/// Rows under way, and what was wrong with those before.
pub(crate) struct Rows<'a> {
    pub(crate) pair: &'a mut Pair,
    pub(crate) wrong: Vec<String>,
    pub(crate) differed: BTreeSet<Otherwise>,
    pub(crate) count: usize,
    port: u16,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(pair: &'a mut Pair) -> Self {
        Self {
            pair,
            wrong: Vec::new(),
            differed: BTreeSet::new(),
            count: 0,
            port: 30_000,
        }
    }

    /// A conversation that is yet to begin, from a port that none had before.
    pub(crate) fn fresh(&mut self, v6: bool, proto: u8) -> Flow {
        self.port += 1;
        Flow::new(v6, proto, 2, self.port)
    }

    /// Checks what a conversation begins with.
    fn first(&mut self, v6: bool, what: &str, change: impl Fn(&mut Segment), expect: Expect) {
        let mut flow = self.fresh(v6, TCP);
        self.check(&mut flow, |flow| flow.asks(what, &change), expect);
    }

    /// A conversation that both sides take part in.
    pub(crate) fn open(&mut self, v6: bool, proto: u8) -> Flow {
        let mut flow = self.fresh(v6, proto);
        if proto == TCP {
            self.check(
                &mut flow,
                |flow| flow.asks("open", |s| s.flags = SYN),
                THERE,
            );
            self.check(
                &mut flow,
                |flow| flow.answers("open", |s| s.flags = SYN | ACK),
                HERE,
            );
        } else {
            self.check(&mut flow, |flow| flow.asks("open", |_| {}), THERE);
            self.check(&mut flow, |flow| flow.answers("open", |_| {}), HERE);
        }
        flow.anew = false;
        self.check(&mut flow, |flow| flow.asks("open", |_| {}), THERE);
        flow
    }

    /// Sends what `step` makes of the flow, and compares.
    pub(crate) fn check(&mut self, flow: &mut Flow, step: impl Fn(&Flow) -> Step, expect: Expect) {
        let step = step(flow);
        self.count += 1;
        // What is to differ need not be waited for until it does not.
        let patience = match expect {
            Expect::Alike(..) => LATE,
            _ => Duration::ZERO,
        };
        let Outcome {
            arrivals,
            difference,
        } = self.pair.play_for(flow, &step, patience);
        let fault = match expect {
            Expect::Alike(front, back) => difference.or_else(|| {
                let at = |side: Side| {
                    let at_side = |(at, _): &&(Side, Vec<u8>)| *at as u8 == side as u8;
                    arrivals[1].iter().filter(at_side).count()
                };
                let came = (at(Side::Front), at(Side::Back));
                let what = format!("{}: {came:?} instead of {:?}", step.what, (front, back));
                (came != (front, back)).then_some(what)
            }),
            Expect::Differs(otherwise) => {
                let plain = |(_, frame): &(Side, Vec<u8>)| {
                    let arrived = Reading::of(frame);
                    let mut sent = step.frames[1].iter();
                    sent.any(|(from, frame)| {
                        flow.translated(*from, frame).differing(&arrived).is_empty()
                    })
                };
                let right = !arrivals[1].is_empty() && arrivals[1].iter().all(plain);
                self.otherwise(otherwise, &step, difference, right)
            }
            Expect::Withheld(otherwise) => {
                let right = arrivals[1].is_empty();
                self.otherwise(otherwise, &step, difference, right)
            }
            Expect::AsWrong(otherwise) => {
                let sum = |frame: &[u8]| Reading::of(frame).get("ICMP checksum").map(str::to_owned);
                let right = match arrivals[1].as_slice() {
                    [(_, frame)] => sum(frame) == sum(&step.frames[1][0].1),
                    _ => false,
                };
                self.otherwise(otherwise, &step, difference, right)
            }
        };
        self.wrong.extend(fault);
    }

    /// What is wrong about a row that is to differ, if anything is.
    fn otherwise(
        &mut self,
        otherwise: Otherwise,
        step: &Step,
        difference: Option<String>,
        right: bool,
    ) -> Option<String> {
        let why = otherwise.why();
        match difference {
            None => Some(format!(
                "{}: alike, though it is intended that {why}",
                step.what
            )),
            Some(_) if right => {
                self.differed.insert(otherwise);
                None
            }
            Some(difference) => Some(format!("it is intended that {why}, but:\n{difference}")),
        }
    }

    /// Ends them, and says what has differed by intention.
    ///
    /// # Panics
    ///
    /// Something was wrong.
    pub(crate) fn done(self) -> BTreeSet<Otherwise> {
        println!(
            "{} rows; otherwise by intention: {:?}",
            self.count, self.differed
        );
        assert!(
            self.wrong.is_empty(),
            "{} of {} rows:\n{}",
            self.wrong.len(),
            self.count,
            self.wrong.join("\n\n")
        );
        self.differed
    }
}

/// Both families and protocols.
pub(crate) const ALL: [(bool, u8); 4] = [(false, TCP), (false, UDP), (true, TCP), (true, UDP)];

/// How connections may begin, go on and end.
pub(crate) fn connections(rows: &mut Rows<'_>) {
    for v6 in [false, true] {
        for (what, flags) in [("a FIN first", FIN | ACK), ("an answer first", SYN | ACK)] {
            let differs = Expect::Differs(Otherwise::AnySegmentBegins);
            rows.first(v6, what, |s| s.flags = flags, differs);
        }
        rows.first(v6, "a reset first", |s| s.flags = RST, NOTHING);
        rows.first(v6, "data first", |s| s.payload = vec![1; 9], THERE);
        let mut early = rows.fresh(v6, TCP);
        rows.check(
            &mut early,
            |flow| flow.asks("open", |s| s.flags = SYN),
            THERE,
        );
        early.anew = false;
        let differs = Expect::Differs(Otherwise::FlagsAreNotJudged);
        rows.check(
            &mut early,
            |flow| flow.asks("data before the answer", |_| {}),
            differs,
        );
        for flags in [
            0,
            SYN | FIN | ACK,
            SYN | RST,
            FIN,
            FIN | PSH | URG,
            SYN | FIN,
        ] {
            let what = format!("flags {flags:#04x}");
            let mut flow = rows.open(v6, TCP);
            // A SYN may begin anew.
            rows.check(
                &mut flow,
                |flow| flow.asks(&what, |s| s.flags = flags),
                differs,
            );
            let mut flow = rows.open(v6, TCP);
            rows.check(
                &mut flow,
                |flow| flow.answers(&what, |s| s.flags = flags),
                differs,
            );
        }
    }
}

/// Replies that nobody has asked for, and requests that are for nobody.
pub(crate) fn strangers(rows: &mut Rows<'_>) {
    for (v6, proto) in ALL {
        let mut flow = rows.fresh(v6, proto);
        flow.given = [24_000, 24_000];
        let both = Expect::Alike(0, 1);
        rows.check(
            &mut flow,
            |flow| flow.answers("to a port that nobody has", |_| {}),
            both,
        );
        // Another backend may not answer in this one's place.
        let mut flow = rows.open(v6, proto);
        let other = if v6 { "fd99:1::3" } else { "10.99.1.3" };
        rows.check(
            &mut flow,
            |flow| {
                flow.answers("from another backend", |s| {
                    s.src = ip(other);
                    s.flags = RST;
                    s.sum = super::segment::Sum::Wrong(1);
                })
            },
            NOTHING,
        );
    }
}

/// Sources that no host has, and frames for another host on the same cable.
pub(crate) fn impostors(rows: &mut Rows<'_>) {
    let sources: [&[&str]; 2] = [
        &["0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255"],
        &["::", "::1", "ff02::1"],
    ];
    for (v6, proto) in ALL {
        for source in sources[usize::from(v6)] {
            let mut flow = rows.fresh(v6, proto);
            let what = format!("from {source}");
            let from = |s: &mut Segment| {
                s.flags = SYN;
                s.src = ip(source);
            };
            rows.check(&mut flow, |flow| flow.asks(&what, from), NOTHING);
        }
        let mut flow = rows.open(v6, proto);
        let elsewhere = |mut step: Step| {
            for (_, frame) in step.frames.iter_mut().flatten() {
                frame[5] ^= 0x55;
            }
            step
        };
        rows.check(
            &mut flow,
            |flow| elsewhere(flow.asks("to another link address", |_| {})),
            Expect::Differs(Otherwise::DriversFilter),
        );
    }
}

/// Headers of IPv4 that the kernel looks at more closely.
pub(crate) fn headers(rows: &mut Rows<'_>) {
    for proto in [TCP, UDP] {
        let damage = |step: Step| {
            let mut step = step;
            for (_, frame) in step.frames.iter_mut().flatten() {
                frame[24] ^= 0x10;
            }
            step
        };
        let kept = Expect::Differs(Otherwise::HeaderSumIsKept);
        let mut flow = rows.open(false, proto);
        rows.check(
            &mut flow,
            |flow| damage(flow.asks("a damaged header", |_| {})),
            kept,
        );
        rows.check(
            &mut flow,
            |flow| damage(flow.answers("a damaged header", |_| {})),
            kept,
        );
        let carried = Expect::Differs(Otherwise::OptionsAreCarried);
        // RFC 791: record route, timestamp, loose source route, and one that is too long.
        let options: [&[u8]; 4] = [
            &[7, 7, 4, 0, 0, 0, 0, 0],
            &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[131, 7, 4, 10, 99, 1, 2, 0],
            &[130, 40, 0, 0],
        ];
        for option in options {
            let what = format!("IP option {}", option[0]);
            let set = |s: &mut Segment| s.options = option.to_vec();
            rows.check(&mut flow, |flow| flow.asks(&what, set), carried);
            rows.check(&mut flow, |flow| flow.answers(&what, set), carried);
        }
        let padded = |s: &mut Segment| s.padding = 6;
        rows.check(&mut flow, |flow| flow.asks("padded", padded), THERE);
        rows.check(&mut flow, |flow| flow.answers("padded", padded), HERE);
        // Router alert (RFC 2113), which nobody here listens to.
        let alert = |s: &mut Segment| s.options = vec![148, 4, 0, 0];
        rows.check(&mut flow, |flow| flow.asks("router alert", alert), THERE);
    }
}
