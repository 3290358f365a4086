//! What the node answers by itself: echo requests, and packets that cannot go on.

use lb_agent::domain::kernel::Kernel as _;
use lb_common::verdict::Verdict::{
    self, AnswerEcho, AnswerTimeExceeded, AnswerTooBig, DropTooBig, DropTtlExceeded, PassForeign,
    PassFragment, PassMalformed,
};
use lb_tests::{
    frame::{L3, Message, fragments, tagged},
    packet::{ACK, Packet, SYN},
    world::{CLIENT, CLIENT6, NODE, NODE6, World, action, answer_to},
};

use crate::{
    row::{Row, Side, check_all},
    traffic::{ALL, TCP4, TCP6, Traffic, ip},
};

const PORT: u16 = 20_888;

/// The node's address towards the clients.
fn front(traffic: Traffic) -> &'static str {
    if traffic.v6 { "fd99::1" } else { "10.99.0.1" }
}

fn echo(traffic: Traffic, dst: &str, body: usize) -> Message {
    Message {
        macs: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
        src: ip(if traffic.v6 { CLIENT6 } else { CLIENT }),
        dst: ip(dst),
        ttl: 9,
        tos: 0,
        id_fragment: (0x4321, 0),
        kind: if traffic.v6 { [128, 0] } else { [8, 0] },
        rest: 0x0102_0304,
        body: (0..body).map(|n| n as u8).collect(),
    }
}

fn reply(request: &Message) -> Message {
    Message {
        macs: (request.macs.1, request.macs.0),
        src: request.dst,
        dst: request.src,
        ttl: 64,
        kind: if request.src.is_ipv6() {
            [129, 0]
        } else {
            [0, 0]
        },
        ..request.clone()
    }
}

/// A VIP answers, whole or in fragments, tagged or not; other addresses are the stack's.
#[test]
fn echo_requests() {
    World::on_each_hook(|world| {
        for traffic in [TCP4, TCP6] {
            traffic.serve(world, &[2]);
            for length in [0, 1, 56, 1400] {
                let request = echo(traffic, traffic.vip(), length);
                let out = (action::REDIRECT, reply(&request).build());
                let what = format!("{traffic:?}, {length} bytes");
                Row::changed(what, Side::Front, request.build(), AnswerEcho, out).check(world);
            }
            let request = echo(traffic, traffic.vip(), 56);
            let tags = [(0x88a8, 0x2007), (0x8100, 9)];
            let out = (action::REDIRECT, tagged(reply(&request).build(), &tags));
            let frame = tagged(request.build(), &tags);
            Row::changed("tagged", Side::Front, frame, AnswerEcho, out).check(world);

            let large = echo(traffic, traffic.vip(), 3000);
            let pieces = fragments(&large.build(), 1400, 99);
            let answers = fragments(&reply(&large).build(), 1400, 99);
            let early = pieces[1].clone();
            Row::refused("before the first", Side::Front, early, PassFragment).check(world);
            for number in [0, 2, 1] {
                let (frame, out) = (pieces[number].clone(), answers[number].clone());
                let what = format!("{traffic:?}, fragment {number}");
                Row::changed(
                    what,
                    Side::Front,
                    frame,
                    AnswerEcho,
                    (action::REDIRECT, out),
                )
                .check(world);
            }

            let node = if traffic.v6 { NODE6 } else { NODE };
            let group = if traffic.v6 { "ff02::1" } else { "224.0.0.1" };
            let from_group = Message {
                src: ip(group),
                ..request.clone()
            };
            let rows = [
                ("the node's own", echo(traffic, node, 8)),
                ("from a group", from_group),
                (
                    "another code",
                    Message {
                        kind: [request.kind[0], 1],
                        ..request.clone()
                    },
                ),
            ];
            for (what, message) in rows {
                Row::refused(what, Side::Front, message.build(), PassForeign).check(world);
            }
        }
    })
    .unwrap();
}

/// The error that answers to a frame: quotes at most so much that it has 576 or 1280 bytes.
fn error(traffic: Traffic, from: &str, packet: &Packet, kind: [u8; 2], rest: u32) -> Vec<u8> {
    let longest = if traffic.v6 { 1280 - 48 } else { 576 - 28 };
    let frame = packet.build();
    let length = (frame.len() - L3).min(longest) / 4 * 4;
    Message {
        macs: (packet.smac, packet.dmac),
        src: ip(from),
        dst: packet.src,
        ttl: 64,
        tos: 0xc0,
        id_fragment: (0, 0x4000),
        kind,
        rest,
        body: frame[L3..L3 + length].to_vec(),
    }
    .build()
}

