//! The trace: what is told of a packet, and of which packets.

use lb_agent::{
    datapath::Trace,
    domain::{
        kernel::Kernel as _,
        trace::{Ends, PacketEvent, PacketFilter, PacketProtocol, Tap as _, VerdictSet},
    },
};
use lb_common::verdict::Verdict;
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{World, answer_to},
};

use crate::{
    row::{Side, run},
    traffic::{ALL, TCP4, TCP6},
};

const PORT: u16 = 20_444;

pub(crate) fn everything() -> PacketFilter {
    PacketFilter::everything(u32::MAX)
}

/// The trace of a world, with this filter on.
pub(crate) fn watch(world: &mut World, filter: &PacketFilter) -> Trace {
    let mut trace = world.datapath.take_trace().expect("not taken yet");
    trace.set(0, Some(filter)).unwrap();
    trace.switch(true).unwrap();
    trace
}

pub(crate) fn told(trace: &mut Trace) -> Vec<PacketEvent> {
    let mut events = Vec::new();
    trace.drain(usize::MAX, &mut |event| events.push(event));
    events
}

/// The one event there is.
pub(crate) fn one(trace: &mut Trace) -> PacketEvent {
    let mut events = told(trace);
    assert_eq!(events.len(), 1, "{events:?}");
    events.swap_remove(0)
}

pub(crate) fn ends(packet: &Packet) -> Ends {
    Ends {
        src: (packet.src, packet.sport).into(),
        dst: (packet.dst, packet.dport).into(),
    }
}

/// Both directions of every kind of traffic: the addresses it came in with, although the frame has
/// been rewritten since, those it left with, the backend, and the bytes as they came.
#[test]
fn forwarded_packets() {
    World::with(|world| {
        let filter = PacketFilter {
            snap: 256,
            ..everything()
        };
        let mut trace = watch(world, &filter);
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, SYN);
            let sent = world.request(&request).packet();
            let event = one(&mut trace);
            assert_eq!(event.verdict, Verdict::ForwardRequest, "{traffic:?}");
            assert_eq!(event.ingress, world.front);
            assert_eq!(event.protocol, Some(traffic.proto()));
            assert_eq!(event.ends, Some(ends(&request)), "{traffic:?}");
            assert_eq!(event.sent, Some(ends(&sent)), "{traffic:?}");
            assert_eq!(event.backend, Some(traffic.backend_id(2)));
            assert_eq!(event.flags, if traffic.tcp { SYN } else { 0 });
            let frame = request.build();
            assert_eq!(event.length as usize, frame.len());
            assert_eq!(event.bytes, frame, "{traffic:?}");
            assert!(event.at.elapsed().unwrap().as_secs() < 60);

            let answer = answer_to(&sent, SYN | ACK);
            let returned = world.reply(&answer).packet();
            let event = one(&mut trace);
            assert_eq!(event.verdict, Verdict::ForwardReply, "{traffic:?}");
            assert_eq!(event.ingress, world.back);
            assert_eq!(event.ends, Some(ends(&answer)), "{traffic:?}");
            assert_eq!(event.sent, Some(ends(&returned)), "{traffic:?}");
            assert_eq!(event.backend, Some(traffic.backend_id(2)));
            assert_eq!(event.bytes, answer.build());
        }
    })
    .unwrap();
}

/// Rows of frames that are not forwarded, and what is told of each.
#[test]
fn other_verdicts() {
    World::with(|world| {
        let mut trace = watch(world, &everything());
        for traffic in [TCP4, TCP6] {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, SYN);
            let l4 = if traffic.v6 { 54 } else { 34 };
            let mut arp = vec![0xff; 42];
            arp[12..14].copy_from_slice(&[8, 6]);
            let mut icmp = request.build();
            icmp[if traffic.v6 { 20 } else { 23 }] = if traffic.v6 { 58 } else { 1 };
            icmp[l4] = 9;
            icmp[l4 + 1] = 3;
            let mut tagged = request.build();
            tagged.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7]);
            let elsewhere = if traffic.v6 {
                "2001:db8::99"
            } else {
                "198.51.100.99"
            };
            let foreign = traffic.packet((traffic.client(), 1), (elsewhere, 2), ACK);
            // What, frame, protocol, ICMP, has ports.
            let rows = [
                ("ARP", arp, None, [0, 0], false),
                (
                    "ICMP",
                    icmp.clone(),
                    Some(icmp[if traffic.v6 { 20 } else { 23 }]),
                    [9, 3],
                    false,
                ),
                ("three VLAN tags", tagged, None, [0, 0], false),
                ("foreign", foreign.build(), Some(6), [0, 0], true),
                (
                    "cut short",
                    request.build()[..l4 + 2].to_vec(),
                    Some(6),
                    [0, 0],
                    false,
                ),
                (
                    "no header",
                    request.build()[..20].to_vec(),
                    None,
                    [0, 0],
                    false,
                ),
                (
                    "nothing",
                    request.build()[..14].to_vec(),
                    None,
                    [0, 0],
                    false,
                ),
            ];
            for (what, frame, protocol, icmp, has_ports) in rows {
                let outcome = run(world, Side::Front, &frame).unwrap();
                let event = one(&mut trace);
                assert_eq!(event.verdict, outcome.verdict, "{traffic:?} {what}");
                assert_eq!(event.length as usize, frame.len(), "{traffic:?} {what}");
                assert_eq!(event.protocol, protocol, "{traffic:?} {what}");
                assert_eq!((event.icmp, event.has_ports), (icmp, has_ports), "{what}");
                assert_eq!((event.sent, event.backend), (None, None), "{what}");
                assert!(event.bytes.is_empty(), "nobody asked for them");
            }
            let net = format!("{}/{}", traffic.client(), if traffic.v6 { 128 } else { 32 });
            world.datapath.block(&[net.parse().unwrap()]).unwrap();
            world.request(&request);
            let event = one(&mut trace);
            assert_eq!(event.verdict, Verdict::DropBlocked);
            assert_eq!(event.ends, Some(ends(&request)));
        }
    })
    .unwrap();
}

