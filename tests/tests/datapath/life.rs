//! A flow's life: which packets keep to it, and which begin a new one.

use lb_agent::domain::kernel::Step;
use lb_common::{
    flow::State,
    verdict::Verdict::{
        DropNoBackend, ForwardReply, ForwardRequest, PassForeign, PassUnknownReply,
    },
};
use lb_tests::{
    direct::Direct,
    packet::{ACK, FIN, Packet, RST, SYN},
    world::{BACK_MAC, World, action, answer_to},
};

use crate::{
    memory,
    row::{Row, Side, check_all},
    traffic::{ALL, Traffic, at_client, forwarded, number_of, used},
};

const PORT: u16 = 20_777;

/// The flow's request goes to this backend, with the client's own port.
fn to_backend(traffic: Traffic, flags: u8, number: u8, what: &str) -> Row<'static> {
    let request = traffic.request(PORT, flags);
    let out = (action::REDIRECT, traffic.at_backend(&request, number, PORT));
    let what = format!("{traffic:?}, {what}");
    Row::forwarded(what, Side::Front, &request, ForwardRequest, out)
}

/// The backend's answer goes to the client.
fn to_client(traffic: Traffic, flags: u8, number: u8, what: &str) -> Row<'static> {
    let request = traffic.request(PORT, flags);
    let answer = answer_to(&traffic.at_backend(&request, number, PORT), flags);
    let out = (action::REDIRECT, at_client(&request, &answer));
    let what = format!("{traffic:?}, {what}");
    Row::forwarded(what, Side::Back, &answer, ForwardReply, out)
}

/// The table decides on first packets only.
#[test]
fn a_flow_keeps_its_backend() {
    World::with(|world| {
        for traffic in ALL {
            let changed = move |world: &mut World| traffic.serve(world, &[3]);
            let inactive = move |world: &mut World| {
                world.apply(&[traffic.put_backend(2, false)]).unwrap();
            };
            traffic.serve(world, &[2]);
            check_all(
                world,
                [
                    to_backend(traffic, SYN, 2, "first packet"),
                    to_backend(traffic, SYN, 2, "half-open, another table").after(changed),
                    to_client(traffic, SYN | ACK, 2, "answer"),
                    to_backend(traffic, SYN, 2, "answered"),
                    to_backend(traffic, ACK, 2, "established"),
                    to_backend(traffic, SYN, 2, "a stray SYN"),
                    to_client(traffic, ACK, 2, "inactive backend").after(inactive),
                ],
            );
            if traffic.tcp {
                check_all(
                    world,
                    [
                        to_backend(traffic, ACK, 2, "inactive backend"),
                        to_backend(traffic, SYN | ACK, 2, "no opening, inactive"),
                        to_backend(traffic, SYN, 3, "a SYN selects anew"),
                        to_backend(traffic, ACK, 3, "and stays"),
                    ],
                );
                let late = traffic.stray(2, PORT, ACK);
                Row::refused("of the former", Side::Back, late.build(), PassUnknownReply)
                    .check(world);
                continue;
            }
            let cut = move |world: &mut World| {
                let id = traffic.backend_id(2);
                world.apply(&[Step::CutUdp(id)]).unwrap();
            };
            to_backend(traffic, 0, 3, "cut: selects anew")
                .after(cut)
                .check(world);
            let late = traffic.stray(2, PORT, 0);
            Row::refused("of the former", Side::Back, late.build(), PassUnknownReply).check(world);
        }
    })
    .unwrap();
}

