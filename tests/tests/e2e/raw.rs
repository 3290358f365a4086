//! Frames that no stack makes here: fragments in any order, VLAN tags. Sent and received as they are
//! on the client's interface.

use std::{net::IpAddr, time::Duration};

use lb_common::IPPROTO_UDP;
use lb_tests::{
    frame::{fragments, tagged},
    link,
    packet::{Packet, dissect},
    process::wait_for,
    wire::Wire,
};

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, sample, udp_service};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The client's end of its link.
struct Client {
    wire: Wire,
    smac: [u8; 6],
    dmac: [u8; 6],
    from: [IpAddr; 2],
}

fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

impl Client {
    fn new(scene: &Scene) -> Self {
        let topology = &scene.topology;
        let of = |host: &lb_tests::namespace::Namespace, interface: &str| {
            let printed = host.tool("ip", &["-j", "link", "show", interface]).unwrap();
            let links: serde_json::Value = serde_json::from_str(&printed).unwrap();
            mac(links[0]["address"].as_str().unwrap())
        };
        Self {
            wire: Wire::open(topology.client(), "eth0").unwrap(),
            smac: of(topology.client(), "eth0"),
            dmac: of(topology.node(), "to-client"),
            // Not the stack's own: it would answer that nobody listens.
            from: ["10.77.0.99", "fd77::99"].map(|ip| ip.parse().unwrap()),
        }
    }

    /// A datagram to a VIP.
    fn datagram(&self, vip: &str, port: u16, payload: Vec<u8>) -> Packet {
        let to = address(vip);
        Packet {
            smac: self.smac,
            dmac: self.dmac,
            src: self.from[usize::from(to.is_ipv6())],
            dst: to.ip(),
            sport: port,
            dport: to.port(),
            proto: IPPROTO_UDP,
            flags: 0,
            payload,
            ..Packet::tcp("10.0.0.1", 1, "10.0.0.2", 2, 0)
        }
    }

    /// The next frame that ends in `bytes`, as it comes in.
    fn expect(&mut self, what: &str, bytes: &[u8]) -> Vec<u8> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < ANSWER {
            if let Some(frame) = self.wire.receive(Duration::from_millis(200)).unwrap()
                && frame.ends_with(bytes)
            {
                return frame;
            }
        }
        panic!("{what}: no answer");
    }
}

/// The first fragment comes last, and after the others by themselves; all arrive.
#[test]
fn fragments_in_any_order() {
    for mode in ["", "xdp_mode = \"off\""] {
        let scene = Scene::listed_on(mode, &["v1"], "", &udp_service(1));
        let mut client = Client::new(&scene);
        for (round, vip) in (0..10).flat_map(|round| [(round, VIP), (round, VIP6)]) {
            // The answer fits into one frame; the question comes in three.
            let payload: Vec<u8> = (0..1400_u32).map(|index| (index + round) as u8).collect();
            let question = client.datagram(vip, 20_000 + round as u16, payload.clone());
            let mut pieces = fragments(&question.build(), 600, 0x4242 + round);
            match round % 3 {
                0 => pieces.reverse(),
                1 => pieces.rotate_left(1),
                _ => pieces.swap(1, 2),
            }
            for piece in &pieces {
                client.wire.send(piece).unwrap();
            }
            client.expect(&format!("`{mode}`, round {round} to {vip}"), &payload);
        }
        let scrape = scene.scrape();
        let followed = sample(
            &scrape,
            "lb_early_fragments_total",
            &["outcome=\"followed\""],
        );
        // Of ten rounds two fragments in four and in three rounds.
        assert_eq!(followed, Some(2.0 * 2.0 * 7.0), "`{mode}`");
    }
}

/// Fragments without a first one are given up after a second, and counted.
#[test]
fn fragments_without_a_first() {
    let scene = Scene::listed_on("", &["v1"], "", &udp_service(1));
    let client = Client::new(&scene);
    let question = client.datagram(VIP, 20_000, vec![7; 1400]);
    for piece in &fragments(&question.build(), 600, 0x4343)[1..] {
        client.wire.send(piece).unwrap();
    }
    wait_for("fragments given up", PATIENCE, || {
        let scrape = scene.scrape();
        let expired = sample(
            &scrape,
            "lb_early_fragments_total",
            &["outcome=\"expired\""],
        );
        Ok((expired == Some(2.0)).then_some(()))
    })
    .unwrap();
    let held = sample(&scene.scrape(), "lb_packets_total", &["action=\"hold\""]);
    assert_eq!(held, Some(2.0));
}

/// Clients whose frames carry one tag or two get answers that carry the same.
#[test]
fn clients_behind_tags() {
    for mode in ["", "xdp_mode = \"off\""] {
        let scene = Scene::listed_on(mode, &["v1"], "", &udp_service(1));
        if !mode.is_empty() {
            for interface in scene.topology.node_interfaces() {
                link::offload(scene.topology.node(), &interface).unwrap();
            }
        }
        let mut client = Client::new(&scene);
        let cases: [&[(u16, u16)]; 3] = [
            &[(0x8100, 5)],
            &[(0x8100, 0x6005)],
            &[(0x88a8, 100), (0x8100, 7)],
        ];
        for (number, tags) in (0..).zip(cases) {
            for vip in [VIP, VIP6] {
                let what = format!("`{mode}`, {tags:04x?}, {vip}");
                let payload = vec![number as u8 + 1; 100];
                let question = client.datagram(vip, 21_000 + number, payload.clone());
                client.wire.send(&tagged(question.build(), tags)).unwrap();
                let frame = client.expect(&what, &payload);
                // The socket shows what lies in the frame; the outer tag it tells beside it.
                let inner = tags[1..]
                    .iter()
                    .map(|(kind, control)| (*kind, control & 0xfff));
                let inner: Vec<(u16, u16)> = inner.collect();
                let plain = [&frame[..12], &frame[12 + 4 * inner.len()..]].concat();
                assert_eq!(frame, tagged(plain.clone(), &inner), "{what}");
                let answer = dissect(&plain).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!((answer.src, answer.sport), (question.dst, question.dport));
                assert_eq!((answer.dst, answer.dport), (question.src, question.sport));
                let beside = client.wire.tag().map(|tag| tag & 0xfff);
                assert_eq!(beside, Some(tags[0].1 & 0xfff), "{what}");
            }
        }
    }
}
