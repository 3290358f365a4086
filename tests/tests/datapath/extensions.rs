//! IPv6 extension headers in front of TCP and UDP.

use lb_common::verdict::Verdict::{self, ForwardReply, ForwardRequest, PassForeign, PassMalformed};
use lb_tests::{
    frame::extended,
    packet::ACK,
    world::{World, action, answer_to},
};

use crate::{
    row::{Row, Side, check_all, shortest},
    traffic::{TCP6, UDP6, at_client},
};

const PORT: u16 = 20_666;

/// Eight bytes of options that are to be skipped, but for the first.
const SKIP: &[u8] = &[0, 1, 4, 0, 0, 0, 0];

type Headers = Vec<(u8, &'static [u8])>;

/// Followed up to the transport header, and left as they are.
#[test]
fn followed() {
    // Whose length is in units of four, minus two: 24 bytes.
    const AUTHENTICATION: &[u8] = &[4; 23];
    // No segments left.
    const ROUTED: &[u8] = &[0, 2, 0, 0, 0, 0, 0];
    const LONG: &[u8] = &{
        let mut bytes = [0; 255];
        bytes[0] = 31;
        bytes
    };
    let chains: Vec<Headers> = vec![
        vec![(0, SKIP)],
        vec![(60, SKIP)],
        vec![(43, ROUTED)],
        vec![(51, AUTHENTICATION)],
        vec![
            (0, SKIP),
            (60, SKIP),
            (43, ROUTED),
            (51, AUTHENTICATION),
            (60, SKIP),
        ],
        vec![(60, SKIP); 6],
        vec![(60, LONG)],
        // An atomic fragment (RFC 6946).
        vec![(44, &[0, 0, 0, 1, 2, 3, 4])],
    ];
    World::on_each_hook(|world| {
        for traffic in [TCP6, UDP6] {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            traffic.establish(world, &request).unwrap();
            let sent = traffic.at_backend(&request, 2, PORT);
            let answer = answer_to(&sent, ACK);
            let got = at_client(&request, &answer);
            for chain in &chains {
                for (side, verdict, packet, out) in [
                    (Side::Front, ForwardRequest, &request, &sent),
                    (Side::Back, ForwardReply, &answer, &got),
                ] {
                    let out = (action::REDIRECT, extended(out.build(), chain));
                    let frame = extended(packet.build(), chain);
                    let what = format!("{traffic:?}, {side:?}, {chain:02x?}");
                    Row::changed(what, side, frame, verdict, out).check(world);
                }
            }
        }
    })
    .unwrap();
}

/// Too many or too long, for elsewhere, or of no kind that has a transport header behind.
#[test]
fn not_followed() {
    const LONGER: &[u8] = &{
        let mut bytes = [0; 263];
        bytes[0] = 32;
        bytes
    };
    let rows: Vec<(&str, Headers, Verdict)> = vec![
        ("seven", vec![(60, SKIP); 7], PassMalformed),
        ("264 bytes", vec![(60, LONGER)], PassMalformed),
        (
            "longer than the packet",
            vec![(60, &[30, 0, 0, 0, 0, 0, 0])],
            PassMalformed,
        ),
        (
            "segments left",
            vec![(43, &[0, 2, 1, 0, 0, 0, 0])],
            PassForeign,
        ),
        ("encrypted", vec![(50, SKIP)], PassForeign),
        ("nothing behind", vec![(59, SKIP)], PassForeign),
    ];
    World::on_each_hook(|world| {
        for traffic in [TCP6, UDP6] {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            traffic.establish(world, &request).unwrap();
            let rows = rows.iter().map(|(what, chain, verdict)| {
                let frame = extended(request.build(), chain);
                Row::refused(format!("{traffic:?}, {what}"), Side::Front, frame, *verdict)
            });
            check_all(world, rows);
            let frame = extended(request.build(), &[(0, SKIP), (60, SKIP)]);
            let rows = (shortest(world, true)..frame.len()).map(|length| {
                let what = format!("{traffic:?}, cut at {length}");
                Row::refused(what, Side::Front, frame[..length].to_vec(), PassMalformed)
            });
            check_all(world, rows);
        }
    })
    .unwrap();
}
