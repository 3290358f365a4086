//! Backends that answer their clients themselves: `dsr-l2` and `dsr-ipip`.

use lb_agent::domain::{
    flow::FlowReader as _,
    kernel::{Kernel as _, Treatment},
    service::Forwarding,
};
use lb_common::{
    checksum,
    entry::hop_flags::{LOCAL, NEIGHBOUR, NO_XDP},
    flow::State,
    verdict::Verdict::{
        AnswerTimeExceeded, AnswerTooBig, DropNoFlow, ForwardRequest, PassForeign, PassUnresolved,
    },
};
use lb_tests::{
    packet::{ACK, FIN, Packet, RST, SYN},
    world::{BACK_MAC, Hook, World, action, answer_to, backend_mac},
};

use crate::{
    memory,
    row::{Row, Side, check_all, run},
    traffic::{ALL, Traffic, VIP_PORT, ip},
};

const PORT: u16 = 40_777;
/// MTU of the backends' interface.
const MTU: usize = 1500;
const BOTH: [Forwarding; 2] = [Forwarding::DsrL2, Forwarding::DsrIpip];

/// Has the VIP served this way.
fn serve(world: &mut World, traffic: Traffic, forwarding: Forwarding, numbers: &[u8]) {
    traffic.serve(world, numbers);
    let treatment = Treatment {
        forwarding,
        ..Treatment::default()
    };
    world.apply(&[traffic.put_vip(treatment)]).expect("steps");
}

/// What leaves towards a backend, but for what is around it.
fn passed_on(request: &Packet, number: u8) -> Packet {
    Packet {
        dmac: backend_mac(number),
        smac: BACK_MAC,
        ttl: request.ttl - 1,
        ..request.clone()
    }
}

/// The header around a packet of this many bytes, by the RFCs; the flow label is left out.
fn header(traffic: Traffic, number: u8, length: usize) -> Vec<u8> {
    let octets = |text: &str| match ip(text) {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let addresses = [octets(traffic.node()), octets(&traffic.backend(number))].concat();
    if traffic.v6 {
        let length = (length as u16).to_be_bytes();
        return [&[0x60, 0, 0, 0][..], &length, &[41, 64], &addresses].concat();
    }
    let length = (length as u16 + 20).to_be_bytes();
    // Identification and fragment field of `Packet::build`.
    let fixed = [0x12, 0x34, 0, 0, 64, 4, 0, 0];
    let mut header = [&[0x45, 0][..], &length, &fixed, &addresses].concat();
    let sum = checksum::compute(&header, 0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The frame that a backend gets.
fn at_backend(
    traffic: Traffic,
    forwarding: Forwarding,
    request: &Packet,
    number: u8,
    (dmac, smac): ([u8; 6], [u8; 6]),
) -> Vec<u8> {
    let frame = Packet {
        dmac,
        smac,
        ..passed_on(request, number)
    }
    .build();
    if forwarding == Forwarding::DsrL2 {
        return frame;
    }
    let around = header(traffic, number, frame.len() - 14);
    [&frame[..14], &around, &frame[14..]].concat()
}

/// Sends a request and compares what leaves, the flow label apart.
fn sent(
    world: &mut World,
    traffic: Traffic,
    forwarding: Forwarding,
    request: &Packet,
    number: u8,
    what: &str,
) {
    let what = format!("{traffic:?}, {forwarding:?}, {what}");
    let mut outcome = run(world, Side::Front, &request.build()).expect("a test run");
    assert_eq!(outcome.verdict, ForwardRequest, "{what}");
    assert_eq!(outcome.action, action::REDIRECT, "{what}");
    let link = (backend_mac(number), BACK_MAC);
    let expected = at_backend(traffic, forwarding, request, number, link);
    if traffic.v6 && forwarding == Forwarding::DsrIpip {
        let label = &mut outcome.frame[15..18];
        assert_ne!(label[1..], [0, 0], "{what}: no flow label");
        label[0] &= 0xf0;
        label[1..].fill(0);
    }
    assert_eq!(outcome.frame, expected, "{what}");
}

/// State of the only flow.
fn state(world: &World) -> State {
    let mut states = Vec::new();
    let tables = world.datapath.flows();
    tables.each(&mut |flow| states.push(flow.state)).unwrap();
    assert_eq!(states.len(), 1, "{states:?}");
    states[0]
}

/// Addresses and ports stay, and one half is all there is of a flow.
#[test]
fn what_backends_get() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            for forwarding in BOTH {
                serve(world, traffic, forwarding, &[2]);
                for (ttl, options, length) in [(64, 0, 0), (255, 40, 7), (2, 4, 1000)] {
                    let mut request = traffic.request(PORT, SYN);
                    request.ttl = ttl;
                    request.payload = vec![7; length];
                    if !traffic.v6 {
                        request.options = vec![1; options];
                    }
                    let what = format!("ttl {ttl}, {length} bytes");
                    sent(world, traffic, forwarding, &request, 2, &what);
                }
                let mut flows = Vec::new();
                let tables = world.datapath.flows();
                tables.each(&mut |flow| flows.push(*flow)).unwrap();
                let [flow] = flows.as_slice() else {
                    panic!("{flows:?}")
                };
                assert_eq!(flow.client, (ip(traffic.client()), PORT).into());
                assert_eq!(flow.vip, (ip(traffic.vip()), VIP_PORT).into());
                let backend = (ip(&traffic.backend(2)), VIP_PORT).into();
                assert_eq!(flow.backend, backend, "{flow:?}");
                let census = world.datapath.sweep().unwrap();
                let used = census.used4.iter().chain(&census.used6).sum::<u64>();
                assert_eq!(used, 1, "one slot");
                assert_eq!(census.backends.get(&traffic.backend_id(2)), Some(&1));
                forget_all(world);
            }
        }
    })
    .unwrap();
}

