//! Which of the node's ports a flow is given.

use std::collections::BTreeSet;

use lb_agent::domain::kernel::{Kernel as _, KernelVip, Step, VipKey};
use lb_common::{
    entry::EvictionStats,
    verdict::Verdict::{DropPortsExhausted, ForwardReply, ForwardRequest},
};
use lb_tests::{
    packet::{ACK, FIN, Packet, RST, SYN, answer_to},
    world::{PORTS, World, action},
};

use crate::{
    row::{Row, Side, check_all},
    traffic::{ALL, SLOTS, Traffic, at_client, forwarded, ip},
};

fn in_range(port: u16) -> bool {
    (PORTS.0..=PORTS.1).contains(&port)
}

/// A request of the usual kind from another client.
fn from(traffic: Traffic, client: u8, port: u16) -> Packet {
    let client = if traffic.v6 {
        format!("fd99::{client}")
    } else {
        format!("10.99.0.{client}")
    };
    Packet {
        src: ip(&client),
        ..traffic.request(port, SYN)
    }
}

/// The client's port is kept where it lies within the range and is free towards the backend.
#[test]
fn kept_or_drawn() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            for port in [PORTS.0, PORTS.0 + 1, PORTS.1] {
                let request = traffic.request(port, SYN);
                let out = (action::REDIRECT, traffic.at_backend(&request, 2, port));
                let what = format!("{traffic:?}, port {port} is kept");
                Row::forwarded(what, Side::Front, &request, ForwardRequest, out).check(world);
            }
            for port in [1, 1024, PORTS.0 - 1, PORTS.1 + 1, 65_535] {
                let request = traffic.request(port, SYN);
                let sent = forwarded(world.request(&request)).unwrap();
                assert!(in_range(sent.sport), "{traffic:?}: {port} → {}", sent.sport);
                let answer = answer_to(&sent, SYN);
                let out = (action::REDIRECT, at_client(&request, &answer));
                let what = format!("{traffic:?}, the way back to port {port}");
                Row::forwarded(what, Side::Back, &answer, ForwardReply, out).check(world);
            }
            // Twenty clients, one port, one backend: twenty ports.
            let port = 23_456;
            let ports: BTreeSet<u16> = (10..30)
                .map(|client| {
                    let request = from(traffic, client, port);
                    let sent = forwarded(world.request(&request)).unwrap();
                    let answer = answer_to(&sent, SYN);
                    let got = forwarded(world.reply(&answer)).unwrap();
                    assert_eq!(got, at_client(&request, &answer));
                    sent.sport
                })
                .collect();
            assert_eq!(ports.len(), 20, "{traffic:?}");
            assert!(ports.contains(&port) && ports.iter().all(|port| in_range(*port)));
        }
    })
    .unwrap();
}

/// A range of one port: one flow per backend and protocol, then no more.
#[test]
fn exhausted_towards_one_backend_only() {
    const ONLY: u16 = 20_000;
    let tiny = |options: &mut lb_agent::datapath::Options| options.ports = (ONLY, ONLY);
    World::with_options(tiny, |world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let sent = |client: u8, number: u8| {
                let request = from(traffic, client, 40_000);
                let out = traffic.at_backend(&request, number, ONLY);
                (request, out)
            };
            let (first, first_out) = sent(10, 2);
            let (second, _) = sent(11, 2);
            let (third, third_out) = sent(12, 3);
            let refused =
                |what: &str| Row::refused(what, Side::Front, second.build(), DropPortsExhausted);
            let known = || {
                let out = (action::REDIRECT, first_out.clone());
                Row::forwarded(
                    "the flow there is",
                    Side::Front,
                    &first,
                    ForwardRequest,
                    out,
                )
            };
            check_all(world, [known(), refused("no second port"), known()]);
            // Towards another backend the same port is another flow.
            let elsewhere = (action::REDIRECT, third_out);
            let row = Row::forwarded(
                "other backend",
                Side::Front,
                &third,
                ForwardRequest,
                elsewhere,
            )
            .after(|world| traffic.serve(world, &[3]));
            row.check(world);
            known().check(world);
        }
    })
    .unwrap();
}