/// The last hop: of a first packet, of a known flow, of a reply; short and long ones.
#[test]
fn time_exceeded() {
    // A world each, so that the limit on answers is not reached.
    for traffic in ALL {
        World::on_each_hook(|world| {
            traffic.serve(world, &[2]);
            let kind = if traffic.v6 { [3, 0] } else { [11, 0] };
            let check = |world: &mut World, side, from: &str, packet: &Packet| {
                let out = (action::REDIRECT, error(traffic, from, packet, kind, 0));
                let what = format!("{traffic:?}, {side:?}, {} bytes", packet.payload.len());
                Row::changed(what, side, packet.build(), AnswerTimeExceeded, out).check(world);
            };
            for flow in [false, true] {
                let request = traffic.request(PORT, if flow { ACK } else { SYN });
                let mut sent = None;
                if flow {
                    sent = Some(traffic.establish(world, &request).unwrap());
                }
                for length in [0, 3, 7, 500, 1300] {
                    for ttl in [0, 1] {
                        let payload = vec![0x5a; length];
                        let packet = Packet {
                            ttl,
                            payload: payload.clone(),
                            ..request.clone()
                        };
                        check(world, Side::Front, front(traffic), &packet);
                        if let Some(sent) = &sent {
                            let answer = answer_to(sent, ACK);
                            let answer = Packet {
                                ttl,
                                payload,
                                ..answer
                            };
                            check(world, Side::Back, traffic.node(), &answer);
                        }
                    }
                }
                let odd = vec![
                    (
                        "group",
                        Packet {
                            dmac: [1, 0, 0x5e, 0, 0, 1],
                            ..request.clone()
                        },
                    ),
                    (
                        "broadcast",
                        Packet {
                            dmac: [0xff; 6],
                            ..request.clone()
                        },
                    ),
                ];
                // From where no host is nothing begins in the first place.
                let none = if traffic.v6 { "ff02::5" } else { "224.1.1.1" };
                let from_group = Packet {
                    src: ip(none),
                    ..request.clone()
                };
                let frame = from_group.build();
                Row::refused("from a group", Side::Front, frame, PassMalformed).check(world);
                for (what, packet) in odd {
                    let frame = Packet { ttl: 1, ..packet }.build();
                    let what = format!("{traffic:?}, {what}");
                    Row::refused(what, Side::Front, frame, DropTtlExceeded).check(world);
                }
            }
            let used: u64 = world.datapath.flows().sweep().unwrap().used4.iter().sum();
            assert!(used <= 4, "{used} slots: none for what goes no further");
            let tags = [(0x8100, 0xe005)];
            let last = Packet {
                ttl: 1,
                ..traffic.request(PORT, ACK)
            };
            let out = tagged(error(traffic, front(traffic), &last, kind, 0), &tags);
            let frame = tagged(last.build(), &tags);
            let out = (action::REDIRECT, out);
            Row::changed("tagged", Side::Front, frame, AnswerTimeExceeded, out).check(world);
        })
        .unwrap();
    }
}

/// Longer than the interface that it would leave by admits, whichever way, and whether or not the
/// sender would have it fragmented.
#[test]
fn too_big() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            let sent = traffic.establish(world, &request).unwrap();
            let kind = if traffic.v6 { [2, 0] } else { [3, 4] };
            let headers = request.build().len() - L3 - request.payload.len();
            let fits = Packet {
                payload: vec![1; 1500 - headers],
                ..request.clone()
            };
            assert_eq!(world.request(&fits).verdict, Verdict::ForwardRequest);
            for surplus in [1, 500] {
                for fragment in [0, 0x4000] {
                    let payload = vec![1; 1500 - headers + surplus];
                    let fragment = if traffic.v6 { 0 } else { fragment };
                    let packet = Packet {
                        payload,
                        fragment,
                        ..request.clone()
                    };
                    let answer = Packet {
                        payload: packet.payload.clone(),
                        ..answer_to(&sent, ACK)
                    };
                    for (side, from, packet) in [
                        (Side::Front, front(traffic), packet),
                        (Side::Back, traffic.node(), answer),
                    ] {
                        let out = (action::REDIRECT, error(traffic, from, &packet, kind, 1500));
                        let what = format!("{traffic:?}, {side:?}, {surplus} too many");
                        Row::changed(what, side, packet.build(), AnswerTooBig, out).check(world);
                    }
                }
            }
        }
    })
    .unwrap();
}

/// A flood of what cannot go on is not answered with a flood.
#[test]
fn answers_have_a_limit() {
    World::on_each_hook(|world| {
        TCP4.serve(world, &[2]);
        let request = TCP4.request(PORT, ACK);
        TCP4.establish(world, &request).unwrap();
        let last = Packet {
            ttl: 1,
            ..request.clone()
        }
        .build();
        let large = Packet {
            payload: vec![0; 1600],
            ..request.clone()
        }
        .build();
        let count = |world: &World, verdict: Verdict| {
            world.datapath.verdicts().unwrap()[verdict as usize].packets
        };
        let begun = std::time::Instant::now();
        for _ in 0..4000 {
            world.datapath.test_run(&last, world.front).unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (told, dropped) = (
            count(world, AnswerTimeExceeded),
            count(world, DropTtlExceeded),
        );
        assert_eq!(told + dropped, 4000);
        // 50 at once and 250 a second on each processor that the test happened to run on.
        let processors = std::thread::available_parallelism().unwrap().get() as f64;
        let limit = processors * (50.0 + 250.0 * (seconds + 0.1));
        assert!(told >= 50 && told as f64 <= limit, "{told} in {seconds} s");
        if limit < 3000.0 {
            for _ in 0..200 {
                world.datapath.test_run(&large, world.front).unwrap();
            }
            assert!(count(world, DropTooBig) > 0);
        }
        check_all(
            world,
            [Row::forwarded(
                "the flow goes on",
                Side::Front,
                &request,
                Verdict::ForwardRequest,
                (action::REDIRECT, TCP4.at_backend(&request, 2, PORT)),
            )],
        );
    })
    .unwrap();
}
