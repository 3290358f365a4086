//! Packets within another header, for VIPs that the node holds for others.

use ipnet::IpNet;
use lb_agent::domain::kernel::Kernel as _;
use lb_common::{
    checksum,
    verdict::Verdict::{self, DropBlocked, ForwardRequest, PassDecapsulated, PassForeign},
};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{Hook, World, action},
};

use crate::{
    row::{Side, run},
    traffic::{ALL, Traffic},
};

const PORT: u16 = 40_555;
/// Nodes that may send, and one that may not.
const SENDERS: [&str; 2] = ["10.98.0.0/16", "fd98::/32"];
const SENDER: [&str; 2] = ["10.98.7.1", "fd98::1"];
const STRANGER: [&str; 2] = ["10.97.7.1", "fd97::1"];

/// A world that holds the VIPs for others, on each hook.
fn holding(senders: &[&str], f: impl Fn(&mut World) + Sync) {
    let senders: Vec<IpNet> = senders.iter().map(|text| text.parse().unwrap()).collect();
    for hook in [Hook::Xdp, Hook::Tc] {
        World::with_options(
            |options| {
                let vips = ALL.map(|traffic| traffic.vip().parse().unwrap());
                options.decapsulate = vips.to_vec();
                options.decapsulate_from = senders.clone();
            },
            |world| {
                world.hook = hook;
                f(world);
            },
        )
        .unwrap();
    }
}

/// What stands around a packet.
struct Outer {
    source: &'static str,
    /// IPv4 options.
    options: usize,
    fragment: u16,
    proto: u8,
    class: u8,
    /// Added to the length that it tells.
    longer: i16,
}

fn outer(traffic: Traffic) -> Outer {
    Outer {
        source: SENDER[usize::from(traffic.v6)],
        options: 0,
        fragment: 0,
        proto: if traffic.v6 { 41 } else { 4 },
        class: 0,
        longer: 0,
    }
}

