//! ICMP errors about what was translated, from either side.

use lb_common::verdict::Verdict::{DropTtlExceeded, ForwardError, PassForeign, PassMalformed};
use lb_tests::{
    frame::{L3, Message, extended},
    packet::{ACK, Packet, SYN},
    world::{BACK_MAC, FRONT_MAC, World, action, answer_to, backend_mac},
};

use crate::{
    row::{Row, Side, shortest},
    traffic::{ALL, Traffic, at_client, ip},
};

const PORT: u16 = 20_777;

/// Kinds and codes of errors that are translated.
fn kinds(traffic: Traffic) -> &'static [[u8; 2]] {
    if traffic.v6 {
        &[[1, 0], [1, 4], [2, 0], [3, 0], [4, 1]]
    } else {
        &[[3, 0], [3, 1], [3, 3], [3, 4], [11, 0], [12, 0]]
    }
}

fn message(traffic: Traffic, src: &str, dst: &str, kind: [u8; 2], body: &[u8]) -> Message {
    Message {
        macs: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
        src: ip(src),
        dst: ip(dst),
        ttl: 60,
        tos: if traffic.v6 { 0 } else { 0xc0 },
        id_fragment: (0x1234, 0),
        kind,
        rest: 1280,
        body: body.to_vec(),
    }
}

/// A packet as it is quoted: without its link header, and cut.
pub(crate) fn quote(packet: &Packet, transport: usize) -> Vec<u8> {
    let frame = packet.build();
    let header = if packet.src.is_ipv6() {
        40
    } else {
        20 + packet.options.len()
    };
    frame[L3..(L3 + header + transport).min(frame.len())].to_vec()
}

/// A flow, both ways: what was sent on each side of the node.
struct Sent {
    /// By the client, and how the backend got it.
    request: (Packet, Packet),
    /// By the backend, and how the client got it.
    reply: (Packet, Packet),
}

fn open(traffic: Traffic, world: &mut World) -> Sent {
    traffic.serve(world, &[2]);
    let request = Packet {
        payload: vec![7; 64],
        ..traffic.request(PORT, ACK)
    };
    let sent = traffic.establish(world, &request).unwrap();
    let sent = Packet {
        flags: request.flags,
        ..sent
    };
    let reply = answer_to(&sent, ACK);
    let got = at_client(&request, &reply);
    Sent {
        request: (request, sent),
        reply: (reply, got),
    }
}

/// Every kind of error, whatever is quoted of the transport header, from a router on the way and
/// from the one that the packet was sent to.
#[test]
fn translated_both_ways() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let sent = open(traffic, world);
            let (request, at_backend) = &sent.request;
            let (reply, at_client) = &sent.reply;
            let router = if traffic.v6 { "fd00::77" } else { "192.0.2.77" };
            let backend = traffic.backend(2);
            for kind in kinds(traffic) {
                for length in [8, 12, 19, 20, 28, 500] {
                    for from in [router, &backend] {
                        // The quote is as the packet arrived: with one hop less than it left with.
                        let error = message(
                            traffic,
                            from,
                            traffic.node(),
                            *kind,
                            &quote(at_backend, length),
                        );
                        let seen = Packet {
                            ttl: at_backend.ttl,
                            ..request.clone()
                        };
                        let out = Message {
                            macs: (request.smac, FRONT_MAC),
                            src: ip(traffic.vip()),
                            dst: ip(traffic.client()),
                            ttl: 59,
                            body: quote(&seen, length),
                            ..error.clone()
                        };
                        let what = format!("{traffic:?}, {kind:?} of {length} from {from}");
                        let out = trim(out, &error, traffic, length);
                        Row::changed(what, Side::Back, error.build(), ForwardError, out)
                            .check(world);
                    }
                    for from in [router, traffic.client()] {
                        let error = message(
                            traffic,
                            from,
                            traffic.vip(),
                            *kind,
                            &quote(at_client, length),
                        );
                        let seen = Packet {
                            ttl: at_client.ttl,
                            ..reply.clone()
                        };
                        let out = Message {
                            macs: (backend_mac(2), BACK_MAC),
                            src: ip(traffic.node()),
                            dst: ip(&backend),
                            ttl: 59,
                            body: quote(&seen, length),
                            ..error.clone()
                        };
                        let what = format!("{traffic:?}, {kind:?} of {length} about a reply");
                        let out = trim(out, &error, traffic, length);
                        Row::changed(what, Side::Front, error.build(), ForwardError, out)
                            .check(world);
                    }
                }
            }
        }
    })
    .unwrap();
}

/// A TCP checksum that is quoted in part of the header only stays as it is (so does nf_nat leave
/// it).
fn trim(mut out: Message, error: &Message, traffic: Traffic, length: usize) -> (u32, Vec<u8>) {
    let header = if traffic.v6 { 40 } else { 20 };
    if traffic.tcp && length < 20 {
        let from = (header + 16).min(out.body.len());
        out.body.splice(from.., error.body[from..].iter().copied());
    }
    (action::REDIRECT, out.build())
}

