//! VLAN tags: whatever a client's frames carry, its replies carry too.

use lb_common::verdict::Verdict::{ForwardReply, ForwardRequest, PassMalformed};
use lb_tests::{
    frame::tagged,
    packet::{ACK, SYN},
    world::{World, action, answer_to},
};

use crate::{
    row::{Row, Side},
    traffic::{ALL, at_client},
};

const PORT: u16 = 20_333;

/// Kind and control information of a frame's tags.
type Tags = &'static [(u16, u16)];

/// Backends get untagged frames here; the way back has the client's tags, without its priority.
#[test]
fn of_the_client() {
    let cases: [(Tags, Tags); 4] = [
        (&[(0x8100, 5)], &[(0x8100, 5)]),
        (&[(0x8100, 0xffff)], &[(0x8100, 0x0fff)]),
        (&[(0x88a8, 100), (0x8100, 7)], &[(0x88a8, 100), (0x8100, 7)]),
        (
            &[(0x8100, 0xa000), (0x88a8, 0x6001)],
            &[(0x8100, 0), (0x88a8, 1)],
        ),
    ];
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            for (number, (tags, back)) in (0..).zip(cases) {
                let port = PORT + number;
                for flags in [SYN, ACK] {
                    let request = traffic.request(port, flags);
                    let sent = traffic.at_backend(&request, 2, port);
                    let answer = answer_to(&sent, ACK);
                    let got = tagged(at_client(&request, &answer).build(), back);
                    let what = format!("{traffic:?}, {tags:04x?}");
                    let frame = tagged(request.build(), tags);
                    let out = (action::REDIRECT, sent.build());
                    Row::changed(what.clone(), Side::Front, frame, ForwardRequest, out)
                        .check(world);
                    let out = (action::REDIRECT, got);
                    Row::changed(what, Side::Back, answer.build(), ForwardReply, out).check(world);
                }
                let frame = tagged(traffic.request(port, ACK).build(), tags);
                for length in 14..frame.len() {
                    let what = format!("{traffic:?}, {tags:04x?}, cut at {length}");
                    Row::refused(what, Side::Front, frame[..length].to_vec(), PassMalformed)
                        .check(world);
                }
            }
        }
    })
    .unwrap();
}
