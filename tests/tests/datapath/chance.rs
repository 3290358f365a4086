//! Many flows by chance: they do not get in each other's way, and backends get their shares.

use std::collections::{BTreeMap, BTreeSet};

use lb_agent::datapath::Options;
use lb_common::verdict::Verdict;
use lb_tests::{
    packet::{ACK, Packet, SYN},
    stats,
    world::{World, answer_to},
};

use crate::traffic::{ALL, SLOTS, at_client, forwarded, ip, number_of};

/// Numbers that look random and are the same in every run (xorshift64, Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    /// `seed` must not be zero.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// Room for everything that is tried here: both tables and ports are given by chance, and refuse
/// a few in ten thousand long before they are full.
fn roomy(options: &mut Options) {
    options.flow_slots = 1 << 18;
    options.ports = (10_000, 65_000);
}

/// A thousand flows from few clients with few ports, so that they collide: no two have the same
/// port towards a backend, and every answer finds the client that asked.
#[test]
fn a_thousand_flows_keep_apart() {
    World::with_options(roomy, |world| {
        let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
        for traffic in ALL {
            traffic.serve(world, &[2, 3, 4]);
        }
        let mut asked = BTreeSet::new();
        let mut flows = Vec::new();
        let mut pairs = BTreeSet::new();
        while flows.len() < 1000 {
            let traffic = ALL[random.below(4) as usize];
            let host = 10 + random.below(40);
            let client = if traffic.v6 {
                format!("fd99::{host}")
            } else {
                format!("10.99.0.{host}")
            };
            // Half of them within the node's range.
            let port = [20_000, 40_000][random.below(2) as usize] + random.below(10) as u16;
            let request = Packet {
                src: ip(&client),
                smac: [2, 0, 0, 0, 9, host as u8],
                ..traffic.request(port, SYN)
            };
            if !asked.insert((request.src, port, request.proto)) {
                continue;
            }
            let sent = forwarded(world.request(&request)).unwrap();
            let pair = (sent.src, sent.sport, sent.dst, sent.dport, sent.proto);
            assert!(pairs.insert(pair), "{pair:?} given twice");
            flows.push((request, sent));
        }
        for (request, sent) in &flows {
            let answer = answer_to(sent, SYN | ACK);
            let got = forwarded(world.reply(&answer)).unwrap();
            assert_eq!(got, at_client(request, &answer));
        }
        for (request, sent) in &flows {
            let request = Packet {
                flags: ACK,
                ..request.clone()
            };
            let again = forwarded(world.request(&request)).unwrap();
            assert_eq!((again.dst, again.sport), (sent.dst, sent.sport));
        }
    })
    .unwrap();
}

/// Ten thousand flows go to backends by weight: three standard deviations and a slot of the
/// table. A fair draw leaves these bounds a few times in a thousand, so it has a second chance.
#[test]
fn shares_follow_weights() {
    const FLOWS: usize = 10_000;
    const WEIGHTS: [(u8, u32); 4] = [(2, 1), (3, 2), (4, 5), (5, 10)];
    World::with_options(roomy, |world| {
        let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut random = Random::new(0x2545_f491_4f6c_dd1d);
        for traffic in [ALL[0], ALL[3]] {
            traffic.serve_weighted(world, &WEIGHTS);
            let mut sample = || {
                let all = ["::/0", "0.0.0.0/0"].map(|prefix| prefix.parse().unwrap());
                world.datapath.flows().cut_clients(&all).unwrap();
                let mut shares: BTreeMap<u8, usize> = BTreeMap::new();
                for _ in 0..FLOWS {
                    // Whole random addresses: the same one twice would be one flow.
                    let [high, low] = [random.below(u32::MAX), random.below(u32::MAX)];
                    let request = Packet {
                        src: if traffic.v6 {
                            let high = u128::from(high) << 32 | u128::from(low);
                            std::net::Ipv6Addr::from((0xfd99_u128 << 112) + high).into()
                        } else {
                            std::net::Ipv4Addr::from(0x0a00_0000 | high & 0x00ff_ffff).into()
                        },
                        ..traffic.request(1024 + (low % 60_000) as u16, SYN)
                    };
                    let frame = request.build();
                    let (_, frame) = world.datapath.test_run(&frame, world.front).unwrap();
                    let sent = lb_tests::packet::dissect(&frame).unwrap();
                    *shares.entry(number_of(sent.dst)).or_default() += 1;
                }
                shares
            };
            let slot = FLOWS.div_ceil(SLOTS as usize);
            let fair = |shares: &BTreeMap<u8, usize>| {
                WEIGHTS.iter().all(|(number, weight)| {
                    let p = f64::from(*weight) / f64::from(total);
                    let (low, high) = stats::binomial_bounds(FLOWS, p);
                    let share = shares.get(number).copied().unwrap_or(0);
                    (low - slot..=high + slot).contains(&share)
                })
            };
            let first = sample();
            if !fair(&first) {
                let second = sample();
                assert!(fair(&second), "{traffic:?}: {first:?}, then {second:?}");
            }
        }
        let counted = lb_agent::domain::kernel::Kernel::verdicts(&world.datapath).unwrap();
        let requests = counted[Verdict::ForwardRequest as usize].packets;
        assert_eq!(requests % FLOWS as u64, 0, "every flow was forwarded");
    })
    .unwrap();
}
