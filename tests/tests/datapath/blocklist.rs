//! The block list's structure against a plain model of it, its exceptions, and its size.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lb_agent::{datapath::hand_over, domain::kernel::Kernel as _};
use lb_common::{
    block::MAX_PAGES,
    maps::name,
    verdict::Verdict::{self, DropBlocked, PassForeign},
};
use lb_tests::{
    packet::{ACK, Packet},
    process::wait_for,
    tamper::Tamper,
    world::World,
};

use crate::{
    chance::Random,
    traffic::{ALL, TCP4, ip},
};

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// What becomes of a packet from there to nobody in particular.
fn verdict(world: &mut World, source: IpAddr) -> Verdict {
    let elsewhere = if source.is_ipv6() {
        "2001:db8::99"
    } else {
        "198.51.100.99"
    };
    let mut packet = Packet::tcp(elsewhere, 1, elsewhere, 2, ACK);
    packet.src = source;
    world.request(&packet).verdict
}

/// Rows of the exception, who is asked, and whether that one is dropped under these rules.
#[test]
fn exceptions_come_first() {
    let rules = [
        "10.1.0.0/16",
        "10.1.2.3/32",
        "20.0.0.0/7",
        "fd01::/32",
        "fd01::5/128",
    ]
    .map(net);
    let rows = [
        ("192.0.2.0/24", "10.1.2.3", true),
        ("10.1.2.3/32", "10.1.2.3", false),
        ("10.1.2.3/32", "10.1.2.4", true),
        ("10.1.2.0/24", "10.1.2.3", false),
        // Shorter than the rule, and equal to it.
        ("10.0.0.0/8", "10.1.2.3", false),
        ("10.1.0.0/16", "10.1.9.9", false),
        ("0.0.0.0/0", "21.2.3.4", false),
        ("0.0.0.0/0", "fd01::5", true),
        ("21.2.0.0/15", "21.3.255.255", false),
        ("21.2.0.0/15", "21.4.0.0", true),
        ("fd01::5/128", "fd01::5", false),
        ("fd01::5/128", "fd01::6", true),
        ("fd00::/8", "fd01::5", false),
        ("::/0", "10.1.2.3", true),
    ];
    World::with(|world| {
        world.datapath.block(&rules).unwrap();
        for (exception, source, is_dropped) in rows {
            let expected = if is_dropped { DropBlocked } else { PassForeign };
            let what = format!("{exception} is allowed, from {source}");
            world.datapath.allow(&[net(exception)].into()).unwrap();
            assert_eq!(verdict(world, ip(source)), expected, "{what}");
            // In another generation, and in another agent's hands.
            world.datapath.replace_blocked(&rules).unwrap();
            assert_eq!(verdict(world, ip(source)), expected, "{what}, list anew");
            world.datapath.allow(&BTreeSet::new()).unwrap();
            assert_eq!(verdict(world, ip(source)), DropBlocked, "{what} no more");
        }
        world
            .datapath
            .allow(&[net("10.1.2.3/32"), net("fd01::5/128")].into())
            .unwrap();
        world.reopen(|_| {}).unwrap();
        assert_eq!(verdict(world, ip("10.1.2.3")), PassForeign);
        assert_eq!(verdict(world, ip("fd01::5")), PassForeign);
        // What the adopted exceptions were is known: they can go.
        world.datapath.allow(&BTreeSet::new()).unwrap();
        assert_eq!(verdict(world, ip("10.1.2.3")), DropBlocked);
    })
    .unwrap();
}

/// Flows of whoever is blocked now end, those of whoever is excepted do not.
#[test]
fn flows_are_cut_where_the_list_says() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(20_444, ACK);
            traffic.establish(world, &request).unwrap();
        }
        let rules = ["10.0.0.0/8", "fd99::/64"].map(net);
        world.datapath.allow(&[net("10.99.0.2/32")].into()).unwrap();
        world.datapath.block(&rules).unwrap();
        assert_eq!(world.datapath.cut_blocked().unwrap(), 2, "the IPv6 ones");
        assert_eq!(world.datapath.cut_blocked().unwrap(), 0);
        world.datapath.allow(&BTreeSet::new()).unwrap();
        assert_eq!(world.datapath.cut_blocked().unwrap(), 2, "the others");
    })
    .unwrap();
}

/// A random prefix out of few addresses, so that prefixes lie within each other.
fn prefix(chance: &mut Random) -> IpNet {
    let address = address(chance);
    let most: u32 = if address.is_ipv6() { 129 } else { 33 };
    let length = match chance.below(4) {
        // The usual ones, and any.
        0 => most - 1,
        1 => [24, 16, 32, 8][chance.below(4) as usize],
        _ => chance.below(most),
    };
    IpNet::new(address, length as u8).unwrap().trunc()
}

