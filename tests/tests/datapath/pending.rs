//! Frames whose transport checksum is yet to be computed, as local stacks leave them to a device.

use lb_common::verdict::Verdict::{ForwardRequest, PassForeign, PassUnresolved};
use lb_tests::{
    frame::tagged,
    packet::{ACK, SYN},
    world::{World, action, answer_to},
};

use crate::{
    row::{Row, Side, run},
    traffic::{ALL, Traffic},
};

const PORT: u16 = 20_888;

/// The frame, with the sum of its pseudo-header in place of the transport checksum.
fn pending(traffic: Traffic, mut frame: Vec<u8>) -> Vec<u8> {
    let v6 = traffic.vip().contains(':');
    let (l4, addresses) = if v6 { (54, 22..54) } else { (34, 26..34) };
    let proto = frame[if v6 { 20 } else { 23 }];
    let length = (frame.len() - l4) as u32;
    let words = frame[addresses].chunks(2);
    let mut sum = u32::from(proto) + length;
    sum += words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let at = l4 + if proto == 17 { 6 } else { 16 };
    frame[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    frame
}

/// XDP leaves them to tc as they came, if they are ours; others are nobody's, and whole ones are sent
/// on.
#[test]
fn xdp_leaves_them_to_tc() {
    World::with_options(
        |options| options.pending = Some(true),
        |world| {
            for traffic in ALL {
                traffic.serve(world, &[2]);
                let request = traffic.request(PORT, SYN);
                let sent = traffic.at_backend(&request, 2, PORT);
                let frame = pending(traffic, request.build());
                let what = format!("{traffic:?}");
                Row::refused(what.clone(), Side::Front, frame, PassUnresolved).check(world);
                let whole = (action::REDIRECT, sent.clone());
                Row::forwarded(what.clone(), Side::Front, &request, ForwardRequest, whole)
                    .check(world);
                let later = pending(traffic, traffic.request(PORT, ACK).build());
                Row::refused(what.clone(), Side::Front, later, PassUnresolved).check(world);
                let answer = answer_to(&sent, SYN | ACK);
                let back = pending(traffic, answer.build());
                Row::refused(what.clone(), Side::Back, back, PassUnresolved).check(world);
                // Under a tag there is more between the headers, and the detour looks.
                let frame = tagged(pending(traffic, request.build()), &[(0x8100, 7)]);
                Row::refused(what.clone(), Side::Front, frame, PassUnresolved).check(world);
                let foreign =
                    traffic.packet((traffic.client(), PORT), (&traffic.backend(9), 9), SYN);
                let answer = answer_to(&sent, SYN | ACK);
                let back = pending(traffic, answer.build());
                Row::refused(what.clone(), Side::Back, back, PassUnresolved).check(world);
                // Under a tag there is more between the headers, and the detour looks.
                let frame = tagged(pending(traffic, request.build()), &[(0x8100, 7)]);
                Row::refused(what.clone(), Side::Front, frame, PassUnresolved).check(world);
                let foreign = pending(traffic, foreign.build());
                Row::refused(what, Side::Front, foreign, PassForeign).check(world);
            }
        },
    )
    .unwrap();
}

/// Where all frames come from the wire nothing is asked: one in 65,536 looks like that by chance.
#[test]
fn frames_from_the_wire_are_sent() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let frame = pending(traffic, traffic.request(PORT, SYN).build());
            let outcome = run(world, Side::Front, &frame).unwrap();
            assert_eq!(outcome.verdict, ForwardRequest, "{traffic:?}");
        }
    })
    .unwrap();
}
