//! Packets for a service that get no further, or not by us, and leave as they came.

use lb_agent::domain::kernel::Step;
use lb_common::verdict::Verdict::{
    DropNoBackend, DropNoFlow, DropTtlExceeded, ForwardReply, ForwardRequest, PassForeign,
    PassUnknownReply, PassUnresolved,
};
use lb_tests::{
    packet::{ACK, FIN, Packet, RST, SYN},
    world::{World, action, answer_to},
};

use crate::{
    memory,
    row::{Row, Side, check_all},
    traffic::{ALL, Traffic, VIP_PORT, at_client},
};

const PORT: u16 = 20_321;

/// A request that is refused whatever its flow hash, so that all slots of a table are met.
fn refused_from_everywhere(
    world: &mut World,
    traffic: Traffic,
    what: &str,
    verdict: lb_common::verdict::Verdict,
) {
    for port in 40_000..40_100 {
        let frame = traffic.request(port, SYN).build();
        Row::refused(format!("{traffic:?}, {what}"), Side::Front, frame, verdict).check(world);
    }
}

/// A service without a backend that takes new flows refuses them; the flows there are go on.
#[test]
fn no_backend() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[]);
            refused_from_everywhere(world, traffic, "never had any", DropNoBackend);

            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            let sent = traffic.establish(world, &request).unwrap();
            let goes_on = |what: &str| {
                let out = (
                    action::REDIRECT,
                    traffic.at_backend(&request, 2, sent.sport),
                );
                let row = Row::forwarded(what, Side::Front, &request, ForwardRequest, out);
                // UDP flows do not stay with a backend that is out of service.
                move |world: &mut World| {
                    if traffic.tcp {
                        row.check(world);
                    }
                }
            };
            world.apply(&[traffic.put_backend(2, false)]).unwrap();
            refused_from_everywhere(world, traffic, "inactive, table as before", DropNoBackend);
            goes_on("the backend is inactive")(world);

            world.apply(&[traffic.put_table(&[])]).unwrap();
            refused_from_everywhere(world, traffic, "the table was emptied", DropNoBackend);
            goes_on("the table is empty")(world);

            world.apply(&[Step::DeleteTable(traffic.id())]).unwrap();
            refused_from_everywhere(world, traffic, "the table was deleted", DropNoBackend);
            goes_on("the table is gone")(world);
        }
    })
    .unwrap();
}

/// A backend whose link address is unknown: the stack gets the packet, and no flow is made.
#[test]
fn unresolved_next_hop() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            // Of this address there is no neighbour entry.
            traffic.serve(world, &[77]);
            refused_from_everywhere(world, traffic, "unresolved", PassUnresolved);
            let census = world.datapath.flows().sweep().unwrap();
            assert_eq!((census.used4, census.used6), Default::default());
        }
    })
    .unwrap();
}

/// A backend whose next hop is known before the agent has chosen the source: no flow is begun with
/// a source of zeros.
#[test]
fn no_source_yet() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            memory::change_backend(world, traffic.backend_id(2), |entry| entry.source = [0; 4]);
            refused_from_everywhere(world, traffic, "no source", PassUnresolved);
        }
    })
    .unwrap();
}

/// A packet that would leave with a hop count of zero goes nowhere, in either direction; where
/// this node is its destination, the count does not matter.
#[test]
fn hop_count_at_its_end() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, SYN);
            let answer = answer_to(&traffic.at_backend(&request, 2, PORT), SYN | ACK);
            let with_ttl = |packet: &Packet, ttl| Packet {
                ttl,
                ..packet.clone()
            };
            // To a whole link, so that nobody is told; whom it is told, see `answers`.
            let expired = |what: &str, side, packet: &Packet, ttl| {
                let packet = Packet {
                    dmac: [0xff; 6],
                    ..packet.clone()
                };
                let frame = with_ttl(&packet, ttl).build();
                Row::refused(format!("{traffic:?}, {what}"), side, frame, DropTtlExceeded)
            };
            let sent = (action::REDIRECT, traffic.at_backend(&request, 2, PORT));
            let got = (action::REDIRECT, at_client(&request, &answer));
            check_all(
                world,
                [
                    expired("no flow yet", Side::Front, &request, 1),
                    expired("no flow yet, zero", Side::Front, &request, 0),
                    Row::forwarded("opens", Side::Front, &request, ForwardRequest, sent.clone()),
                    expired("a known flow", Side::Front, &request, 1),
                    expired("a known flow, zero", Side::Front, &request, 0),
                    expired("a reply", Side::Back, &answer, 1),
                    expired("a reply, zero", Side::Back, &answer, 0),
                    Row::forwarded("goes on", Side::Front, &request, ForwardRequest, sent),
                    Row::forwarded("goes on", Side::Back, &answer, ForwardReply, got),
                ],
            );
            let to_node = with_ttl(&traffic.stray(2, 25_000, ACK), 1).build();
            let vip = traffic.vip();
            let other_port = with_ttl(
                &traffic.packet((traffic.client(), PORT), (vip, 25_000), SYN),
                1,
            )
            .build();
            let foreign =
                with_ttl(&traffic.packet((traffic.client(), PORT), (vip, 81), SYN), 1).build();
            check_all(
                world,
                [
                    Row::refused("the node's own", Side::Back, to_node, PassUnknownReply),
                    Row::refused("no service", Side::Front, other_port, PassUnknownReply),
                    Row::refused("no service", Side::Front, foreign, PassForeign),
                ],
            );
        }
    })
    .unwrap();
}

/// A reset of nothing makes no flow; anything else in the middle of a connection does.
#[test]
fn without_a_flow() {
    World::on_each_hook(|world| {
        for traffic in ALL.into_iter().filter(|traffic| traffic.tcp) {
            traffic.serve(world, &[2]);
            for (index, flags) in [RST, RST | ACK, RST | SYN].into_iter().enumerate() {
                let frame = traffic.request(20_000 + index as u16, flags).build();
                Row::refused("a reset", Side::Front, frame, DropNoFlow).check(world);
            }
            for (index, flags) in [ACK, FIN | ACK, SYN | ACK, 0].into_iter().enumerate() {
                let port = 20_010 + index as u16;
                let request = traffic.request(port, flags);
                let out = (action::REDIRECT, traffic.at_backend(&request, 2, port));
                let what = format!("flags {flags:#x} out of the blue");
                Row::forwarded(what, Side::Front, &request, ForwardRequest, out).check(world);
            }
            let half_open = lb_common::flow::State::HalfOpen;
            assert_eq!(crate::traffic::used(world, traffic.v6, half_open), 8);
            // Of a service that does not exist even a reset is none of ours.
            let foreign =
                traffic.packet((traffic.client(), PORT), (traffic.vip(), VIP_PORT + 1), RST);
            Row::refused("no service", Side::Front, foreign.build(), PassForeign).check(world);
        }
    })
    .unwrap();
}
