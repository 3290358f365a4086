//! What a known flow's packets look like when they leave, in both directions.

use lb_agent::domain::kernel::Kernel as _;
use lb_common::{
    entry::{BackendStats, Counter},
    verdict::Verdict::{ForwardReply, ForwardRequest},
};
use lb_tests::{
    packet::{ACK, FIN, Packet, RST, SYN},
    world::{BACK_MAC, World, action, answer_to, backend_mac},
};

use crate::{
    row::{Row, Side, check_all},
    traffic::{ALL, TCP4, UDP4, at_client},
};

/// The client's port, within the range, so that it is kept.
const PORT: u16 = 20_123;

/// Request and answer of one flow, each with every oddity that must survive the way.
#[test]
fn both_directions_of_every_kind() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let mut requests = vec![
                ("first packet", traffic.request(PORT, SYN)),
                ("repeated", traffic.request(PORT, SYN)),
                ("later packet", traffic.request(PORT, ACK)),
            ];
            let odd = |change: &dyn Fn(&mut Packet)| {
                let mut packet = traffic.request(PORT, ACK);
                change(&mut packet);
                packet
            };
            requests.extend([
                ("nothing in it", odd(&|p| p.payload.clear())),
                ("one byte", odd(&|p| p.payload = vec![0xff])),
                ("an odd length", odd(&|p| p.payload = vec![0xa5; 333])),
                ("all ones", odd(&|p| p.payload = vec![0xff; 1400])),
                ("all zeros", odd(&|p| p.payload = vec![0; 1400])),
                ("the greatest TTL", odd(&|p| p.ttl = 255)),
                ("the smallest TTL that lasts", odd(&|p| p.ttl = 2)),
                ("another link address", odd(&|p| p.smac[5] = 0x77)),
            ]);
            if !traffic.v6 {
                requests.extend([
                    ("an IP option", odd(&|p| p.options = vec![148, 4, 0, 0])),
                    ("all IP options", odd(&|p| p.options = vec![1; 40])),
                    ("do not fragment", odd(&|p| p.fragment = 0x4000)),
                    ("the reserved bit", odd(&|p| p.fragment = 0x8000)),
                ]);
            }
            if !traffic.tcp {
                requests.push(("no checksum", odd(&|p| p.no_checksum = true)));
            }
            let first = requests[0].1.clone();
            let (mut packets, mut bytes) = (0, 0);
            for (what, request) in requests {
                let what = format!("{traffic:?}, {what}");
                let sent = traffic.at_backend(&request, 2, PORT);
                let answer = answer_to(&sent, if packets == 0 { SYN | ACK } else { ACK });
                let got = at_client(&first, &answer);
                packets += 1;
                bytes += request.build().len() as u64;
                let there = (action::REDIRECT, sent);
                Row::forwarded(what.clone(), Side::Front, &request, ForwardRequest, there)
                    .check(world);
                let back = (action::REDIRECT, got);
                Row::forwarded(what, Side::Back, &answer, ForwardReply, back).check(world);
            }
            let counter = Counter { packets, bytes };
            let stats = BackendStats {
                inbound: counter,
                outbound: counter,
                flows: 1,
            };
            let counted = world.datapath.backend_stats(traffic.backend_id(2)).unwrap();
            assert_eq!(counted, stats, "{traffic:?}: counted of the backend");
        }
    })
    .unwrap();
}