/// Behind IPv6 extension headers and in fragments, ports are told of where they are.
#[test]
fn extension_headers_and_fragments() {
    World::with(|world| {
        let mut trace = watch(world, &everything());
        let request = TCP6.request(PORT, SYN);
        let mut options = request.build();
        // Hop-by-hop of 16 bytes, then destination options of 8.
        options.splice(54..54, [60, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        options.splice(70..70, [6, 0, 1, 4, 0, 0, 0, 0]);
        options[20] = 0;
        options[19] += 24;
        run(world, Side::Front, &options).unwrap();
        let event = one(&mut trace);
        assert_eq!(event.ends, Some(ends(&request)));
        assert_eq!((event.protocol, event.flags), (Some(6), SYN));
        for (offset, has_ports) in [(1, true), (1 | 8, false)] {
            let mut fragment = request.build();
            fragment.splice(54..54, [6, 0, 0, offset, 0, 0, 0, 1]);
            fragment[20] = 44;
            fragment[19] += 8;
            run(world, Side::Front, &fragment).unwrap();
            let event = one(&mut trace);
            assert!(event.fragment);
            assert_eq!(event.has_ports, has_ports);
        }
        let request = TCP4.request(PORT, SYN);
        for (field, has_ports) in [(0x2000, true), (0x2001, false)] {
            let fragment = Packet {
                fragment: field,
                ..request.clone()
            };
            run(world, Side::Front, &fragment.build()).unwrap();
            let event = one(&mut trace);
            assert!(event.fragment);
            assert_eq!(event.has_ports, has_ports);
        }
    })
    .unwrap();
}

/// The kernel's filter and the agent's own agree, packet by packet.
#[test]
fn filters() {
    World::with(|world| {
        let mut trace = world.datapath.take_trace().unwrap();
        trace.switch(true).unwrap();
        let net = |text: &str| Some(text.parse().unwrap());
        let named = |name| VerdictSet::named([name]).unwrap();
        for traffic in ALL {
            traffic.serve(world, &[2]);
        }
        let filters = [
            everything(),
            PacketFilter {
                src: net("10.99.0.0/24"),
                ..everything()
            },
            PacketFilter {
                src: net("10.99.0.3/32"),
                ..everything()
            },
            PacketFilter {
                src: net("fd99::/127"),
                ..everything()
            },
            PacketFilter {
                src: net("fd99::2/127"),
                dst: net("2001:db8::/32"),
                ..everything()
            },
            PacketFilter {
                src: net("0.0.0.0/0"),
                ..everything()
            },
            PacketFilter {
                src: net("::/0"),
                ..everything()
            },
            PacketFilter {
                dst: net("10.99.1.2/32"),
                ..everything()
            },
            PacketFilter {
                dst: net("198.51.100.10/32"),
                ..everything()
            },
            PacketFilter {
                verdicts: named("drop"),
                ..everything()
            },
            PacketFilter {
                verdicts: named("forward"),
                ..everything()
            },
            PacketFilter {
                verdicts: named("not_ip"),
                ..everything()
            },
            PacketFilter {
                protocol: Some(PacketProtocol::Tcp),
                ..everything()
            },
            PacketFilter {
                protocol: Some(PacketProtocol::Udp),
                ..everything()
            },
            PacketFilter {
                protocol: Some(PacketProtocol::Icmp),
                ..everything()
            },
            PacketFilter {
                port: Some(80),
                ..everything()
            },
            PacketFilter {
                port: Some(8080),
                ..everything()
            },
            PacketFilter {
                port: Some(PORT),
                ..everything()
            },
            PacketFilter {
                port: Some(1),
                ..everything()
            },
        ];
        let mut frames = Vec::new();
        for traffic in ALL {
            frames.push(traffic.request(PORT, SYN).build());
            frames.push(
                Packet {
                    ttl: 1,
                    ..traffic.request(PORT, ACK)
                }
                .build(),
            );
            frames.push(
                traffic
                    .packet((traffic.client(), 1), (traffic.node(), 22), ACK)
                    .build(),
            );
            let mut icmp = traffic.request(PORT, SYN).build();
            icmp[if traffic.v6 { 20 } else { 23 }] = if traffic.v6 { 58 } else { 1 };
            frames.push(icmp);
        }
        let mut arp = vec![0; 42];
        arp[12..14].copy_from_slice(&[8, 6]);
        frames.push(arp);
        for frame in frames {
            trace.set(0, Some(&everything())).unwrap();
            for filter in &filters {
                trace.set(1, Some(filter)).unwrap();
                let before = trace.counts().unwrap()[1].events;
                run(world, Side::Front, &frame).unwrap();
                let event = one(&mut trace);
                let counted = trace.counts().unwrap()[1].events - before;
                assert_eq!(counted == 1, filter.wants(&event), "{filter:?} {event:?}");
            }
            // Alone, a filter lets nothing else out.
            trace.set(0, None).unwrap();
            for filter in &filters {
                trace.set(1, Some(filter)).unwrap();
                run(world, Side::Front, &frame).unwrap();
                assert!(told(&mut trace).iter().all(|event| filter.wants(event)));
            }
        }
    })
    .unwrap();
}
