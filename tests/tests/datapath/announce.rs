//! Questions for the link address of a VIP, and who is answered.

use std::net::Ipv6Addr;

use lb_agent::domain::kernel::Step;
use lb_common::{
    checksum,
    verdict::Verdict::{AnswerNeighbour, PassForeign, PassNotIp, PassUnresolved},
};
use lb_tests::world::{FRONT_MAC, Hook, World, action};

use crate::traffic::{TCP4, TCP6};

const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// An ARP packet of Ethernet and IPv4.
fn arp(
    to: [u8; 6],
    operation: u8,
    sender: ([u8; 6], [u8; 4]),
    target: ([u8; 6], [u8; 4]),
) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(sender.0);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(sender.0);
    frame.extend(sender.1);
    frame.extend(target.0);
    frame.extend(target.1);
    frame
}

/// A neighbour solicitation (135) or advertisement (136) with one link address.
fn neighbour(
    to: [u8; 6],
    kind: u8,
    (smac, src): ([u8; 6], &str),
    dst: &str,
    target: &str,
) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let (flags, option) = if kind == 136 { (0x60, 2) } else { (0, 1) };
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(octets(target));
    message.extend([option, 1]);
    message.extend(smac);
    let pseudo: u32 = [octets(src), octets(dst)]
        .concat()
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = checksum::compute(&message, pseudo + message.len() as u32 + 58);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = to.to_vec();
    frame.extend(smac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
    frame.extend(octets(src));
    frame.extend(octets(dst));
    frame.extend(message);
    frame
}

/// On the interface that announces, and for VIPs only; the answer is what the standards say.
#[test]
fn questions_for_vips() {
    const ALL: [u8; 6] = [0xff; 6];
    const VIP: [u8; 4] = [198, 51, 100, 10];
    const OTHER: [u8; 4] = [198, 51, 100, 11];
    const CLIENT: [u8; 4] = [10, 99, 0, 2];
    const MULTICAST: &str = "ff02::1:ff00:10";
    let announce = |options: &mut lb_agent::datapath::Options| {
        options.announce = vec!["front".into()];
    };
    World::with_options(announce, |world| {
        TCP4.serve(world, &[2]);
        TCP6.serve(world, &[2]);
        let (front, back) = (world.front, world.back);
        let solicited = [0x33, 0x33, 0xff, 0, 0, 0x10];
        let question = arp(ALL, 1, (ASKER, CLIENT), ([0; 6], VIP));
        let question6 = neighbour(solicited, 135, (ASKER, "fd99::2"), MULTICAST, TCP6.vip());
        let answer = arp(ASKER, 2, (FRONT_MAC, VIP), (ASKER, CLIENT));
        let answer6 = neighbour(ASKER, 136, (FRONT_MAC, TCP6.vip()), "fd99::2", TCP6.vip());
        for hook in [Hook::Xdp, Hook::Tc] {
            world.hook = hook;
            for (question, answer) in [(&question, &answer), (&question6, &answer6)] {
                let outcome = world.run(question, front).unwrap();
                if hook == Hook::Xdp {
                    // Handed over, as it came.
                    assert_eq!(outcome.verdict, PassUnresolved);
                    continue;
                }
                assert_eq!(outcome.verdict, AnswerNeighbour);
                assert_eq!(outcome.action, action::REDIRECT);
                assert_eq!(&outcome.frame, answer, "{hook:?}");
            }
            let mut refused = vec![
                ("not announced there", question.clone(), back, PassNotIp),
                ("not announced there", question6.clone(), back, PassForeign),
                ("an answer", answer.clone(), front, PassNotIp),
                ("an answer", answer6.clone(), front, PassForeign),
            ];
            for (what, sender, target) in [
                ("no VIP", CLIENT, OTHER),
                ("the node's own", CLIENT, [10, 99, 0, 1]),
                ("who has it himself", VIP, VIP),
            ] {
                let frame = arp(ALL, 1, (ASKER, sender), ([0; 6], target));
                refused.push((what, frame, front, PassNotIp));
            }
            let of = |src: &str, target: &str| {
                neighbour(solicited, 135, (ASKER, src), MULTICAST, target)
            };
            refused.push(("no VIP", of("fd99::2", "2001:db8::11"), front, PassForeign));
            refused.push(("is it free?", of("::", TCP6.vip()), front, PassForeign));
            let mut far = question6.clone();
            far[21] = 254;
            refused.push(("from beyond the link", far, front, PassForeign));
            let mut short = question.clone();
            short.truncate(41);
            refused.push(("cut", short, front, PassNotIp));
            for (what, frame, ifindex, verdict) in refused {
                let outcome = world.run(&frame, ifindex).unwrap();
                assert_eq!(outcome.verdict, verdict, "{hook:?}, {what}");
            }
        }
        // A VIP that goes is no longer answered for.
        let steps = [TCP4, TCP6].map(|traffic| Step::DeleteVip(traffic.key()));
        world.apply(&steps).unwrap();
        for question in [&question, &question6] {
            let outcome = world.run(question, front).unwrap();
            assert_ne!(outcome.verdict, AnswerNeighbour);
        }
    })
    .unwrap();
}