fn forget_all(world: &mut World) {
    world
        .datapath
        .cut_clients(&["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()])
        .unwrap();
}

/// What cannot be sent stays as it is.
#[test]
fn what_backends_do_not_get() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            for forwarding in BOTH {
                serve(world, traffic, forwarding, &[2]);
                let refused = |what: &str, packet: Packet, verdict| {
                    let what = format!("{traffic:?}, {forwarding:?}, {what}");
                    Row::refused(what, Side::Front, packet.build(), verdict)
                };
                let mut dying = traffic.request(PORT, ACK);
                dying.ttl = 1;
                if traffic.tcp {
                    refused("reset", traffic.request(PORT, RST), DropNoFlow).check(world);
                }
                let told = run(world, Side::Front, &dying.build()).unwrap();
                assert_eq!(told.verdict, AnswerTimeExceeded, "the first packet");
                sent(
                    world,
                    traffic,
                    forwarding,
                    &traffic.request(PORT, SYN),
                    2,
                    "",
                );
                let told = run(world, Side::Front, &dying.build()).unwrap();
                assert_eq!(told.verdict, AnswerTimeExceeded);
                // What the backend sends is nothing to us, nor is it translated.
                let answer = answer_to(&passed_on(&traffic.request(PORT, SYN), 2), SYN | ACK);
                Row::refused("the answer", Side::Back, answer.build(), PassForeign).check(world);
                // To the byte.
                let headers = traffic.request(PORT, ACK).build().len() - 14 - 7;
                let around = match (forwarding, traffic.v6) {
                    (Forwarding::DsrIpip, false) => 20,
                    (Forwarding::DsrIpip, true) => 40,
                    _ => 0,
                };
                let mut long = traffic.request(PORT, ACK);
                long.payload = vec![1; MTU - headers - around];
                sent(world, traffic, forwarding, &long, 2, "as long as can be");
                long.payload.push(1);
                // The sender is told what leaves room for the header.
                let told = run(world, Side::Front, &long.build()).unwrap();
                assert_eq!(told.verdict, AnswerTooBig, "{traffic:?}, {forwarding:?}");
                let (at, kind) = if traffic.v6 {
                    (54, [2, 0])
                } else {
                    (34, [3, 4])
                };
                let icmp = &told.frame[at..at + 8];
                assert_eq!(icmp[..2], kind);
                let mtu = u16::from_be_bytes([icmp[6], icmp[7]]);
                assert_eq!(
                    usize::from(mtu),
                    MTU - around,
                    "{traffic:?}, {forwarding:?}"
                );
                forget_all(world);
            }
        }
    })
    .unwrap();
}

