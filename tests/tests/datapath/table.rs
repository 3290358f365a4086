//! The flow table when it is full, when flows end, and when the agent looks after it.

use std::time::Duration;

use lb_agent::datapath::Options;
use lb_common::{
    flow::{Lifetimes, State},
    maps::MIN_FLOW_SLOTS,
    verdict::Verdict,
};
use lb_tests::{
    packet::{ACK, Packet, RST, SYN},
    world::{World, answer_to},
};

use crate::memory;
use crate::traffic::{ALL, TCP4, TCP6, Traffic, UDP4, UDP6, at_client, forwarded, ip, used};

/// More clients than the smallest table has room for.
fn crowd(traffic: Traffic) -> impl Iterator<Item = Packet> {
    (0..MIN_FLOW_SLOTS as u16).map(move |index| traffic.request(20_000 + index, ACK))
}

/// Waits until the kernel's clock, which nobody can advance, has gone on by some ticks.
fn let_ticks_pass() {
    std::thread::sleep(std::time::Duration::from_millis(60));
}

/// Opens a flow that nobody answers.
fn knock(world: &mut World, request: &Packet) -> Result<Packet, Verdict> {
    let syn = Packet {
        flags: SYN,
        ..request.clone()
    };
    forwarded(world.request(&syn))
}

/// A full table refuses new flows and never lets go of an established one.
#[test]
fn full_of_established_flows() {
    World::with(|world| {
        for traffic in ALL {
            // TCP and UDP share a family's table.
            let all = ["::/0", "0.0.0.0/0"].map(|prefix| prefix.parse().unwrap());
            world.datapath.flows().cut_clients(&all).unwrap();
            traffic.serve(world, &[2, 3]);
            let mut flows = Vec::new();
            for request in crowd(traffic) {
                match traffic.establish(world, &request) {
                    Ok(sent) => flows.push((request, sent)),
                    Err(verdict) => assert_eq!(verdict, Verdict::DropTableFull, "{traffic:?}"),
                }
            }
            let slots = flows.len() * 2;
            // Two buckets of four ways each: hardly a slot is left.
            assert!(
                slots > MIN_FLOW_SLOTS as usize * 9 / 10,
                "{slots} slots used"
            );
            assert!(slots <= MIN_FLOW_SLOTS as usize);
            // Who was refused has left nothing behind.
            let established = used(world, traffic.v6, State::Established);
            assert_eq!(established, slots as u64, "{traffic:?}");
            assert_eq!(used(world, traffic.v6, State::HalfOpen), 0, "{traffic:?}");
            for (request, sent) in &flows {
                let again = forwarded(world.request(request)).unwrap();
                assert_eq!((again.dst, again.sport), (sent.dst, sent.sport));
                let answer = answer_to(&again, ACK);
                let got = forwarded(world.reply(&answer)).unwrap();
                assert_eq!(got, at_client(request, &answer));
            }
        }
    })
    .unwrap();
}

/// A packet that another CPU notes just after a tick is newer than the time that this one has read
/// before it. Its flow lives.
#[test]
fn noted_by_another_cpu_a_tick_later() {
    World::with(|world| {
        TCP4.serve(world, &[2, 3]);
        let flows: Vec<_> = crowd(TCP4)
            .filter_map(|request| Some((TCP4.establish(world, &request).ok()?, request)))
            .collect();
        memory::shift_times(world, 60_000);
        for index in 0..200 {
            let _ = knock(world, &TCP4.request(22_000 + index, SYN));
        }
        let established = used(world, false, State::Established);
        assert_eq!(established, 2 * flows.len() as u64);
        for (sent, request) in flows {
            let again = forwarded(world.request(&request)).unwrap();
            assert_eq!((again.dst, again.sport), (sent.dst, sent.sport));
        }
    })
    .unwrap();
}

/// Half-open flows keep their slots for their time only; after that new flows take them, a pair
/// at a time.
#[test]
fn full_of_half_open_flows() {
    World::with(|world| {
        // All at once: an agent that starts anew must not have to resolve a next hop first.
        for traffic in ALL {
            traffic.serve(world, &[2]);
        }
        for traffic in [TCP4, UDP6] {
            world
                .reopen(|options| {
                    options.lifetimes = Lifetimes::DEFAULT_SECONDS;
                    // Nobody gives way before the time is up.
                    options.grace = Duration::from_secs(60);
                })
                .unwrap();
            // One flow that lives, among the many.
            let survivor = traffic.request(19_999, ACK);
            let sent = traffic.establish(world, &survivor).unwrap();
            let mut refused = 0;
            for request in crowd(traffic) {
                match knock(world, &request) {
                    Ok(_) => {}
                    Err(Verdict::DropTableFull) => refused += 1,
                    Err(verdict) => panic!("{traffic:?}: {verdict:?}"),
                }
            }
            assert!(refused > 100, "{traffic:?}: {refused} refused");
            let occupied = used(world, traffic.v6, State::HalfOpen);
            assert!(occupied > 800, "{traffic:?}: {occupied}");

            // Few enough to find a place in an empty table for certain.
            let newcomers = || (0..50).map(|index| traffic.request(22_000 + index, ACK));
            let refused = newcomers()
                .filter(|request| knock(world, request).is_err())
                .count();
            assert!(refused > 25, "{traffic:?}: {refused} of 50 refused");

            let at_once = |options: &mut Options| {
                options.lifetimes.tcp_half_open = 0;
                options.lifetimes.udp_half_open = 0;
            };
            world.reopen(at_once).unwrap();
            let_ticks_pass();
            for request in newcomers() {
                let sent = traffic.establish(world, &request);
                sent.unwrap_or_else(|verdict| panic!("{traffic:?}: {verdict:?}"));
            }
            let again = forwarded(world.request(&survivor)).unwrap();
            assert_eq!((again.dst, again.sport), (sent.dst, sent.sport));
            let_ticks_pass();
            let census = world.datapath.flows().sweep().unwrap();
            // A slot that is taken frees its partner as well: no half is left alone.
            assert!(census.expired > 0 && census.expired % 2 == 0, "{census:?}");
            assert!(
                census.expired + 2 * 51 <= u64::from(MIN_FLOW_SLOTS),
                "{census:?}"
            );
            assert_eq!(census.backends.get(&traffic.backend_id(2)), Some(&51));
            assert_eq!(used(world, traffic.v6, State::Established), 2 * 51);
            assert_eq!(used(world, traffic.v6, State::HalfOpen), 0);
            assert_eq!(world.datapath.flows().sweep().unwrap().expired, 0);
        }
    })
    .unwrap();
}