/// A range of four ports: four flows at most, each port once, and a port that is given back
/// serves again.
#[test]
fn a_port_comes_back() {
    let tiny = |options: &mut lb_agent::datapath::Options| options.ports = (20_000, 20_003);
    World::with_options(tiny, |world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let mut given = BTreeSet::new();
            let mut refused = 0;
            for client in 10..60 {
                match forwarded(world.request(&from(traffic, client, 50_000))) {
                    Ok(sent) => assert!(given.insert(sent.sport), "{} twice", sent.sport),
                    Err(verdict) => {
                        assert_eq!(verdict, DropPortsExhausted);
                        refused += 1;
                    }
                }
            }
            // Probing is bounded, but fifty flows with twelve probes each find all four.
            assert_eq!(
                given.into_iter().collect::<Vec<_>>(),
                [20_000, 20_001, 20_002, 20_003]
            );
            assert_eq!(refused, 46);
            let all = if traffic.v6 { "::/0" } else { "0.0.0.0/0" };
            let cut = world.datapath.flows().cut_clients(&[all.parse().unwrap()]);
            assert_eq!(cut.unwrap(), 4, "{traffic:?}");
            forwarded(world.request(&from(traffic, 70, 50_000))).unwrap();
            world
                .datapath
                .flows()
                .cut_clients(&[all.parse().unwrap()])
                .unwrap();
        }
    })
    .unwrap();
}

/// Where every port is taken, that of a flow which was closed will do.
#[test]
fn a_closed_flows_port_is_better_than_none() {
    const ONLY: u16 = 20_000;
    let tiny = |options: &mut lb_agent::datapath::Options| options.ports = (ONLY, ONLY);
    World::with_options(tiny, |world| {
        for traffic in ALL.into_iter().filter(|traffic| traffic.tcp) {
            traffic.serve(world, &[2]);
            let (first, second) = (from(traffic, 10, 40_000), from(traffic, 11, 40_000));
            let sent = forwarded(world.request(&first)).unwrap();
            assert_eq!(sent.sport, ONLY, "{traffic:?}");
            let refused = forwarded(world.request(&second));
            assert_eq!(refused.unwrap_err(), DropPortsExhausted, "{traffic:?}");
            let reset = Packet {
                flags: RST,
                ..first.clone()
            };
            forwarded(world.request(&reset)).unwrap();
            let out = (action::REDIRECT, traffic.at_backend(&second, 2, ONLY));
            let what = format!("{traffic:?}, a closed flow's port");
            Row::forwarded(what, Side::Front, &second, ForwardRequest, out).check(world);
        }
    })
    .unwrap();
}

/// Who said something: the client, or else the backend.
type Said = (bool, u8);
const OPEN: [Said; 3] = [(true, SYN), (false, SYN | ACK), (true, ACK)];
const BY_CLIENT: Said = (true, FIN | ACK);
const BY_BACKEND: Said = (false, FIN | ACK);

/// Opens a connection and closes it; answers with the node's port that it had.
fn connect(world: &mut World, request: &Packet, closes: &[Said]) -> u16 {
    let sent = forwarded(world.request(request)).unwrap();
    for (from_client, flags) in OPEN.iter().chain(closes) {
        let said = if *from_client {
            let flags = *flags;
            world.request(&Packet {
                flags,
                ..request.clone()
            })
        } else {
            world.reply(&answer_to(&sent, *flags))
        };
        forwarded(said).unwrap();
    }
    sent.sport
}

/// Where the flows of clients are cut, the ports of connections that are over stay kept: the backend is in
/// TIME_WAIT. Of one that was open the port is free, for the backend learns that it is over.
#[test]
fn what_is_cut_keeps_its_port_if_it_was_over() {
    let closed: &[Said] = &[BY_BACKEND, BY_CLIENT];
    let everybody = ["::/0", "0.0.0.0/0"].map(|prefix| prefix.parse().unwrap());
    let few = |options: &mut lb_agent::datapath::Options| options.ports = (20_000, 20_001);
    // (how it is closed, its port is kept, and is the same client's next)
    for (closes, kept, own) in [
        (closed, true, true),
        (&[(true, RST)], true, false),
        (&[], false, true),
    ] {
        World::with_options(few, |world| {
            for traffic in ALL.into_iter().filter(|traffic| traffic.tcp) {
                traffic.serve(world, &[2]);
                let before = connect(world, &from(traffic, 10, 40_000), closes);
                let cut = world.datapath.flows().cut_clients(&everybody).unwrap();
                assert_eq!(cut, 1, "{traffic:?}");
                // Whoever comes now: one of them would have it.
                let mut given = BTreeSet::new();
                for client in 20..28 {
                    let other = forwarded(world.request(&from(traffic, client, 40_000)));
                    given.extend(other.map(|sent| sent.sport));
                    world.datapath.flows().cut_clients(&everybody).unwrap();
                }
                assert_eq!(given.contains(&before), !kept, "{traffic:?}, {given:?}");
                let again = forwarded(world.request(&from(traffic, 10, 40_000))).unwrap();
                assert_eq!(again.sport == before, own, "{traffic:?}");
                world.datapath.flows().cut_clients(&everybody).unwrap();
            }
        })
        .unwrap();
    }
}

