//! Who may use a service, and which backend a client meets: `allow` and `affinity`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use lb_agent::domain::{
    kernel::{Step, Treatment},
    service::Affinity,
};
use lb_common::verdict::Verdict::{DropNotAllowed, ForwardRequest, PassUnknownReply};
use lb_tests::{
    packet::{ACK, RST, SYN},
    world::{World, action, answer_to},
};

use crate::{
    row::{Row, Side},
    traffic::{ALL, TCP4, TCP6, Traffic, forwarded, ip, number_of},
};

const PORT: u16 = 20_777;

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts
        .iter()
        .map(|text| text.parse().expect("a prefix"))
        .collect()
}

fn restricted() -> Treatment {
    Treatment {
        restricted: true,
        ..Treatment::default()
    }
}

/// The text for the family of the traffic.
fn of<'a>(traffic: Traffic, v4: &'a str, v6: &'a str) -> &'a str {
    if traffic.v6 { v6 } else { v4 }
}

fn admit(world: &mut World, traffic: Traffic, ranges: &[&str]) {
    let steps = [
        Step::PutSources(traffic.id(), nets(ranges)),
        traffic.put_vip(restricted()),
        Step::CutStrangers(BTreeSet::from([traffic.id()])),
    ];
    world.apply(&steps).expect("steps");
}

/// A client inside connects, one outside is refused whatever it sends, and what is changed counts
/// for the next packet.
#[test]
fn only_admitted_sources_begin_flows() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let inside = of(traffic, "10.99.0.0/25", "fd99::/120");
            admit(world, traffic, &[inside]);
            let request = traffic.request(PORT, SYN);
            let out = (action::REDIRECT, traffic.at_backend(&request, 2, PORT));
            let what = format!("{traffic:?}, inside");
            Row::forwarded(what, Side::Front, &request, ForwardRequest, out).check(world);
            let outside = of(traffic, "10.99.0.128", "fd99::100");
            for flags in [SYN, ACK, RST, SYN | ACK] {
                let mut packet = traffic.request(PORT, flags);
                packet.src = ip(outside);
                let what = format!("{traffic:?}, outside, {flags:#x}");
                Row::refused(what, Side::Front, packet.build(), DropNotAllowed).check(world);
            }
            // Another range, by one bit longer than the address allows for: the other half.
            let longer = of(traffic, "10.99.0.128/25", "fd99::100/120");
            admit(world, traffic, &[inside, longer]);
            let mut packet = traffic.request(PORT + 1, SYN);
            packet.src = ip(outside);
            assert_eq!(world.request(&packet).verdict, ForwardRequest);
            // Nobody.
            admit(world, traffic, &[]);
            let frame = traffic.request(PORT + 2, SYN).build();
            Row::refused("nobody", Side::Front, frame, DropNotAllowed).check(world);
            // Everybody, by an empty prefix.
            admit(world, traffic, &[of(traffic, "0.0.0.0/0", "::/0")]);
            assert_eq!(
                world.request(&traffic.request(PORT + 3, SYN)).verdict,
                ForwardRequest
            );
        }
    })
    .unwrap();
}

/// What one service admits is nothing to another, and a service without ranges admits all.
#[test]
fn services_are_restricted_one_by_one() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
        }
        for traffic in [TCP4, TCP6] {
            admit(
                world,
                traffic,
                &[of(traffic, "192.0.2.0/24", "2001:db8:1::/48")],
            );
        }
        for traffic in ALL {
            let verdict = world.request(&traffic.request(PORT, SYN)).verdict;
            let expected = if traffic.tcp {
                DropNotAllowed
            } else {
                ForwardRequest
            };
            assert_eq!(verdict, expected, "{traffic:?}");
            // Restricted no more.
            let steps = [
                traffic.put_vip(Treatment::default()),
                Step::PutSources(traffic.id(), BTreeSet::new()),
            ];
            world.apply(&steps).unwrap();
            let verdict = world.request(&traffic.request(PORT + 1, SYN)).verdict;
            assert_eq!(verdict, ForwardRequest, "{traffic:?}");
        }
    })
    .unwrap();
}

