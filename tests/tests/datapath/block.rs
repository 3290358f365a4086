//! The block list: before everything else, whatever the packet is for.

use ipnet::IpNet;
use lb_agent::domain::kernel::Kernel as _;
use lb_common::{
    entry::Counter,
    verdict::Verdict::{DropBlocked, ForwardRequest, PassForeign, PassMalformed},
};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{World, action, answer_to},
};

use crate::{
    row::{Row, Side, check_all},
    traffic::{ALL, TCP4, TCP6, Traffic, at_client, ip},
};

const PORT: u16 = 20_888;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// The established flow's next packet goes on.
fn goes_on(traffic: Traffic, what: &str) -> Row<'static> {
    let request = traffic.request(PORT, ACK);
    let out = (action::REDIRECT, traffic.at_backend(&request, 2, PORT));
    let what = format!("{traffic:?}, {what}");
    Row::forwarded(what, Side::Front, &request, ForwardRequest, out)
}

/// A packet from the front is dropped for its source.
fn blocked(what: &str, packet: &Packet) -> Row<'static> {
    let what = format!("{packet:?}, {what}");
    Row::refused(what, Side::Front, packet.build(), DropBlocked)
}

fn counter(world: &World, rule: IpNet) -> Counter {
    world.datapath.block_stats(&[rule]).unwrap()[0]
}

/// Hosts and prefixes come and go; each takes effect on the next packet of a flow there is, and
/// the longest that matches counts it.
#[test]
fn longest_prefix_counts() {
    World::with(|world| {
        for traffic in ALL {
            // From the longest to the shortest; the number of the rule is its position.
            let rules = if traffic.v6 {
                ["fd99::2/128", "fd99::/64", "fd00::/8", "::/0"]
            } else {
                ["10.99.0.2/32", "10.99.0.0/24", "10.0.0.0/8", "0.0.0.0/0"]
            }
            .map(net);
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            traffic.establish(world, &request).unwrap();
            let length = request.build().len() as u64;
            for (rule, prefix) in (0..4_u32).zip(rules).rev() {
                world.datapath.block(&[prefix]).unwrap();
                assert_eq!(counter(world, prefix), Counter::default(), "starts at zero");
                for _ in 0..=rule {
                    blocked("flow there is", &request).check(world);
                }
            }
            let expected = |rule: u32| Counter {
                packets: u64::from(rule) + 1,
                bytes: (u64::from(rule) + 1) * length,
            };
            let held = world.datapath.blocked().unwrap();
            for (rule, prefix) in (0..4_u32).zip(rules) {
                assert_eq!(counter(world, prefix), expected(rule), "{prefix}");
                assert!(held.contains(&prefix));
            }
            // Taken off from the longest on: the next shorter one takes over.
            for (rule, prefix) in (0..4_u32).zip(rules) {
                blocked("not yet taken off", &request).check(world);
                assert_eq!(
                    counter(world, prefix).packets,
                    expected(rule).packets + 1 + u64::from(rule > 0)
                );
                world.datapath.unblock(&[prefix]).unwrap();
                world.datapath.unblock(&[prefix]).unwrap();
                if rule < 3 {
                    blocked("next rule", &request).check(world);
                }
            }
            goes_on(traffic, "all rules are gone").check(world);
            assert_eq!(world.datapath.blocked().unwrap().len(), 0);
        }
    })
    .unwrap();
}