/// UDP flows of one backend are cut, all others stay: TCP, other backends, other services.
#[test]
fn cut_udp_is_precise() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2, 3]);
        }
        let mut flows = Vec::new();
        for traffic in ALL {
            for port in 22_000..22_020 {
                let request = traffic.request(port, ACK);
                let sent = traffic.establish(world, &request).unwrap();
                flows.push((traffic, request, sent));
            }
        }
        let victim = ALL[1];
        assert!(!victim.tcp);
        // From now on the victim's clients go elsewhere, should their flow be gone.
        world
            .apply(&[
                victim.put_backend(4, true),
                victim.put_table(&[(4, 1)]),
                victim.put_backend(2, false),
                Step::CutUdp(victim.backend_id(2)),
            ])
            .unwrap();
        let mut moved = 0;
        for (traffic, request, sent) in flows {
            let now = forwarded(world.request(&request)).unwrap();
            if traffic == victim && number_of(sent.dst) == 2 {
                assert_eq!(number_of(now.dst), 4);
                moved += 1;
            } else {
                assert_eq!((now.dst, now.sport), (sent.dst, sent.sport), "{traffic:?}");
            }
        }
        assert!(
            moved > 0,
            "none of twenty flows went to one of two backends"
        );
    })
    .unwrap();
}

/// Rows of what was said before, as (from the client?, flags); the state that it leads to; and
/// whether a SYN then begins a new flow.
#[test]
fn states_and_the_next_syn() {
    type Said = (bool, u8);
    const SAYS: Said = (true, ACK);
    const OPEN: [Said; 3] = [(true, SYN), (false, SYN | ACK), SAYS];
    let open = |more: &[Said]| [&OPEN[..], more].concat();
    let rows: Vec<(&str, Vec<Said>, State, bool)> = vec![
        ("SYN", vec![(true, SYN)], State::HalfOpen, false),
        ("SYN, ACK", vec![(true, SYN), SAYS], State::HalfOpen, false),
        ("answered", OPEN[..2].to_vec(), State::Answered, false),
        ("established", open(&[]), State::Established, false),
        (
            "data",
            open(&[(false, ACK), SAYS]),
            State::Established,
            false,
        ),
        (
            "client closes",
            open(&[(true, FIN | ACK)]),
            State::ClosingByClient,
            true,
        ),
        (
            "backend closes",
            open(&[(false, FIN | ACK)]),
            State::ClosingByBackend,
            true,
        ),
        (
            "half-closed, data",
            open(&[(true, FIN | ACK), (false, ACK)]),
            State::ClosingByClient,
            true,
        ),
        (
            "client, then backend",
            open(&[(true, FIN | ACK), (false, FIN | ACK), SAYS]),
            State::Finished,
            true,
        ),
        (
            "backend, then client",
            open(&[(false, FIN | ACK), (true, FIN | ACK), (false, ACK)]),
            State::Finished,
            true,
        ),
        ("client resets", open(&[(true, RST)]), State::Reset, true),
        (
            "backend resets",
            open(&[(false, RST | ACK)]),
            State::Reset,
            true,
        ),
        (
            "refused",
            vec![(true, SYN), (false, RST | ACK)],
            State::Refused,
            true,
        ),
        (
            "reset, data",
            open(&[(true, RST), SAYS]),
            State::Reset,
            true,
        ),
    ];
    World::with(|world| {
        for traffic in ALL.into_iter().filter(|traffic| traffic.tcp) {
            for (what, said, state, anew) in &rows {
                traffic.serve(world, &[2]);
                for (from_client, flags) in said {
                    if *from_client {
                        to_backend(traffic, *flags, 2, what).check(world);
                    } else {
                        to_client(traffic, *flags, 2, what).check(world);
                    }
                }
                // Both halves carry it.
                assert_eq!(used(world, traffic.v6, *state), 2, "{traffic:?}, {what}");
                traffic.serve(world, &[3]);
                to_backend(traffic, ACK, 2, what).check(world);
                to_backend(traffic, SYN, if *anew { 3 } else { 2 }, what).check(world);
                let half_open = used(world, traffic.v6, State::HalfOpen);
                assert_eq!(half_open == 2, *anew || *state == State::HalfOpen, "{what}");
                let all = ["::/0", "0.0.0.0/0"].map(|prefix| prefix.parse().unwrap());
                assert_eq!(
                    world.datapath.flows().cut_clients(&all).unwrap(),
                    1,
                    "{what}"
                );
                // Of a connection that is over the port stays kept; see `ports`.
                Direct::new(world).unwrap().clear();
            }
        }
    })
    .unwrap();
}

