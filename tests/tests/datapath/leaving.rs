//! What processes of the node send that is not plain: reversed at egress as their plain replies are.

use lb_common::verdict::Verdict::{self, ForwardError, ForwardReply};
use lb_tests::{
    frame::{Message, extended, fragments},
    packet::{ACK, Packet, SYN},
    world::{World, answer_to},
};

use crate::{
    errors::quote,
    hops::flag_backend,
    memory,
    row::{Side, run},
    traffic::{ALL, Traffic, ip},
};

const PORT: u16 = 20_778;

/// `hop_flags::LOCAL`: the backend is a process of the node.
const LOCAL: u32 = lb_common::entry::hop_flags::LOCAL;

/// A flow to a process of the node.
struct Local {
    /// What the client sent, and the process got.
    request: (Packet, Packet),
    /// What the process sends, and the client is to get.
    answer: (Packet, Packet),
}

fn open(traffic: Traffic, world: &mut World) -> Local {
    traffic.serve(world, &[2]);
    let id = traffic.backend_id(2);
    memory::change_backend(world, id, |entry| entry.source = entry.addr);
    flag_backend(world, traffic, LOCAL);
    memory::allow_local(world, &traffic.backend(2), 8080);
    let request = traffic.request(PORT, SYN);
    run(world, Side::Front, &request.build()).unwrap();
    let got = Packet {
        dst: ip(&traffic.backend(2)),
        dport: 8080,
        ..request.clone()
    };
    let answer = Packet {
        payload: (0..=255).cycle().take(1400).collect(),
        ..answer_to(&got, ACK)
    };
    let back = Packet {
        src: ip(traffic.vip()),
        sport: 80,
        ..answer.clone()
    };
    Local {
        request: (request, got),
        answer: (answer, back),
    }
}

/// Sends `frame` out; it must leave as `expected`, and count once for `verdict`.
fn leaves(world: &mut World, what: &str, frame: &[u8], expected: &[u8], verdict: Verdict) {
    let before = world.counted(verdict);
    let (action, out) = world.datapath.test_run_egress(frame, world.front).unwrap();
    assert_eq!(action, u32::MAX, "{what}");
    assert_eq!(out, expected, "{what}: {out:02x?}, not {expected:02x?}");
    assert_eq!(world.counted(verdict), before + 1, "{what}");
}

/// The transport header is not where it usually is, or the hop count is at its end, which is for the
/// next router to say.
#[test]
fn replies_of_every_shape() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let (answer, back) = open(traffic, world).answer;
            let last = |packet: &Packet| Packet {
                ttl: 1,
                ..packet.clone()
            };
            let (frame, out) = (last(&answer).build(), last(&back).build());
            leaves(world, "last hop", &frame, &out, ForwardReply);
            let shaped = |packet: &Packet| {
                if traffic.v6 {
                    extended(packet.build(), &[(60, &[0, 1, 4, 0, 0, 0, 0])])
                } else {
                    let options = vec![1; 8];
                    Packet {
                        options,
                        ..packet.clone()
                    }
                    .build()
                }
            };
            let what = format!("{traffic:?}, options");
            leaves(world, &what, &shaped(&answer), &shaped(&back), ForwardReply);
            let cut = |packet: &Packet| fragments(&packet.build(), 512, 9);
            for (number, (frame, out)) in cut(&answer).iter().zip(cut(&back)).enumerate() {
                let what = format!("{traffic:?}, fragment {number}");
                leaves(world, &what, frame, &out, ForwardReply);
            }
        }
    })
    .unwrap();
}

/// The process does not listen, or its host complains otherwise.
#[test]
fn errors_of_the_node() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let (request, got) = open(traffic, world).request;
            for transport in [8, 20, 64] {
                let message = |src: &str, about: &Packet| Message {
                    macs: ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]),
                    src: ip(src),
                    dst: ip(traffic.client()),
                    ttl: 64,
                    tos: 0,
                    id_fragment: (0, 0x4000),
                    kind: if traffic.v6 { [1, 4] } else { [3, 3] },
                    rest: 0,
                    body: quote(about, transport),
                };
                let frame = message(&traffic.backend(2), &got).build();
                let out = message(traffic.vip(), &request).build();
                let what = format!("{traffic:?}, {transport} bytes quoted");
                leaves(world, &what, &frame, &out, ForwardError);
            }
        }
    })
    .unwrap();
}

/// What belongs to no flow leaves as it is, and is not counted.
#[test]
fn what_is_none_of_ours() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let Local { request, answer } = open(traffic, world);
            let other = Packet {
                dport: 1,
                payload: vec![3; 900],
                ..answer.0
            };
            let pieces = fragments(&other.build(), 512, 10);
            let about = Packet {
                sport: 1,
                ..request.1
            };
            let error = Message {
                macs: ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]),
                src: ip(&traffic.backend(2)),
                dst: ip(traffic.client()),
                ttl: 64,
                tos: 0,
                id_fragment: (0, 0x4000),
                kind: if traffic.v6 { [1, 4] } else { [3, 3] },
                rest: 0,
                body: quote(&about, 8),
            };
            let echo = Message {
                kind: if traffic.v6 { [128, 0] } else { [8, 0] },
                body: vec![7; 56],
                ..error.clone()
            };
            for frame in pieces.into_iter().chain([error.build(), echo.build()]) {
                let verdicts = lb_agent::domain::kernel::Kernel::verdicts(&world.datapath).unwrap();
                let (action, out) = world.datapath.test_run_egress(&frame, world.front).unwrap();
                assert_eq!((action, &out), (u32::MAX, &frame), "{traffic:?}");
                let after = lb_agent::domain::kernel::Kernel::verdicts(&world.datapath).unwrap();
                assert_eq!(after, verdicts, "{traffic:?}: {frame:02x?}");
            }
        }
    })
    .unwrap();
}