/// A client that uses its port again for the same service gets the node's port of before, whoever
/// else has its own: from another one its timestamps would look old to a backend in TIME_WAIT.
/// Unless one of the two sides had not closed: that connection may be open still at the backend.
#[test]
fn the_next_connection_comes_from_the_same_port() {
    let rows: [(&str, &[Said], bool); 6] = [
        ("client, then backend", &[BY_CLIENT, BY_BACKEND], true),
        ("backend, then client", &[BY_BACKEND, BY_CLIENT], true),
        ("client resets", &[(true, RST)], true),
        ("backend resets", &[(false, RST | ACK)], true),
        ("client only", &[BY_CLIENT], false),
        ("backend only", &[BY_BACKEND], false),
    ];
    World::with(|world| {
        for traffic in ALL.into_iter().filter(|traffic| traffic.tcp) {
            traffic.serve(world, &[2]);
            let mut port = 21_000;
            for (what, closes, same) in rows {
                for is_taken in [false, true] {
                    let what = format!("{traffic:?}, {what}, taken: {is_taken}");
                    port += 1;
                    if is_taken {
                        forwarded(world.request(&from(traffic, 10, port))).unwrap();
                    }
                    let request = from(traffic, 20, port);
                    let given = [(); 3].map(|()| connect(world, &request, closes));
                    assert_eq!(given[0] == port, !is_taken, "{what}");
                    let different = BTreeSet::from(given).len();
                    assert_eq!(different, if same { 1 } else { 3 }, "{what}: {given:?}");
                }
            }
        }
        // It is no flow that had to give way.
        assert_eq!(
            world.datapath.evictions().unwrap(),
            EvictionStats::default()
        );
    })
    .unwrap();
}

/// Two VIPs with the same backend address: one client port on both, two ports of the node.
#[test]
fn two_services_on_one_backend() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            // Another VIP port of a service of its own, whose backend is at the same address.
            let id = traffic.id() + 8;
            let Step::PutBackend(_, backend) = traffic.put_backend(2, true) else {
                unreachable!("a step that puts a backend")
            };
            let backend = lb_agent::domain::kernel::KernelBackend {
                service: id,
                ..backend
            };
            let recipe = lb_agent::domain::kernel::Recipe {
                weights: vec![(2000 + id, 1)],
                slots: SLOTS,
            };
            let key = VipKey {
                address: (ip(traffic.vip()), 81).into(),
                protocol: traffic.proto(),
            };
            let vip = KernelVip {
                service: id,
                slots: SLOTS,
                treatment: Default::default(),
            };
            world
                .apply(&[
                    Step::PutBackend(2000 + id, backend),
                    Step::PutTable(id, recipe),
                    Step::PutVip(key, vip),
                ])
                .unwrap();
            let port = 21_000;
            let one = traffic.request(port, SYN);
            let other = Packet {
                dport: 81,
                ..one.clone()
            };
            let sent = [&one, &other].map(|request| forwarded(world.request(request)).unwrap());
            assert_eq!(sent[0].sport, port);
            assert_ne!(sent[1].sport, port, "{traffic:?}");
            for (request, sent) in [&one, &other].into_iter().zip(&sent) {
                let answer = answer_to(sent, SYN);
                let out = (action::REDIRECT, at_client(request, &answer));
                Row::forwarded("reply", Side::Back, &answer, ForwardReply, out).check(world);
            }
        }
    })
    .unwrap();
}