/// Options and extension headers, in the error and in the quote; UDP without a checksum.
#[test]
fn odd_quotes() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let sent = open(traffic, world);
            let (request, at_backend) = &sent.request;
            let node = traffic.node();
            let kind = kinds(traffic)[0];
            let (mut before, mut after) = (at_backend.clone(), request.clone());
            after.ttl = before.ttl;
            if !traffic.v6 {
                before.options = vec![1; 12];
                after.options = vec![1; 12];
            }
            let (mut before, mut after) = (before.build(), after.build());
            if traffic.v6 {
                let options: &[(u8, &[u8])] = &[(0, &[0, 1, 4, 0, 0, 0, 0]), (60, &[1; 15])];
                before = extended(before, options);
                after = extended(after, options);
            }
            let from = traffic.backend(2);
            let error = message(traffic, &from, node, kind, &before[L3..]);
            let out = Message {
                macs: (request.smac, FRONT_MAC),
                src: ip(traffic.vip()),
                dst: ip(traffic.client()),
                ttl: 59,
                body: after[L3..].to_vec(),
                ..error.clone()
            };
            let out = (action::REDIRECT, out.build());
            let what = format!("{traffic:?}, options in the quote");
            Row::changed(what, Side::Back, error.build(), ForwardError, out).check(world);
            if traffic.tcp {
                continue;
            }
            let (mut before, mut after) = (at_backend.clone(), request.clone());
            (before.no_checksum, after.no_checksum, after.ttl) = (true, true, before.ttl);
            let error = message(traffic, &from, node, kind, &quote(&before, 40));
            let out = Message {
                macs: (request.smac, FRONT_MAC),
                src: ip(traffic.vip()),
                dst: ip(traffic.client()),
                ttl: 59,
                body: quote(&after, 40),
                ..error.clone()
            };
            let out = (action::REDIRECT, out.build());
            let what = format!("{traffic:?}, no checksum");
            Row::changed(what, Side::Back, error.build(), ForwardError, out).check(world);
        }
    })
    .unwrap();
}

/// What is no error about a flow, and what cannot go on.
#[test]
fn left_alone() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let sent = open(traffic, world);
            let (request, at_backend) = &sent.request;
            let node = traffic.node();
            let from = traffic.backend(2);
            let kind = kinds(traffic)[0];
            let whole = quote(at_backend, 28);
            let error = message(traffic, &from, node, kind, &whole);
            let unknown = quote(
                &Packet {
                    sport: PORT + 1,
                    ..at_backend.clone()
                },
                28,
            );
            let elsewhere = quote(
                &Packet {
                    src: ip(traffic.client()),
                    ..at_backend.clone()
                },
                28,
            );
            let other = quote(
                &Packet {
                    proto: 47,
                    ..at_backend.clone()
                },
                8,
            );
            let other_kinds: &[[u8; 2]] = if traffic.v6 {
                &[[135, 0], [136, 0], [134, 0], [130, 0], [129, 0], [100, 0]]
            } else {
                &[[0, 0], [4, 0], [5, 0], [9, 0], [13, 0]]
            };
            let body = |body: &[u8]| {
                Message {
                    body: body.to_vec(),
                    ..error.clone()
                }
                .build()
            };
            let mut rows = vec![
                ("no such flow".to_owned(), body(&unknown), PassForeign),
                (
                    "about another's packet".into(),
                    body(&elsewhere),
                    PassForeign,
                ),
                ("of another protocol".into(), body(&other), PassForeign),
                (
                    "a quote of 7 bytes".into(),
                    body(&quote(at_backend, 7)),
                    PassMalformed,
                ),
                ("nothing quoted".into(), body(&[]), PassMalformed),
                (
                    "a version that lies".into(),
                    body(&[&[0x10], &whole[1..]].concat()),
                    PassMalformed,
                ),
                (
                    "its last hop".into(),
                    Message {
                        ttl: 1,
                        ..error.clone()
                    }
                    .build(),
                    DropTtlExceeded,
                ),
            ];
            for kind in other_kinds {
                let frame = Message {
                    kind: *kind,
                    ..error.clone()
                }
                .build();
                rows.push((format!("kind {kind:?}"), frame, PassForeign));
            }
            for (what, frame, verdict) in rows {
                Row::refused(format!("{traffic:?}, {what}"), Side::Back, frame, verdict)
                    .check(world);
            }
            // Cut anywhere, it is never mistaken for another.
            let frame = error.build();
            for length in shortest(world, traffic.v6)..frame.len() {
                let what = format!("{traffic:?}, cut at {length}");
                Row::refused(what, Side::Back, frame[..length].to_vec(), PassMalformed)
                    .check(world);
            }
            // No state has changed by all that: the next SYN of the client finds its flow.
            let again = world
                .request(&Packet {
                    flags: SYN,
                    ..request.clone()
                })
                .packet();
            assert_eq!(again.sport, at_backend.sport);
        }
    })
    .unwrap();
}