/// A sweep counts every state of every kind, and frees exactly what is past its time.
#[test]
fn sweep_and_census() {
    World::with(|world| {
        let flows: [(Traffic, u16, u16, u16); 4] = [
            (TCP4, 3, 5, 2),
            (UDP4, 4, 6, 0),
            (TCP6, 2, 7, 1),
            (UDP6, 1, 2, 0),
        ];
        for (traffic, half_open, established, reset) in flows {
            traffic.serve(world, &[2]);
            let mut ports = 20_000..;
            let mut next = || traffic.request(ports.next().unwrap(), ACK);
            for _ in 0..half_open {
                knock(world, &next()).unwrap();
            }
            for _ in 0..established {
                traffic.establish(world, &next()).unwrap();
            }
            for _ in 0..reset {
                let request = next();
                traffic.establish(world, &request).unwrap();
                let rst = Packet {
                    flags: RST,
                    ..request
                };
                forwarded(world.request(&rst)).unwrap();
            }
        }
        let census = world.datapath.flows().sweep().unwrap();
        let mut used4 = [0; State::COUNT];
        used4[State::HalfOpen as usize] = 2 * (3 + 4);
        used4[State::Established as usize] = 2 * (5 + 6);
        used4[State::Reset as usize] = 2 * 2;
        let mut used6 = [0; State::COUNT];
        used6[State::HalfOpen as usize] = 2 * (2 + 1);
        used6[State::Established as usize] = 2 * (7 + 2);
        used6[State::Reset as usize] = 2;
        assert_eq!((census.used4, census.used6), (used4, used6));
        assert_eq!(
            (census.expired, census.slots),
            (0, u64::from(MIN_FLOW_SLOTS))
        );
        for (traffic, half_open, established, reset) in flows {
            let sum = u64::from(half_open + established + reset);
            assert_eq!(census.backends[&traffic.backend_id(2)], sum, "{traffic:?}");
        }

        let shorter = |options: &mut Options| {
            options.lifetimes.tcp_half_open = 0;
            options.lifetimes.udp_established = 0;
        };
        world.reopen(shorter).unwrap();
        let_ticks_pass();
        let census = world.datapath.flows().sweep().unwrap();
        assert_eq!(census.expired, 2 * (3 + 2 + 6 + 2));
        used4[State::HalfOpen as usize] = 2 * 4;
        used4[State::Established as usize] = 2 * 5;
        used6[State::HalfOpen as usize] = 2;
        used6[State::Established as usize] = 2 * 7;
        assert_eq!((census.used4, census.used6), (used4, used6));
    })
    .unwrap();
}

/// Clients within the prefixes lose their flows, both halves, and nobody else does.
#[test]
fn cut_clients_is_precise() {
    World::with(|world| {
        let mut flows = Vec::new();
        for traffic in ALL {
            traffic.serve(world, &[2]);
            for host in 1..=8 {
                let client = if traffic.v6 {
                    format!("fd99::{host}")
                } else {
                    format!("10.99.0.{host}")
                };
                let request = Packet {
                    src: ip(&client),
                    ..traffic.request(30_000 + host, ACK)
                };
                let sent = traffic.establish(world, &request).unwrap();
                flows.push((traffic, host, request, sent));
            }
        }
        // Hosts 2 and 3 by one prefix, 7 by itself; of a backend's address none is a client.
        let prefixes = |text: &[&str]| -> Vec<_> {
            text.iter().map(|prefix| prefix.parse().unwrap()).collect()
        };
        let v4 = prefixes(&[
            "10.99.0.2/31",
            "10.99.0.7/32",
            "10.99.1.0/24",
            "198.51.100.10/32",
        ]);
        let v6 = prefixes(&[
            "fd99::2/127",
            "fd99::7/128",
            "fd99:1::/64",
            "2001:db8::10/128",
        ]);
        let tables = world.datapath.flows();
        assert_eq!(
            tables
                .cut_clients(&prefixes(&["192.0.2.0/24", "::/128"]))
                .unwrap(),
            0
        );
        assert_eq!(tables.cut_clients(&v4).unwrap(), 6);
        assert_eq!(tables.cut_clients(&v6).unwrap(), 6);
        for (traffic, host, request, sent) in flows {
            let answer = answer_to(&sent, ACK);
            let expected = if [2, 3, 7].contains(&host) {
                Err(Verdict::PassUnknownReply)
            } else {
                Ok(at_client(&request, &answer))
            };
            let got = forwarded(world.reply(&answer));
            assert_eq!(got, expected, "{traffic:?}, host {host}");
        }
        assert_eq!(used(world, false, State::Established), 2 * 2 * 5);
        assert_eq!(used(world, true, State::Established), 2 * 2 * 5);
    })
    .unwrap();
}