fn address(chance: &mut Random) -> IpAddr {
    let bits = |chance: &mut Random| chance.below(4) << 6 | chance.below(4);
    if chance.below(2) == 0 {
        let bytes = [
            10,
            bits(chance) as u8,
            bits(chance) as u8,
            bits(chance) as u8,
        ];
        return Ipv4Addr::from(bytes).into();
    }
    let mut bytes = [0; 16];
    bytes[0] = 0x20;
    for byte in &mut bytes[1..] {
        // Mostly zero, or no two addresses would share a prefix.
        if chance.below(3) == 0 {
            *byte = bits(chance) as u8;
        }
    }
    Ipv6Addr::from(bytes).into()
}

/// Thousands of packets through the programs, while rules and exceptions come and go in every way:
/// the verdict, and the rule that counts, are those of a model that looks through all rules.
#[test]
fn what_a_plain_model_says() {
    World::with(|world| {
        let mut chance = Random::new(0x5eed_b10c);
        let mut rules: BTreeMap<IpNet, u64> = BTreeMap::new();
        let mut allowed: BTreeSet<IpNet> = BTreeSet::new();
        for round in 0..30 {
            let some: Vec<IpNet> = (0..chance.below(60)).map(|_| prefix(&mut chance)).collect();
            match round % 6 {
                0 | 1 => {
                    world.datapath.block(&some).unwrap();
                    for prefix in some {
                        rules.entry(prefix).or_default();
                    }
                }
                2 => {
                    let old: Vec<IpNet> = rules.keys().step_by(3).copied().collect();
                    world.datapath.unblock(&old).unwrap();
                    rules.retain(|prefix, _| !old.contains(prefix));
                }
                3 => {
                    let kept = rules.keys().step_by(2).copied();
                    let list: BTreeSet<IpNet> = some.into_iter().chain(kept).collect();
                    let sorted: Vec<IpNet> = list.iter().copied().collect();
                    world.datapath.replace_blocked(&sorted).unwrap();
                    rules.retain(|prefix, _| list.contains(prefix));
                    for prefix in list {
                        rules.entry(prefix).or_default();
                    }
                }
                4 => {
                    allowed = some
                        .into_iter()
                        .filter(|net| net.prefix_len() > 12)
                        .take(4)
                        .collect();
                    world.datapath.allow(&allowed).unwrap();
                }
                _ => world.reopen(|_| {}).unwrap(),
            }
            for _ in 0..60 {
                let source = address(&mut chance);
                let longest = rules
                    .iter_mut()
                    .filter(|(prefix, _)| prefix.contains(&source))
                    .max_by_key(|(prefix, _)| prefix.prefix_len());
                let is_allowed = allowed.iter().any(|prefix| prefix.contains(&source));
                let expected = match longest {
                    Some((_, count)) if !is_allowed => {
                        *count += 1;
                        DropBlocked
                    }
                    _ => PassForeign,
                };
                assert_eq!(
                    verdict(world, source),
                    expected,
                    "round {round}, from {source}"
                );
            }
            let mut held = world.datapath.blocked().unwrap();
            held.sort();
            let prefixes: Vec<IpNet> = rules.keys().copied().collect();
            assert_eq!(held, prefixes, "round {round}");
            let counted = world.datapath.block_stats(&prefixes).unwrap();
            for ((prefix, packets), counter) in rules.iter().zip(counted) {
                assert_eq!(counter.packets, *packets, "round {round}, {prefix}");
            }
            let top = world.datapath.block_top(3).unwrap();
            let most = rules.values().copied().max().unwrap_or_default();
            assert_eq!(top.first().map_or(0, |(_, counter)| counter.packets), most);
        }
    })
    .unwrap();
}