/// Every TCP flag goes through as it is.
#[test]
fn flags_and_checksums_of_every_value() {
    World::on_each_hook(|world| {
        TCP4.serve(world, &[2]);
        UDP4.serve(world, &[2]);
        TCP4.establish(world, &TCP4.request(PORT, SYN)).unwrap();
        // RST last: what comes after it is let through, but a SYN begins anew.
        let flags = [0, ACK, ACK | 8, 0x20 | ACK, 0xc0 | ACK, FIN | ACK, RST];
        let rows = flags.map(|flags| {
            let request = TCP4.request(PORT, flags);
            let out = (action::REDIRECT, TCP4.at_backend(&request, 2, PORT));
            let what = format!("flags {flags:#x}");
            Row::forwarded(what, Side::Front, &request, ForwardRequest, out)
        });
        check_all(world, rows);
        // A payload word that counts up takes the checksum through all of its values, or nearly;
        // 0 and 0xffff, the two that are easily mistaken, among them.
        for traffic in [TCP4, UDP4] {
            for word in (0..=u16::MAX).step_by(if traffic.tcp { 97 } else { 89 }) {
                let request = Packet {
                    payload: word.to_be_bytes().to_vec(),
                    ..traffic.request(PORT, ACK)
                };
                let out = (action::REDIRECT, traffic.at_backend(&request, 2, PORT));
                let what = format!("{traffic:?}, payload {word:#06x}");
                Row::forwarded(what, Side::Front, &request, ForwardRequest, out).check(world);
            }
            // The one payload whose checksum comes out as zero on the other side.
            let empty = Packet {
                payload: vec![0, 0],
                ..traffic.request(PORT, ACK)
            };
            let sent = traffic.at_backend(&empty, 2, PORT).build();
            let at = if traffic.tcp { 50 } else { 40 };
            let zero = Packet {
                payload: sent[at..at + 2].to_vec(),
                ..empty
            };
            let out = traffic.at_backend(&zero, 2, PORT);
            let encoded = if traffic.tcp { [0, 0] } else { [0xff, 0xff] };
            assert_eq!(out.build()[at..at + 2], encoded);
            let out = (action::REDIRECT, out);
            let what = format!("{traffic:?}, a checksum of zero");
            Row::forwarded(what, Side::Front, &zero, ForwardRequest, out).check(world);
        }
    })
    .unwrap();
}

/// Clients on the backends' link: in and out by the same interface.
#[test]
fn one_interface_for_both() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let neighbour = traffic.backend(9);
            let request = traffic.packet((&neighbour, PORT), (traffic.vip(), 80), SYN);
            let sent = traffic.at_backend(&request, 2, PORT);
            let answer = answer_to(&sent, SYN | ACK);
            let got = Packet {
                smac: BACK_MAC,
                ..at_client(&request, &answer)
            };
            // A backend that is its own client, by the VIP.
            let own = traffic.packet((&traffic.backend(2), PORT + 1), (traffic.vip(), 80), SYN);
            let own_sent = traffic.at_backend(&own, 2, PORT + 1);
            assert_eq!(own_sent.dmac, backend_mac(2));
            let what = |text: &str| format!("{traffic:?}, {text}");
            check_all(
                world,
                [
                    Row::forwarded(
                        what("request"),
                        Side::Back,
                        &request,
                        ForwardRequest,
                        (action::TX, sent),
                    ),
                    Row::forwarded(
                        what("reply"),
                        Side::Back,
                        &answer,
                        ForwardReply,
                        (action::TX, got),
                    ),
                    Row::forwarded(
                        what("hairpin"),
                        Side::Back,
                        &own,
                        ForwardRequest,
                        (action::TX, own_sent),
                    ),
                ],
            );
        }
    })
    .unwrap();
}

/// Bytes behind the IP packet, as short frames have, stay and do not count.
#[test]
fn padding_behind_the_packet() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = Packet {
                payload: Vec::new(),
                ..traffic.request(PORT, SYN)
            };
            let padding = [0xee; 18];
            let mut frame = request.build();
            frame.extend(padding);
            let front = world.front;
            let outcome = world.run(&frame, front).unwrap();
            assert_eq!(outcome.verdict, ForwardRequest, "{traffic:?}");
            let mut expected = traffic.at_backend(&request, 2, PORT).build();
            expected.extend(padding);
            assert_eq!(outcome.frame, expected, "{traffic:?}");
        }
    })
    .unwrap();
}