/// What a rule covers, to the bit, and what it does not.
#[test]
fn edges_of_a_prefix() {
    let rows = [
        ("10.99.0.4/30", "10.99.0.3", false),
        ("10.99.0.4/30", "10.99.0.4", true),
        ("10.99.0.4/30", "10.99.0.7", true),
        ("10.99.0.4/30", "10.99.0.8", false),
        ("128.0.0.0/1", "126.255.255.255", false),
        ("128.0.0.0/1", "128.0.0.0", true),
        ("10.99.0.9/32", "10.99.0.8", false),
        ("10.99.0.9/32", "10.99.0.9", true),
        // Host bits of a prefix do not count.
        ("10.98.7.6/16", "10.98.255.255", true),
        ("fd99::4/126", "fd99::3", false),
        ("fd99::4/126", "fd99::4", true),
        ("fd99::4/126", "fd99::7", true),
        ("fd99::4/126", "fd99::8", false),
        ("fd99:0:0:8000::/49", "fd99:0:0:8000::1", true),
        ("fd99:0:0:8000::/49", "fd99:0:0:ffff::1", true),
        ("fd99:0:0:8000::/49", "fd99:0:0:7fff::1", false),
        ("fd99::9/128", "fd99::9", true),
        ("fd99::9/128", "fd99::1:9", false),
        // An address of one family within the other's is another address.
        ("::ffff:10.99.0.2/128", "10.99.0.2", false),
        ("::ffff:10.99.0.2/128", "::ffff:10.99.0.2", true),
        ("10.99.0.2/32", "::ffff:10.99.0.2", false),
        ("0.0.0.0/0", "fd99::2", false),
        ("::/0", "10.99.0.2", false),
    ];
    World::with(|world| {
        TCP4.serve(world, &[2]);
        TCP6.serve(world, &[2]);
        for (prefix, source, is_blocked) in rows {
            let source = ip(source);
            let traffic = if source.is_ipv6() { TCP6 } else { TCP4 };
            let request = Packet {
                src: source,
                ..traffic.request(PORT, SYN)
            };
            world.datapath.block(&[net(prefix)]).unwrap();
            let verdict = world.request(&request).verdict;
            let expected = if is_blocked {
                DropBlocked
            } else {
                ForwardRequest
            };
            assert_eq!(verdict, expected, "{prefix}, from {source}");
            world.datapath.unblock(&[net(prefix)]).unwrap();
            assert_eq!(
                world.request(&request).verdict,
                ForwardRequest,
                "{source} after {prefix}"
            );
        }
    })
    .unwrap();
}

/// Dropped whatever it is for and whatever is wrong with it, as long as it says who sent it.
#[test]
fn whatever_it_is_for() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            let sent = traffic.establish(world, &request).unwrap();
            let host =
                |address: &str| net(&format!("{address}/{}", if traffic.v6 { 128 } else { 32 }));
            world.datapath.block(&[host(traffic.client())]).unwrap();
            let l4 = if traffic.v6 { 54 } else { 34 };
            let mut frames = Vec::new();
            let elsewhere = if traffic.v6 {
                "2001:db8::99"
            } else {
                "198.51.100.99"
            };
            let foreign = traffic.packet((traffic.client(), 1), (elsewhere, 2), ACK);
            frames.push(("not for us", foreign.build()));
            let node = traffic.packet((traffic.client(), 1), (traffic.node(), 22), ACK);
            frames.push(("for the node itself", node.build()));
            let mut transport = request.build();
            transport[l4..].fill(0);
            frames.push(("no sound transport header", transport));
            let mut icmp = request.build();
            icmp[if traffic.v6 { 20 } else { 23 }] = if traffic.v6 { 58 } else { 1 };
            frames.push(("ICMP", icmp));
            let mut fragment = request.build();
            if traffic.v6 {
                fragment[20] = 44;
            } else {
                fragment[20] = 0x20;
            }
            frames.push(("a fragment", fragment));
            let expired = Packet {
                ttl: 1,
                ..request.clone()
            };
            frames.push(("at its last hop", expired.build()));
            let count = frames.len() as u64;
            let bytes = frames.iter().map(|(_, frame)| frame.len() as u64).sum();
            for (what, frame) in frames {
                Row::refused(what, Side::Front, frame, DropBlocked).check(world);
            }
            assert_eq!(
                counter(world, host(traffic.client())),
                Counter {
                    packets: count,
                    bytes
                }
            );
            let mut lies = request.build();
            lies[14] = 0;
            Row::refused("who?", Side::Front, lies, PassMalformed).check(world);
            // Nobody else suffers: neither the backend that answers nor other clients.
            let answer = answer_to(&sent, ACK);
            let out = (action::REDIRECT, at_client(&request, &answer));
            let reply = lb_common::verdict::Verdict::ForwardReply;
            Row::forwarded("the answer", Side::Back, &answer, reply, out).check(world);
            let mut neighbour = foreign.clone();
            neighbour.src = ip(&traffic.backend(9));
            Row::refused(
                "another source",
                Side::Front,
                neighbour.build(),
                PassForeign,
            )
            .check(world);
            world.datapath.unblock(&[host(traffic.client())]).unwrap();
            // A backend is a source as well.
            world.datapath.block(&[host(&traffic.backend(2))]).unwrap();
            check_all(
                world,
                [
                    Row::refused("the answer", Side::Back, answer.build(), DropBlocked),
                    goes_on(traffic, "the request"),
                ],
            );
            world
                .datapath
                .unblock(&[host(&traffic.backend(2))])
                .unwrap();
        }
    })
    .unwrap();
}
