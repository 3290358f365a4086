//! Fragments, both ways.

use lb_agent::domain::fragment::Deposit as _;
use lb_common::verdict::Verdict::{
    DropTtlExceeded, ForwardReply, ForwardRequest, HoldFragment, PassForeign, PassFragment,
    PassMalformed,
};
use lb_tests::{
    frame::fragments,
    packet::{ACK, Packet, SYN},
    world::{World, action, answer_to},
};

use crate::{
    row::{Row, Side, shortest},
    traffic::{ALL, at_client, ip},
};

const PORT: u16 = 20_444;
const LENGTH: usize = 1000;

/// The first fragment decides, with and without a flow; the others follow in any order, and those
/// of other packets do not.
#[test]
fn follow_the_first() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = Packet {
                payload: (0..4500).map(|n| n as u8).collect(),
                ..traffic.request(PORT, SYN)
            };
            let sent = traffic.at_backend(&request, 2, PORT);
            let answer = answer_to(&sent, ACK);
            let got = at_client(&request, &answer);
            for (side, verdict, packet, out) in [
                (Side::Front, ForwardRequest, &request, &sent),
                (Side::Back, ForwardReply, &answer, &got),
            ] {
                let id = 0x7711;
                let pieces = fragments(&packet.build(), LENGTH, id);
                let expected = fragments(&out.build(), LENGTH, id);
                let what = |number| format!("{traffic:?}, {side:?}, fragment {number}");
                let early = pieces[3].clone();
                Row::refused(what(3), side, early, PassFragment).check(world);
                for number in [0, 2, 4, 1, 3, 1] {
                    let (frame, out) = (pieces[number].clone(), expected[number].clone());
                    let out = (action::REDIRECT, out);
                    Row::changed(what(number), side, frame, verdict, out).check(world);
                }
                // Another packet's.
                let other = fragments(&packet.build(), LENGTH, id + 1)[1].clone();
                Row::refused("another id", side, other, PassFragment).check(world);
                let stranger = Packet {
                    src: ip(&traffic.backend(9)),
                    ..packet.clone()
                };
                let other = fragments(&stranger.build(), LENGTH, id)[1].clone();
                Row::refused("another source", side, other, PassFragment).check(world);
                let last = Packet {
                    ttl: 1,
                    ..packet.clone()
                };
                let other = fragments(&last.build(), LENGTH, id)[1].clone();
                Row::refused("its last hop", side, other, DropTtlExceeded).check(world);
            }
        }
    })
    .unwrap();
}

/// For nobody here, without ports, and after the flow.
#[test]
fn not_followed() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = Packet {
                payload: vec![3; 3000],
                ..traffic.request(PORT, ACK)
            };
            let elsewhere = if traffic.v6 {
                "2001:db8::99"
            } else {
                "198.51.100.99"
            };
            let foreign = Packet {
                dst: ip(elsewhere),
                ..request.clone()
            };
            for frame in fragments(&foreign.build(), LENGTH, 5) {
                Row::refused("for elsewhere", Side::Front, frame, PassForeign).check(world);
            }
            let port = Packet {
                dport: 81,
                ..request.clone()
            };
            let pieces = fragments(&port.build(), LENGTH, 6);
            let verdicts = [PassForeign, PassFragment, PassFragment];
            for (frame, verdict) in pieces.into_iter().zip(verdicts) {
                Row::refused("another port", Side::Front, frame, verdict).check(world);
            }
            // The transport header must be in the first.
            if traffic.tcp {
                let tiny = fragments(&request.build(), 8, 7)[0].clone();
                Row::refused("tiny", Side::Front, tiny, PassMalformed).check(world);
            }
            let pieces = fragments(&request.build(), LENGTH, 8);
            for length in shortest(world, traffic.v6)..pieces[1].len() {
                let what = format!("{traffic:?}, cut at {length}");
                let frame = pieces[1][..length].to_vec();
                Row::refused(what, Side::Front, frame, PassMalformed).check(world);
            }
            let front = world.front;
            let first = world.run(&pieces[0], front).unwrap();
            assert_eq!(first.verdict, ForwardRequest);
            let everybody = ["::/0", "0.0.0.0/0"].map(|p| p.parse().unwrap());
            world.datapath.flows().cut_clients(&everybody).unwrap();
            let what = format!("{traffic:?}, cut off");
            Row::refused(what, Side::Front, pieces[1].clone(), PassFragment).check(world);
        }
    })
    .unwrap();
}

/// What comes before the first one goes to the agent, whole, while that listens; and is as good as
/// any other afterwards.
#[test]
fn out_of_order() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    World::on_each_hook(|world| {
        let _io = runtime.enter();
        let mut held = world.datapath.hold_fragments().unwrap();
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = Packet {
                payload: (0..=255).cycle().take(3000).collect(),
                ..traffic.request(PORT, SYN)
            };
            let pieces = fragments(&request.build(), LENGTH, 0x1234);
            let front = world.front;
            held.switch(true).unwrap();
            let mut waiting = Vec::new();
            for piece in pieces[1..].iter().rev() {
                let outcome = world.run(piece, front).unwrap();
                assert_eq!(outcome.verdict, HoldFragment, "{traffic:?}");
                let mut kept = Vec::new();
                assert_eq!(held.drain(&mut |early| kept.push(early)), 0);
                let [early] = &kept[..] else {
                    panic!("{traffic:?}: {kept:?}");
                };
                assert_eq!((&early.frame, early.ifindex), (piece, front));
                let packet = early.packet;
                assert_eq!(
                    (packet.source, packet.destination),
                    (request.src, request.dst)
                );
                assert_eq!(packet.protocol, u32::from(traffic.proto()));
                assert!(!held.has_first(&packet), "{traffic:?}");
                waiting.push(early.clone());
            }
            let first = world.run(&pieces[0], front).unwrap();
            assert_eq!(first.verdict, ForwardRequest, "{traffic:?}");
            for early in waiting {
                assert!(held.has_first(&early.packet), "{traffic:?}");
                let outcome = world.run(&early.frame, front).unwrap();
                assert_eq!(outcome.verdict, ForwardRequest, "{traffic:?}");
            }
            // Longer than a page takes, and while nobody listens.
            let long = Packet {
                payload: vec![1; 8000],
                ..request
            };
            let long = fragments(&long.build(), 3200, 0x1235)[1].clone();
            Row::refused("long", Side::Front, long, PassFragment).check(world);
            held.switch(false).unwrap();
            let other = fragments(&traffic.request(PORT, ACK).build(), 8, 0x1236)[1].clone();
            Row::refused("nobody listens", Side::Front, other, PassFragment).check(world);
        }
    })
    .unwrap();
}
