//! Traffic that is none of ours, or of which only the stack can make something.

use lb_common::verdict::Verdict::{self, PassForeign, PassNotIp, PassUnknownReply};
use lb_tests::{
    frame::tagged,
    packet::{ACK, Packet, RST, SYN},
    world::World,
};

use crate::{
    row::{Row, Side, check_all},
    traffic::{ALL, TCP4, TCP6, Traffic, VIP_PORT, ip},
};

const PORT: u16 = 20_099;

/// The frame with another EtherType.
fn ethertype(mut frame: Vec<u8>, ethertype: u16) -> Vec<u8> {
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    frame
}

/// The packet as one of another protocol, its checksums aside.
fn protocol(packet: &Packet, proto: u8) -> Vec<u8> {
    let mut frame = packet.build();
    let at = if packet.src.is_ipv6() { 20 } else { 23 };
    frame[at] = proto;
    frame
}

/// Other link protocols, other destinations, other ports, other protocols.
#[test]
fn none_of_ours() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
        }
        for traffic in ALL {
            // A flow there is, whose packets could be mistaken for these.
            let request = traffic.request(PORT, ACK);
            traffic.establish(world, &request).unwrap();
            let mut rows: Vec<(&str, Vec<u8>, Verdict)> = Vec::new();
            let frame = request.build();
            for (what, value) in [("ARP", 0x0806), ("LLDP", 0x88cc), ("MPLS", 0x8847)] {
                rows.push((what, ethertype(frame.clone(), value), PassNotIp));
            }
            rows.push(("802.3 length", ethertype(frame.clone(), 46), PassNotIp));
            let tags = [(0x88a8, 1), (0x8100, 2), (0x8100, 3)];
            rows.push(("three tags", tagged(frame, &tags), PassNotIp));

            let odd = |change: &dyn Fn(&mut Packet)| {
                let mut packet = request.clone();
                change(&mut packet);
                packet.build()
            };
            let elsewhere = if traffic.v6 {
                "2001:db8::99"
            } else {
                "198.51.100.99"
            };
            let client = ip(traffic.client());
            rows.extend([
                (
                    "other address",
                    odd(&|p| p.dst = ip(elsewhere)),
                    PassForeign,
                ),
                ("to the client", odd(&|p| p.dst = client), PassForeign),
                ("other port", odd(&|p| p.dport = VIP_PORT + 1), PassForeign),
                ("no port", odd(&|p| p.dport = 0), PassForeign),
                ("above the range", odd(&|p| p.dport = 30_000), PassForeign),
                ("below the range", odd(&|p| p.dport = 19_999), PassForeign),
                ("in the range", odd(&|p| p.dport = 20_000), PassUnknownReply),
                ("in the range", odd(&|p| p.dport = 29_999), PassUnknownReply),
            ]);
            for (what, proto) in [
                ("ICMP", 1),
                ("ICMPv6", 58),
                ("SCTP", 132),
                ("ESP", 50),
                ("IPIP", 4),
                ("protocol 255", 255),
            ] {
                rows.push((what, protocol(&request, proto), PassForeign));
            }
            let rows = rows.into_iter().map(|(what, frame, verdict)| {
                Row::refused(format!("{traffic:?}, {what}"), Side::Front, frame, verdict)
            });
            check_all(world, rows);

            // To the node itself: its own services, and ports that flows may be given.
            let known = traffic.stray(2, PORT, ACK);
            let odd = |change: &dyn Fn(&mut Packet)| {
                let mut packet = known.clone();
                change(&mut packet);
                packet.build()
            };
            let other_backend = ip(&traffic.backend(3));
            let rows = [
                ("SSH", odd(&|p| p.dport = 22), PassForeign),
                ("the VIP's port", odd(&|p| p.dport = VIP_PORT), PassForeign),
                ("above the range", odd(&|p| p.dport = 30_000), PassForeign),
                ("no flow", odd(&|p| p.dport = 20_500), PassUnknownReply),
                (
                    "no flow, reset",
                    odd(&|p| (p.dport, p.flags) = (20_500, RST)),
                    PassUnknownReply,
                ),
                (
                    "no flow, SYN",
                    odd(&|p| (p.dport, p.flags) = (20_500, SYN)),
                    PassUnknownReply,
                ),
                (
                    "other source",
                    odd(&|p| p.src = other_backend),
                    PassUnknownReply,
                ),
                (
                    "other source port",
                    odd(&|p| p.sport = 8081),
                    PassUnknownReply,
                ),
            ];
            let rows = rows.into_iter().map(|(what, frame, verdict)| {
                Row::refused(format!("{traffic:?}, {what}"), Side::Back, frame, verdict)
            });
            check_all(world, rows);
            let other_proto = Traffic {
                tcp: !traffic.tcp,
                ..traffic
            };
            let other = other_proto.stray(2, PORT, ACK).build();
            world
                .datapath
                .flows()
                .cut_clients(&["::/0", "0.0.0.0/0"].map(|p| p.parse().unwrap()))
                .unwrap();
            traffic.establish(world, &request).unwrap();
            Row::refused("other protocol", Side::Back, other, PassUnknownReply).check(world);
        }
    })
    .unwrap();
}

/// The VIP of one protocol is none of the other's.
#[test]
fn one_protocol_only() {
    World::with(|world| {
        for traffic in [TCP4, TCP6] {
            traffic.serve(world, &[2]);
            let udp = Traffic {
                tcp: false,
                ..traffic
            };
            let frame = udp.request(PORT, 0).build();
            Row::refused("UDP to a TCP service", Side::Front, frame, PassForeign).check(world);
        }
    })
    .unwrap();
}
