//! That the comparison can fail: by rules that are wrong on purpose, and by every single bit.

use std::collections::BTreeMap;

use super::{
    PLAIN, converse,
    flow::Flow,
    pair::{Pair, Step, differences},
    segment::{DF, MF, Segment, Sum, TCP, UDP},
    site::Arrival,
};
use crate::row::Side;

/// Packets after which a wrong rule must have shown.
const ENOUGH: u64 = 3000;

/// In words, and what nftables is told besides: at the hook where packets are forwarded, or before
/// the right rules translate them.
const FORWARDING: &[(&str, &str)] = &[
    ("TTL is set", "ip ttl set 64"),
    ("hop limit is set", "ip6 hoplimit set 64"),
    ("DSCP is cleared", "ip dscp set cs0"),
    ("traffic class is cleared", "ip6 dscp set cs0"),
    ("ECN is cleared", "ip ecn set not-ect"),
    ("identification is set", "ip id set 1"),
    ("flow label is set", "ip6 flowlabel set 7"),
    ("fragment field is cleared", "ip frag-off set 0"),
    (
        "segment size is lowered",
        "tcp flags syn tcp option maxseg size set 1200",
    ),
    ("window is set", "tcp window set 1000"),
    ("sequence is set", "tcp sequence set 1"),
    ("acknowledgement is set", "iifname back tcp ackseq set 1"),
    ("urgent pointer is set", "tcp urgptr set 1"),
    ("resets are dropped", "tcp flags & rst == rst drop"),
    ("UDP loses its checksum", "udp checksum set 0"),
    (
        "a byte of the payload is set",
        "udp dport 5353 udp length > 9 @th,64,8 set 0x41",
    ),
    (
        "answers without payload are dropped",
        "iifname back udp sport 5353 udp length 8 drop",
    ),
];
const TRANSLATING: &[(&str, &str)] = &[
    (
        "another port of the backend",
        "chain c { type nat hook prerouting priority dstnat - 1\n\
         ip daddr 198.51.100.10 udp dport 53 dnat to 10.99.1.2:5354\n}",
    ),
    (
        "ports out of range",
        "chain c { type nat hook postrouting priority srcnat - 1\n\
         oifname back tcp dport 8080 snat to 10.99.1.1:40000-50000\n}",
    ),
    (
        "another address of the node",
        "chain c { type nat hook postrouting priority srcnat - 1\n\
         oifname back tcp dport 8080 snat to 10.99.0.1:20000-29999\n}",
    ),
];

/// Each wrong rule of nftables shows as a difference; before and after them there is none.
#[test]
fn every_wrong_rule_shows() {
    let forwarding = FORWARDING.iter().map(|(what, rule)| {
        let chain = format!("chain c {{ type filter hook forward priority 0\n{rule}\n}}");
        (*what, format!("table inet wrong {{ {chain}\n}}"))
    });
    let translating = TRANSLATING
        .iter()
        .map(|(what, chain)| (*what, format!("table ip wrong {{ {chain}\n}}")));
    let mut pair = Pair::new(&PLAIN).unwrap();
    let mut try_with = |seed: u64, rules: &str| {
        let without: String = ["ip", "inet"]
            .map(|family| format!("table {family} wrong {{ }}\ndelete table {family} wrong\n"))
            .concat();
        pair.change_rules(&(without + rules)).unwrap();
        let enough = pair.frames + ENOUGH;
        converse(&mut pair, seed, enough)
    };
    try_with(1, "").unwrap();
    let mut missed = Vec::new();
    for (seed, (what, rules)) in (2..).zip(forwarding.chain(translating)) {
        match try_with(seed, &rules) {
            Ok(()) => missed.push(what),
            Err(difference) => {
                println!("{what}: {}", difference.lines().next().unwrap_or_default());
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    try_with(1_000, "").unwrap();
}

/// Frames as they come out, of every kind.
fn frames(flow: &Flow) -> Vec<Arrival> {
    let rich = |segment: Segment| Segment {
        tos: 0xb9,
        fragment: DF,
        options: if flow.v6 { vec![] } else { vec![1, 1, 1, 0] },
        tcp_options: if flow.proto == TCP {
            vec![1, 1, 1, 0]
        } else {
            vec![]
        },
        payload: b"something".to_vec(),
        ..segment
    };
    let (there, back) = (rich(flow.request_behind(0)), rich(flow.reply_in_front()));
    let mut frames = vec![
        (Side::Back, there.at(Side::Back)),
        (Side::Front, back.at(Side::Front)),
        (
            Side::Back,
            Segment {
                sum: Sum::Wrong(7),
                ..there.clone()
            }
            .at(Side::Back),
        ),
    ];
    if flow.proto == UDP {
        frames.push((
            Side::Front,
            Segment {
                sum: Sum::Absent,
                ..back.clone()
            }
            .at(Side::Front),
        ));
    }
    let (unreachable, other) = if flow.v6 {
        ((1, 4), "2001:db8:7::7")
    } else {
        ((3, 3), "192.0.2.7")
    };
    let quoted = [rich(flow.request()).packet(), rich(flow.reply(0)).packet()];
    for cut in [8, 20, 29] {
        let quote = |packet: &[u8]| {
            let header = if flow.v6 { 40 } else { 24 };
            packet[..packet.len().min(header + cut)].to_vec()
        };
        let to_client = Segment::message((other, &flow.client), unreachable, 0, &quote(&quoted[0]));
        let to_backend = Segment::message(
            (flow.node(), flow.backend()),
            unreachable,
            0,
            &quote(&quoted[1]),
        );
        // Translated, that is: the node's own come with all their hops.
        let [to_client, to_backend] = [to_client, to_backend].map(|s| Segment { ttl: 63, ..s });
        frames.push((Side::Front, to_client.at(Side::Front)));
        frames.push((Side::Back, to_backend.at(Side::Back)));
    }
    if !flow.v6 {
        let part = Segment {
            fragment: MF,
            payload: vec![3; 24],
            ..there
        };
        frames.push((Side::Back, part.at(Side::Back)));
    }
    frames
}

/// Any bit that is not as it was makes a difference.
#[test]
fn every_bit_counts() {
    let mut bits = 0;
    for (v6, proto) in super::rows::ALL {
        let mut flow = Flow::new(v6, proto, 2, 4321);
        flow.given = [25_000; 2];
        flow.anew = false;
        for (side, frame) in frames(&flow) {
            let step = Step::same("a bit", side, frame.clone());
            let found = |programs: Vec<u8>| {
                let arrivals = [vec![(side, frame.clone())], vec![(side, programs)]];
                let differs = differences(&step, &arrivals, &mut BTreeMap::new()).is_some();
                differs || flow.clone().learn(1, &arrivals[1]).is_err()
            };
            assert!(!found(frame.clone()), "the same differs: {frame:02x?}");
            for bit in 0..frame.len() * 8 {
                let mut other = frame.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    found(other),
                    "bit {bit} of {frame:02x?} makes no difference"
                );
                bits += 1;
            }
            for length in 0..frame.len() {
                assert!(
                    found(frame[..length].to_vec()),
                    "{length} bytes of {frame:02x?}"
                );
            }
        }
    }
    assert!(bits > 20_000, "only {bits} bits were tried");
}