/// States follow from what the client sends alone.
#[test]
fn states_by_the_clients_packets() {
    World::on_each_hook(|world| {
        for forwarding in BOTH {
            for traffic in ALL {
                serve(world, traffic, forwarding, &[2]);
                let rows: &[(u8, State)] = if traffic.tcp {
                    &[
                        (SYN, State::HalfOpen),
                        (SYN, State::HalfOpen),
                        (ACK, State::Established),
                        (SYN, State::Established),
                        (FIN | ACK, State::ClosingByClient),
                        (ACK, State::ClosingByClient),
                        (FIN | ACK, State::ClosingByClient),
                        // Another connection from the same port.
                        (SYN, State::HalfOpen),
                        (FIN, State::ClosingByClient),
                        (RST, State::Reset),
                        (ACK, State::Reset),
                        (SYN, State::HalfOpen),
                    ]
                } else {
                    &[
                        (0, State::HalfOpen),
                        (0, State::Established),
                        (0, State::Established),
                    ]
                };
                for (step, (flags, expected)) in rows.iter().enumerate() {
                    let request = traffic.request(PORT, *flags);
                    sent(
                        world,
                        traffic,
                        forwarding,
                        &request,
                        2,
                        &format!("step {step}"),
                    );
                    assert_eq!(state(world), *expected, "{traffic:?}, step {step}");
                }
                forget_all(world);
            }
        }
    })
    .unwrap();
}

/// A flow keeps its backend when the table changes; a new connection, or UDP after its time, leaves
/// one that is gone.
#[test]
fn flows_keep_their_backend() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            for forwarding in BOTH {
                serve(world, traffic, forwarding, &[2]);
                let request = |flags| traffic.request(PORT, flags);
                sent(world, traffic, forwarding, &request(SYN), 2, "first");
                sent(world, traffic, forwarding, &request(ACK), 2, "second");
                serve(world, traffic, forwarding, &[3]);
                sent(
                    world,
                    traffic,
                    forwarding,
                    &request(ACK),
                    2,
                    "another table",
                );
                world.apply(&[traffic.put_backend(2, false)]).unwrap();
                if traffic.tcp {
                    sent(world, traffic, forwarding, &request(ACK), 2, "inactive");
                    sent(
                        world,
                        traffic,
                        forwarding,
                        &request(SYN),
                        3,
                        "a new connection",
                    );
                } else {
                    world
                        .datapath
                        .flows()
                        .cut_udp(traffic.backend_id(2))
                        .unwrap();
                    sent(world, traffic, forwarding, &request(0), 3, "cut");
                }
                // The way of forwarding is the flow's, too.
                serve(world, traffic, Forwarding::Nat, &[3]);
                sent(
                    world,
                    traffic,
                    forwarding,
                    &request(ACK),
                    3,
                    "now translated",
                );
                forget_all(world);
            }
        }
    })
    .unwrap();
}

/// Where XDP cannot send, tc does: by the kernel, which asks for the backend, not for the VIP.
#[test]
fn next_hops_that_xdp_cannot_send_to() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            for forwarding in BOTH {
                serve(world, traffic, forwarding, &[2]);
                let hop = memory::hop_of(world, traffic.backend_id(2));
                for flags in [NEIGHBOUR, NO_XDP] {
                    memory::set_hop_flags(world, hop, flags);
                    let request = traffic.request(PORT, SYN);
                    let outcome = run(world, Side::Front, &request.build()).unwrap();
                    let what = format!("{traffic:?}, {forwarding:?}, {flags}");
                    match world.hook {
                        Hook::Xdp => {
                            assert_eq!(outcome.verdict, PassUnresolved, "{what}");
                            assert_eq!(outcome.frame, request.build(), "{what}");
                        }
                        Hook::Tc => {
                            assert_eq!(outcome.verdict, ForwardRequest, "{what}");
                            assert_eq!(outcome.action, action::REDIRECT, "{what}");
                            let inner = &passed_on(&request, 2).build()[14..];
                            assert!(outcome.frame.ends_with(inner), "{what}");
                        }
                    }
                }
                memory::set_hop_flags(world, hop, 0);
                forget_all(world);
            }
        }
    })
    .unwrap();
}

/// A backend on the node itself gets the packet as it is.
#[test]
fn backends_on_the_node() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            for forwarding in BOTH {
                serve(world, traffic, forwarding, &[2]);
                let hop = memory::hop_of(world, traffic.backend_id(2));
                memory::set_hop_flags(world, hop, LOCAL);
                for ttl in [1, 64] {
                    let request = Packet {
                        ttl,
                        ..traffic.request(PORT, SYN)
                    };
                    let what = format!("{traffic:?}, {forwarding:?}, {ttl}");
                    let out = (action::PASS, request.clone());
                    let row = Row::forwarded(what, Side::Front, &request, ForwardRequest, out);
                    check_all(world, [row]);
                }
                memory::set_hop_flags(world, hop, 0);
                forget_all(world);
            }
        }
    })
    .unwrap();
}
