//! What the node itself answers: echo requests to a VIP, and errors about packets that it cannot
//! send on.

use std::{thread, time::Duration};

use super::{
    draw::SYN,
    flow::Flow,
    intended::Otherwise,
    pair::Step,
    rows::{ALL, Expect, HERE, NOTHING, Rows},
    segment::{DF, Segment, Sum, TCP},
};
use crate::row::Side;

/// Checks a row that an error answers. The programs send 250 a second on a CPU, and 50 at once; that
/// both have a limit, and another, is not what is compared.
fn answered(rows: &mut Rows<'_>, flow: &mut Flow, step: impl Fn(&Flow) -> Step, expect: Expect) {
    thread::sleep(Duration::from_millis(5));
    rows.check(flow, step, expect);
}

/// Echo requests.
pub(crate) fn echoes(rows: &mut Rows<'_>) {
    for v6 in [false, true] {
        let mut flow = rows.fresh(v6, TCP);
        let mut ping =
            |what: &str, length: usize, change: &dyn Fn(&mut Segment), expect: Expect| {
                rows.check(
                    &mut flow,
                    |flow| {
                        let kind = if v6 { (128, 0) } else { (8, 0) };
                        let body: Vec<u8> = (0..length).map(|index| index as u8).collect();
                        let ends = (flow.client.as_str(), flow.vip());
                        let mut request = Segment::message(ends, kind, 0x1234_0007, &body);
                        change(&mut request);
                        let what = format!("echo request {what}, {length} bytes");
                        Step::same(what, Side::Front, request.from(Side::Front))
                    },
                    expect,
                );
            };
        for length in [0, 1, 2, 56, 57, 1000, 1400] {
            ping("", length, &|_| {}, HERE);
            ping("marked", length, &|s| s.tos = 0xb8, HERE);
            ping("at its last hop", length, &|s| s.ttl = 1, HERE);
            ping(
                "damaged",
                length,
                &|s| s.sum = Sum::Wrong(9),
                Expect::AsWrong(Otherwise::ErrorSumIsKept),
            );
        }
        ping("in one piece", 56, &|s| s.fragment = DF, HERE);
        // As if it were an answer.
        ping(
            "answered",
            56,
            &|s| s.payload[0] = if v6 { 129 } else { 0 },
            NOTHING,
        );
    }
}

/// Packets at their last hop.
pub(crate) fn expired(rows: &mut Rows<'_>) {
    for (v6, proto) in ALL {
        for ttl in [1, 0] {
            for length in [0, 9, 100, 1300] {
                let what = format!("{ttl} hops left, {length} bytes");
                let last = |s: &mut Segment| {
                    s.ttl = ttl;
                    s.payload = vec![0x55; length];
                };
                let mut new = rows.fresh(v6, proto);
                answered(
                    rows,
                    &mut new,
                    |flow| {
                        flow.asks(&what, |s| {
                            last(s);
                            s.flags = SYN;
                        })
                    },
                    HERE,
                );
                let mut flow = rows.open(v6, proto);
                answered(rows, &mut flow, |flow| flow.asks(&what, last), HERE);
                answered(
                    rows,
                    &mut flow,
                    |flow| flow.answers(&what, last),
                    Expect::Alike(0, 1),
                );
            }
        }
    }
}

/// Packets longer than the backend's link carries.
pub(crate) fn too_long(rows: &mut Rows<'_>, mtu: usize) {
    for (v6, proto) in ALL {
        let mut flow = rows.open(v6, proto);
        let headers = flow.request().packet().len();
        for (length, expect) in [(mtu, Expect::Alike(0, 1)), (mtu + 1, HERE), (1500, HERE)] {
            let what = format!("{length} bytes");
            answered(
                rows,
                &mut flow,
                |flow| {
                    flow.asks(&what, |s| {
                        s.payload = vec![0xaa; length - headers];
                        s.fragment = if v6 { 0 } else { DF };
                    })
                },
                expect,
            );
        }
    }
}