/// A closing flow ends with a SYN even where no backend can take the new one.
#[test]
fn no_way_back_to_a_closed_flow() {
    World::with(|world| {
        let traffic = ALL[0];
        traffic.serve(world, &[2]);
        let empty = move |world: &mut World| world.apply(&[traffic.put_table(&[])]).unwrap();
        let syn: Packet = traffic.request(PORT, SYN);
        check_all(
            world,
            [
                to_backend(traffic, SYN, 2, "opens"),
                to_backend(traffic, RST, 2, "resets"),
                Row::refused("anew", Side::Front, syn.build(), DropNoBackend).after(empty),
            ],
        );
        let late = traffic.stray(2, PORT, ACK);
        Row::refused("late answer", Side::Back, late.build(), PassUnknownReply).check(world);
    })
    .unwrap();
}

/// A VIP that is deleted takes no new flows, and the flows there are go on until they end.
#[test]
fn flows_outlive_their_vip() {
    World::with(|world| {
        for traffic in ALL {
            // One of its own, for its next hop goes with it.
            let number = 2 + traffic.id() as u8;
            traffic.serve(world, &[number]);
            let request = traffic.request(PORT, ACK);
            traffic.establish(world, &request).unwrap();
            world
                .apply(&[
                    Step::DeleteVip(traffic.key()),
                    Step::DeleteTable(traffic.id()),
                    traffic.put_backend(number, false),
                ])
                .unwrap();
            check_all(
                world,
                [
                    to_backend(traffic, ACK, number, "the VIP is gone"),
                    to_client(traffic, ACK, number, "the VIP is gone"),
                ],
            );
            let foreign = traffic.request(PORT + 1, SYN).build();
            Row::refused("new", Side::Front, foreign, PassForeign).check(world);
            // With the last backend goes the memory of the VIP.
            let free = Step::FreeBackend(traffic.backend_id(number));
            world.apply(&[free]).unwrap();
            let late = traffic.request(PORT, ACK).build();
            Row::refused("all is gone", Side::Front, late, PassForeign).check(world);
        }
    })
    .unwrap();
}

/// UDP flows leave a backend that is out of service within a second, even if nobody cuts them: an
/// agent may end before it does.
#[test]
fn udp_leaves_an_inactive_backend_uncut() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            traffic.establish(world, &request).unwrap();
            traffic.serve(world, &[3]);
            world.apply(&[traffic.put_backend(2, false)]).unwrap();
            // Of any tick rate, a second and more.
            memory::shift_times(world, -2000);
            let number = if traffic.tcp { 2 } else { 3 };
            to_backend(traffic, ACK, number, "inactive for a while").check(world);
        }
    })
    .unwrap();
}

/// Replies follow the client's packets when another router brings them, or another interface.
#[test]
fn replies_follow_the_client() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            let sent = traffic.establish(world, &request).unwrap();
            let answer = answer_to(&sent, ACK);
            let now = Packet {
                smac: [2, 0, 0, 0, 0, 0x77],
                ..request.clone()
            };
            memory::shift_times(world, -2000);
            forwarded(world.request(&now)).unwrap();
            let got = forwarded(world.reply(&answer)).unwrap();
            assert_eq!(got, at_client(&now, &answer), "{traffic:?}");

            memory::shift_times(world, -2000);
            let back = world.back;
            let outcome = world.run(&request.build(), back).unwrap();
            assert_eq!(outcome.verdict, ForwardRequest);
            let outcome = world.reply(&answer);
            assert_eq!(outcome.action, action::REDIRECT, "{traffic:?}");
            let got = outcome.packet();
            assert_eq!((got.dmac, got.smac), (request.smac, BACK_MAC));
        }
    })
    .unwrap();
}