/// The flows of a client that is not admitted any more end at once, in both directions; those of
/// others, and of other services, go on.
#[test]
fn flows_of_strangers_are_cut() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
        }
        let other = |traffic: Traffic| {
            let mut packet = traffic.request(PORT, ACK);
            packet.src = ip(of(traffic, "10.99.0.9", "fd99::9"));
            packet
        };
        let mut at_backends = Vec::new();
        for traffic in ALL {
            let stays = traffic.request(PORT, ACK);
            traffic.establish(world, &stays).unwrap();
            at_backends.push(traffic.establish(world, &other(traffic)).unwrap());
        }
        for (index, traffic) in ALL.into_iter().enumerate() {
            admit(world, traffic, &[of(traffic, "10.99.0.0/29", "fd99::/125")]);
            let answer = answer_to(&at_backends[index], ACK);
            assert_eq!(
                world.reply(&answer).verdict,
                PassUnknownReply,
                "{traffic:?}"
            );
            assert_eq!(world.request(&other(traffic)).verdict, DropNotAllowed);
            let stays = traffic.request(PORT, ACK);
            assert_eq!(world.request(&stays).verdict, ForwardRequest, "{traffic:?}");
            for untouched in &ALL[index + 1..] {
                let verdict = world.request(&other(*untouched)).verdict;
                assert_eq!(verdict, ForwardRequest, "{untouched:?}");
            }
        }
    })
    .unwrap();
}

/// A new agent knows what the former one admitted.
#[test]
fn sources_are_adopted() {
    use lb_agent::domain::kernel::Kernel as _;
    World::with(|world| {
        let wanted = [
            (TCP4, nets(&["10.99.0.0/29", "192.0.2.7/32"])),
            (TCP6, nets(&["fd99::/125", "::/0"])),
        ];
        for (traffic, ranges) in &wanted {
            traffic.serve(world, &[2]);
            let treatment = Treatment {
                affinity: Affinity::Client,
                ..restricted()
            };
            let steps = [
                Step::PutSources(traffic.id(), ranges.clone()),
                traffic.put_vip(treatment),
            ];
            world.apply(&steps).unwrap();
        }
        world.reopen(|_| {}).unwrap();
        let view = world.datapath.adopt().unwrap();
        for (traffic, ranges) in &wanted {
            assert_eq!(view.sources.get(&traffic.id()), Some(ranges));
            let treatment = view.vips[&traffic.key()].treatment;
            assert!(treatment.restricted && treatment.affinity == Affinity::Client);
        }
        // What is changed now replaces what was found.
        let narrowed = nets(&["192.0.2.7/32"]);
        let step = Step::PutSources(TCP4.id(), narrowed.clone());
        world.apply(&[step]).unwrap();
        assert_eq!(
            world.request(&TCP4.request(PORT, SYN)).verdict,
            DropNotAllowed
        );
        world.reopen(|_| {}).unwrap();
        let view = world.datapath.adopt().unwrap();
        assert_eq!(view.sources.get(&TCP4.id()), Some(&narrowed));
    })
    .unwrap();
}

/// Where each client's connections go: host numbers of backends by that of the client.
fn homes(world: &mut World, traffic: Traffic, port: u16) -> BTreeMap<u8, BTreeSet<u8>> {
    use lb_agent::domain::kernel::Kernel as _;
    let mut homes: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
    for host in 2..38_u8 {
        for offset in 0..2 {
            let mut packet = traffic.request(port + offset, SYN);
            packet.src = if traffic.v6 {
                ip(&format!("fd99::{host:x}"))
            } else {
                ip(&format!("10.99.0.{host}"))
            };
            let sent = forwarded(world.request(&packet)).expect("forwarded");
            homes.entry(host).or_default().insert(number_of(sent.dst));
        }
    }
    // Room for the next.
    world
        .datapath
        .cut_clients(&["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()])
        .unwrap();
    homes
}

/// A client meets one backend whatever its port; clients share all backends; and when one backend
/// goes, only its clients move.
#[test]
fn a_client_stays_with_its_backend() {
    World::on_each_hook(|world| {
        for traffic in ALL {
            let all = [2, 3, 4, 5, 6];
            traffic.serve(world, &all);
            let by_client = Treatment {
                affinity: Affinity::Client,
                ..Treatment::default()
            };
            // Without affinity the ports of a client go different ways.
            let spread = homes(world, traffic, 21_000);
            assert!(spread.values().any(|home| home.len() > 1), "{traffic:?}");
            world.apply(&[traffic.put_vip(by_client)]).unwrap();
            let before = homes(world, traffic, 22_000);
            assert!(before.values().all(|home| home.len() == 1), "{before:?}");
            let used: BTreeSet<u8> = before.values().flatten().copied().collect();
            assert_eq!(used, BTreeSet::from(all), "{traffic:?}");
            let fewer: Vec<(u8, u32)> = all[1..].iter().map(|number| (*number, 1)).collect();
            world.apply(&[traffic.put_table(&fewer)]).unwrap();
            let after = homes(world, traffic, 23_000);
            let moved = before
                .iter()
                .filter(|(host, home)| !home.contains(&2) && after[*host] != **home)
                .count();
            // Maglev disturbs a few slots of the others (Eisenbud et al. 2016, section 5.3).
            assert!(
                moved <= 6,
                "{traffic:?}: {moved} clients of other backends moved"
            );
        }
    })
    .unwrap();
}
