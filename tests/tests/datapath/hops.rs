//! Next hops that XDP cannot send to, and those on the node itself.

use lb_common::{
    entry::hop_flags::{LOCAL, NEIGHBOUR, NO_TX, NO_XDP},
    verdict::Verdict::{ForwardReply, ForwardRequest, PassForeign, PassUnresolved},
};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{Hook, World, action, answer_to},
};

use crate::{
    memory,
    row::{Row, Side, check_all},
    traffic::{ALL, Traffic, at_client, ip},
};

const PORT: u16 = 20_777;

pub(crate) fn flag_backend(world: &World, traffic: Traffic, flags: u32) {
    let hop = memory::hop_of(world, traffic.backend_id(2));
    memory::set_hop_flags(world, hop, flags);
}

/// XDP hands over what an interface takes none of from it; tc sends it like any other.
#[test]
fn interfaces_that_take_nothing_from_xdp() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, SYN);
            let sent = traffic.at_backend(&request, 2, PORT);
            let answer = answer_to(&sent, SYN | ACK);
            let got = at_client(&request, &answer);
            for flags in [NO_XDP, NO_XDP | NO_TX] {
                flag_backend(world, traffic, flags);
                memory::set_hop_flags(world, 0, flags);
                let rows = [
                    (Side::Front, &request, ForwardRequest, &sent),
                    (Side::Back, &answer, ForwardReply, &got),
                ];
                for (side, packet, verdict, out) in rows {
                    let what = format!("{traffic:?}, flags {flags}, {side:?}");
                    match world.hook {
                        Hook::Xdp => Row::refused(what, side, packet.build(), PassUnresolved),
                        Hook::Tc => {
                            let out = (action::REDIRECT, out.clone());
                            Row::forwarded(what, side, packet, verdict, out)
                        }
                    }
                    .check(world);
                }
                // Back out of the interface it came by: XDP can, unless it goes to a peer that
                // does not poll.
                let own = traffic.packet((&traffic.backend(9), PORT + 1), (traffic.vip(), 80), SYN);
                let sent = traffic.at_backend(&own, 2, PORT + 1);
                let what = format!("{traffic:?}, flags {flags}, one interface");
                if world.hook == Hook::Xdp && flags & NO_TX != 0 {
                    Row::refused(what, Side::Back, own.build(), PassUnresolved)
                } else {
                    let out = (action::TX, sent);
                    Row::forwarded(what, Side::Back, &own, ForwardRequest, out)
                }
                .check(world);
                // As other interfaces than veths are, and as veths.
                for (flags, way) in [(0, action::TX), (NO_TX, action::REDIRECT)] {
                    flag_backend(world, traffic, flags);
                    let out = (way, traffic.at_backend(&own, 2, PORT + 1));
                    let what = format!("{traffic:?}, flags {flags}, one interface");
                    Row::forwarded(what, Side::Back, &own, ForwardRequest, out).check(world);
                }
                memory::set_hop_flags(world, 0, 0);
            }
        }
    })
    .unwrap();
}

/// To an unknown neighbour tc sends the packet by the kernel, which writes the link addresses.
#[test]
fn unknown_neighbours() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            flag_backend(world, traffic, NEIGHBOUR);
            let request = traffic.request(PORT, SYN);
            let what = format!("{traffic:?}");
            match world.hook {
                Hook::Xdp => Row::refused(what, Side::Front, request.build(), PassUnresolved),
                Hook::Tc => {
                    let out = Packet {
                        dmac: request.dmac,
                        smac: request.smac,
                        ..traffic.at_backend(&request, 2, PORT)
                    };
                    let out = (action::REDIRECT, out);
                    Row::forwarded(what, Side::Front, &request, ForwardRequest, out)
                }
            }
            .check(world);
            flag_backend(world, traffic, 0);
        }
    })
    .unwrap();
}

/// What a process of the node gets: another destination, and nothing else changed. Its reply is
/// met at egress, and nowhere else.
#[test]
fn processes_of_the_node() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let id = traffic.backend_id(2);
            memory::change_backend(world, id, |entry| entry.source = entry.addr);
            flag_backend(world, traffic, LOCAL);
            memory::allow_local(world, &traffic.backend(2), 8080);
            // Any port of the client's is kept, and any TTL will do.
            for (port, ttl) in [(PORT, 64), (80, 1), (65_535, 255)] {
                let request = Packet {
                    ttl,
                    ..traffic.request(port, SYN)
                };
                let there = Packet {
                    dst: ip(&traffic.backend(2)),
                    dport: 8080,
                    ..request.clone()
                };
                let answer = answer_to(&there, SYN | ACK);
                let back = Packet {
                    src: ip(traffic.vip()),
                    sport: 80,
                    ..answer.clone()
                };
                let what = format!("{traffic:?}, port {port}, TTL {ttl}");
                let out = (action::PASS, there);
                check_all(
                    world,
                    [
                        Row::forwarded(&what, Side::Front, &request, ForwardRequest, out),
                        Row::refused(
                            "the reply, from outside",
                            Side::Front,
                            answer.build(),
                            PassForeign,
                        ),
                    ],
                );
                let before = world.counted(ForwardReply);
                let (action, frame) = world
                    .datapath
                    .test_run_egress(&answer.build(), world.front)
                    .unwrap();
                assert_eq!((action, frame), (u32::MAX, back.build()), "{what}");
                assert_eq!(world.counted(ForwardReply), before + 1, "{what}");
            }
            // What is no reply leaves as it is, and is not counted.
            let stray = traffic.packet((&traffic.backend(2), 8080), (traffic.client(), 1234), ACK);
            let verdicts = lb_agent::domain::kernel::Kernel::verdicts(&world.datapath).unwrap();
            let (action, frame) = world
                .datapath
                .test_run_egress(&stray.build(), world.front)
                .unwrap();
            assert_eq!((action, frame), (u32::MAX, stray.build()));
            let after = lb_agent::domain::kernel::Kernel::verdicts(&world.datapath).unwrap();
            assert_eq!(after, verdicts);
        }
    })
    .unwrap();
}