/// A million rules of all usual lengths: found, told from their neighbours, taken over, replaced
/// and freed.
#[test]
fn a_million_rules() {
    let rule = |number: u32| -> IpNet {
        let spread = number.wrapping_mul(0x9e37_79b1);
        let address: IpAddr = if number.is_multiple_of(4) {
            Ipv6Addr::from(0x2000 << 112 | u128::from(spread) << 80 | u128::from(number)).into()
        } else {
            Ipv4Addr::from(spread).into()
        };
        let length = if number.is_multiple_of(4) {
            [128, 64, 48, 56][(number / 4 % 4) as usize]
        } else {
            [32, 32, 32, 24, 28, 22, 32, 20][(number / 4 % 8) as usize]
        };
        IpNet::new(address, length).unwrap().trunc()
    };
    World::with(|world| {
        let rules: BTreeSet<IpNet> = (0..1_000_000).map(rule).collect();
        let rules: Vec<IpNet> = rules.into_iter().collect();
        let begun = Instant::now();
        world.datapath.replace_blocked(&rules).unwrap();
        let took = begun.elapsed();
        let memory = world.datapath.block_mebibytes();
        eprintln!(
            "{} rules in force after {took:?}, in {memory} MiB",
            rules.len()
        );
        assert!(memory < 160, "{memory} MiB");
        for number in (0..1_000_000).step_by(997) {
            let prefix = rule(number);
            assert_eq!(verdict(world, prefix.network()), DropBlocked, "{prefix}");
            assert_eq!(verdict(world, prefix.broadcast()), DropBlocked, "{prefix}");
        }
        let covered = |source: IpAddr| {
            let v6 = source.is_ipv6();
            let lengths: &[u8] = if v6 {
                &[128, 64, 56, 48]
            } else {
                &[32, 28, 24, 22, 20]
            };
            lengths.iter().any(|length| {
                let prefix = IpNet::new(source, *length).unwrap().trunc();
                rules.binary_search(&prefix).is_ok()
            })
        };
        let mut chance = Random::new(7);
        for _ in 0..2000 {
            let number = chance.below(u32::MAX);
            let source = Ipv4Addr::from(number).into();
            let expected = if covered(source) {
                DropBlocked
            } else {
                PassForeign
            };
            assert_eq!(verdict(world, source), expected, "{source}");
        }
        let begun = Instant::now();
        world.reopen(|_| {}).unwrap();
        eprintln!("taken over after {:?}", begun.elapsed());
        assert_eq!(world.datapath.blocked().unwrap().len(), rules.len());
        let begun = Instant::now();
        world.datapath.block(&[net("10.99.0.2/32")]).unwrap();
        eprintln!("one more after {:?}", begun.elapsed());
        assert_eq!(verdict(world, ip("10.99.0.2")), DropBlocked);
        // Flows are looked through once, whatever the number of rules.
        TCP4.serve(world, &[2]);
        let begun = Instant::now();
        world.datapath.cut_blocked().unwrap();
        eprintln!("flows cut after {:?}", begun.elapsed());
        world.datapath.replace_blocked(&rules[..10]).unwrap();
        assert_eq!(
            world.datapath.block_mebibytes(),
            1,
            "ten rules take one page"
        );
        world.datapath.unblock(&rules[..10]).unwrap();
        assert_eq!(world.datapath.block_mebibytes(), 0);
    })
    .unwrap();
}

/// Pages that a former agent did not come to take out of the map are let go of after a start, also by a
/// list that comes at once; what is in force stays.
#[test]
fn what_was_left_is_freed_after_a_start() {
    World::with(|world| {
        let source = ip("192.0.2.1");
        world.datapath.block(&[net("192.0.2.0/24")]).unwrap();
        let tamper = Tamper::new(world.pins());
        let before = tamper.block_pages().unwrap();
        for at_once in [false, true] {
            let former = tamper.block_pages().unwrap();
            for slot in [300, 511, 700, MAX_PAGES - 1] {
                tamper.copy_block_page(0, slot).unwrap();
            }
            world.reopen(|_| {}).unwrap();
            assert_eq!(verdict(world, source), DropBlocked);
            if at_once {
                let all = [net("192.0.2.0/24"), net("203.0.113.0/24")];
                world.datapath.replace_blocked(&all).unwrap();
                assert_eq!(verdict(world, ip("203.0.113.9")), DropBlocked);
            }
            assert_eq!(verdict(world, source), DropBlocked);
            wait_for("pages to go", Duration::from_secs(20), || {
                let left = tamper.block_pages()?;
                let as_many = left.len() == before.len();
                Ok((as_many && (at_once || left == former)).then_some(()))
            })
            .unwrap();
        }
    })
    .unwrap();
}

/// Root hands over pages, and nothing else that somebody pins in their place.
#[test]
fn only_pages_are_handed_over() {
    World::with(|world| {
        world.datapath.block(&[net("192.0.2.0/24")]).unwrap();
        let handed = hand_over(world.pins()).unwrap();
        assert_eq!(handed.len(), 1, "{handed:?}");
        let tamper = Tamper::new(world.pins());
        for other in [name::NEXTHOPS, name::MAGLEV, name::META] {
            tamper.pose_as_block_list(other).unwrap();
            let error = hand_over(world.pins()).unwrap_err().to_string();
            assert!(error.contains("no map of pages"), "{other}: {error}");
        }
    })
    .unwrap();
}