/// The frame with a header around its packet.
fn wrap(traffic: Traffic, frame: &[u8], outer: &Outer) -> Vec<u8> {
    let octets = |text: &str| match crate::traffic::ip(text) {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let addresses = [octets(outer.source), octets(traffic.node())].concat();
    let length = (frame.len() - 14) as u16;
    let header = if traffic.v6 {
        let class = u32::from(outer.class) << 20;
        let length = length.wrapping_add_signed(outer.longer).to_be_bytes();
        let first = (0x6000_1234 | class).to_be_bytes();
        [&first[..], &length, &[outer.proto, 60], &addresses].concat()
    } else {
        let own = 20 + outer.options;
        let length = (length + own as u16).wrapping_add_signed(outer.longer);
        let mut header = vec![0x40 | (own / 4) as u8, outer.class];
        header.extend(length.to_be_bytes());
        header.extend([9, 9]);
        header.extend(outer.fragment.to_be_bytes());
        header.extend([60, outer.proto, 0, 0]);
        header.extend(addresses);
        header.extend(vec![1; outer.options]);
        let sum = checksum::compute(&header, 0);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    };
    [&frame[..14], &header, &frame[14..]].concat()
}

/// Sends a frame, and expects `verdict` with this frame handed to the stack.
fn expect(world: &mut World, what: &str, frame: &[u8], verdict: Verdict, after: &[u8]) {
    let outcome = run(world, Side::Front, frame).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(outcome.verdict, verdict, "{what}");
    if verdict == PassDecapsulated {
        assert_eq!(outcome.action, action::PASS, "{what}");
    }
    assert_eq!(outcome.frame, after, "{what}");
}

/// The packet for the VIP reaches the stack as it was, whatever it is.
#[test]
fn the_header_is_taken_off() {
    holding(&[], |world| {
        for traffic in ALL {
            let mut packets = vec![
                traffic.request(PORT, SYN),
                traffic.request(80, ACK),
                Packet {
                    ttl: 1,
                    payload: vec![3; 1000],
                    ..traffic.request(PORT, ACK)
                },
            ];
            if !traffic.v6 {
                packets[1].options = vec![1; 40];
                // A fragment for the stack to put together.
                packets[2].fragment = 0x2000;
            }
            for packet in &packets {
                let frame = packet.build();
                for options in [0, 4, 40] {
                    let around = Outer {
                        options: if traffic.v6 { 0 } else { options },
                        source: STRANGER[usize::from(traffic.v6)],
                        ..outer(traffic)
                    };
                    let what = format!("{traffic:?}, {options}, {packet:?}");
                    let wrapped = wrap(traffic, &frame, &around);
                    expect(world, &what, &wrapped, PassDecapsulated, &frame);
                }
            }
        }
    });
}

/// What is not for us is left as it is.
#[test]
fn everything_else_stays_within_its_header() {
    holding(&SENDERS, |world| {
        for traffic in ALL {
            let frame = traffic.request(PORT, SYN).build();
            let elsewhere = {
                let mut packet = traffic.request(PORT, SYN);
                packet.dst = crate::traffic::ip(if traffic.v6 {
                    "2001:db8::99"
                } else {
                    "198.51.100.99"
                });
                packet.build()
            };
            let usual = || outer(traffic);
            let mut rows = vec![
                ("another VIP", elsewhere, usual()),
                (
                    "a stranger",
                    frame.clone(),
                    Outer {
                        source: STRANGER[usize::from(traffic.v6)],
                        ..usual()
                    },
                ),
                (
                    "the other family within",
                    frame.clone(),
                    Outer {
                        proto: if traffic.v6 { 4 } else { 41 },
                        ..usual()
                    },
                ),
                (
                    "congestion that the packet cannot tell of",
                    frame.clone(),
                    Outer {
                        class: 3,
                        ..usual()
                    },
                ),
                (
                    "shorter than the packet within",
                    frame.clone(),
                    Outer {
                        longer: -1,
                        ..usual()
                    },
                ),
            ];
            if !traffic.v6 {
                for fragment in [0x2000, 0x0001] {
                    let around = Outer {
                        fragment,
                        ..usual()
                    };
                    rows.push(("a fragment", frame.clone(), around));
                }
            }
            for (what, frame, around) in rows {
                let wrapped = wrap(traffic, &frame, &around);
                expect(
                    world,
                    &format!("{traffic:?}, {what}"),
                    &wrapped,
                    PassForeign,
                    &wrapped,
                );
            }
            let wrapped = wrap(traffic, &frame, &usual());
            expect(world, "the usual one", &wrapped, PassDecapsulated, &frame);
            // Cut off anywhere within the headers.
            let one = if traffic.v6 { 40 } else { 20 };
            for length in [14 + one, 14 + one + 6, 14 + 2 * one - 1, 14 + 2 * one] {
                let outcome = run(world, Side::Front, &wrapped[..length]).unwrap();
                assert_ne!(outcome.verdict, PassDecapsulated, "{traffic:?}, {length}");
            }
        }
    });
}

/// Who is blocked is blocked within another header too, by either source.
#[test]
fn blocked_sources() {
    holding(&[], |world| {
        for traffic in ALL {
            let frame = traffic.request(PORT, SYN).build();
            let wrapped = wrap(traffic, &frame, &outer(traffic));
            for source in [traffic.client(), SENDER[usize::from(traffic.v6)]] {
                let rule: IpNet = IpNet::from(crate::traffic::ip(source));
                world.datapath.block(&[rule]).unwrap();
                let what = format!("{traffic:?}, {source}");
                expect(world, &what, &wrapped, DropBlocked, &wrapped);
                assert_eq!(world.datapath.block_stats(&[rule]).unwrap()[0].packets, 1);
                world.datapath.unblock(&[rule]).unwrap();
            }
            expect(world, "unblocked", &wrapped, PassDecapsulated, &frame);
        }
    });
}

/// Congestion that a router has marked in the header is told by the packet (RFC 6040).
#[test]
fn congestion_is_passed_on() {
    holding(&[], |world| {
        for traffic in ALL {
            for inner in 1..4_u8 {
                for around in 0..4 {
                    let class = |class: u8| {
                        let mut frame = traffic.request(PORT, SYN).build();
                        if traffic.v6 {
                            frame[15] |= class << 4;
                        } else {
                            frame[15] = class;
                            frame[24..26].fill(0);
                            let sum = checksum::compute(&frame[14..34], 0);
                            frame[24..26].copy_from_slice(&sum.to_be_bytes());
                        }
                        frame
                    };
                    let outer = Outer {
                        class: around,
                        ..outer(traffic)
                    };
                    let wrapped = wrap(traffic, &class(inner), &outer);
                    let expected = class(if around == 3 { 3 } else { inner });
                    let what = format!("{traffic:?}, {inner} within {around}");
                    expect(world, &what, &wrapped, PassDecapsulated, &expected);
                }
            }
        }
    });
}

/// A node that balances a VIP itself does not balance again what another has sent it.
#[test]
fn what_is_taken_off_is_not_balanced() {
    holding(&SENDERS, |world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, SYN);
            let frame = request.build();
            let wrapped = wrap(traffic, &frame, &outer(traffic));
            expect(world, "within", &wrapped, PassDecapsulated, &frame);
            assert_eq!(world.request(&request).verdict, ForwardRequest);
        }
    });
}

/// Without the setting nothing is taken off.
#[test]
fn nothing_is_taken_off_unless_asked_for() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let frame = traffic.request(PORT, SYN).build();
            let wrapped = wrap(traffic, &frame, &outer(traffic));
            expect(world, "off", &wrapped, PassForeign, &wrapped);
        }
    })
    .unwrap();
}
