//! A flood of connections that never come to anything, and who has to give way to it.

use std::time::Duration;

use lb_agent::datapath::Budget;
use lb_common::{flow::State, maps::MIN_FLOW_SLOTS, verdict::Verdict};
use lb_tests::{
    packet::{ACK, FIN, Packet, SYN},
    world::{World, answer_to},
};

use crate::traffic::{ALL, TCP4, TCP6, Traffic, at_client, forwarded, ip, used};

/// Slots of the table that is flooded.
const SLOTS: u32 = 2 * MIN_FLOW_SLOTS;
/// Long enough for any handshake here, short enough for the flood to turn the table over.
const GRACE: Duration = Duration::from_millis(20);

/// The `index`th knock of a flood, from an address of its own.
fn knock(traffic: Traffic, index: u32) -> Packet {
    let client = if traffic.v6 {
        format!("fd99:f::{index:x}")
    } else {
        let [_, a, b, c] = index.to_be_bytes();
        format!("10.{}.{b}.{c}", 128 + a)
    };
    Packet {
        src: ip(&client),
        ..traffic.request(30_000 + (index % 30_000) as u16, SYN)
    }
}

/// Ten times the table's size in half-open flows: no established flow is harmed, and of those who
/// go on after the answer 99 in a hundred get through.
#[test]
fn ten_times_the_table() {
    World::with_options(
        |options| {
            options.grace = GRACE;
            options.flow_slots = SLOTS;
        },
        |world| {
            for traffic in ALL {
                traffic.serve(world, &[2, 3, 4, 5]);
                // TCP and UDP share a family's table.
                let all = ["::/0", "0.0.0.0/0"].map(|prefix| prefix.parse().unwrap());
                world.datapath.flows().cut_clients(&all).unwrap();
                let flows: Vec<_> = (0..60)
                    .map(|index| {
                        let request = traffic.request(20_000 + index, ACK);
                        let sent = traffic.establish(world, &request).unwrap();
                        (request, sent)
                    })
                    .collect();
                let (mut honest, mut through) = (0, 0);
                for index in 0..10 * SLOTS {
                    // The flood may be refused; it is nobody.
                    let _ = forwarded(world.request(&knock(traffic, index)));
                    if index % 100 == 0 {
                        // Spread over the time: the flood must not come in less than it takes
                        // to answer.
                        std::thread::sleep(GRACE / 8);
                        honest += 1;
                        let request = traffic.request(25_000 + (index / 100) as u16, ACK);
                        through += u32::from(traffic.establish(world, &request).is_ok());
                    }
                }
                assert!(
                    through * 100 >= honest * 99,
                    "{traffic:?}: {through} of {honest}"
                );
                for (request, sent) in flows {
                    let again = forwarded(world.request(&request)).unwrap();
                    assert_eq!(
                        (again.dst, again.sport),
                        (sent.dst, sent.sport),
                        "{traffic:?}"
                    );
                    let answer = answer_to(&again, ACK);
                    let got = forwarded(world.reply(&answer)).unwrap();
                    assert_eq!(got, at_client(&request, &answer));
                }
            }
            let evicted = world.evictions().unwrap();
            assert!(evicted.half_open > 1000, "{evicted:?}");
        },
    )
    .unwrap();
}

/// Whoever has not had the time for an answer is safe.
#[test]
fn the_young_are_safe() {
    World::with_options(
        |options| options.grace = Duration::from_secs(600),
        |world| {
            TCP4.serve(world, &[2, 3]);
            let first: Vec<_> = (0..100).map(|index| knock(TCP4, index)).collect();
            for syn in &first {
                forwarded(world.request(syn)).unwrap();
            }
            for index in 0..2 * MIN_FLOW_SLOTS {
                let _ = forwarded(world.request(&knock(TCP4, 1000 + index)));
            }
            assert_eq!(world.evictions().unwrap().half_open, 0);
            for syn in &first {
                let sent = forwarded(world.request(syn)).unwrap();
                let answer = answer_to(&sent, SYN | ACK);
                forwarded(world.reply(&answer)).unwrap();
            }
        },
    )
    .unwrap();
}

/// What both sides have closed keeps its port for a while, and gives way when there is no other
/// place.
#[test]
fn the_closed_give_way_first() {
    World::with(|world| {
        for traffic in [TCP4, TCP6] {
            traffic.serve(world, &[2, 3]);
            let mut refused = 0;
            for index in 0..2 * MIN_FLOW_SLOTS as u16 {
                let request = traffic.request(20_000 + index, ACK);
                let Ok(sent) = traffic.establish(world, &request) else {
                    refused += 1;
                    continue;
                };
                let fin = Packet {
                    flags: FIN | ACK,
                    ..request
                };
                forwarded(world.request(&fin)).unwrap();
                forwarded(world.reply(&answer_to(&sent, FIN | ACK))).unwrap();
            }
            assert_eq!(refused, 0, "{traffic:?}");
            assert!(world.evictions().unwrap().closed > 0);
            let left = used(world, traffic.v6, State::Finished);
            assert!(left > u64::from(MIN_FLOW_SLOTS) / 2, "{traffic:?}: {left}");
        }
    })
    .unwrap();
}

/// More than the budget is refused under a name of its own, and only what is new.
#[test]
fn over_the_budget() {
    World::with_options(
        |options| options.budget = Budget::PerSecond(80),
        |world| {
            TCP4.serve(world, &[2, 3]);
            let known = TCP4.request(20_000, ACK);
            TCP4.establish(world, &known).unwrap();
            let verdicts: Vec<_> = (0..200)
                .map(|index| forwarded(world.request(&knock(TCP4, index))))
                .collect();
            let admitted = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
            let refused = verdicts
                .iter()
                .filter(|verdict| **verdict == Err(Verdict::DropBudget))
                .count();
            assert_eq!(admitted + refused, 200);
            assert!(admitted > 0 && refused > 0, "{admitted} and {refused}");
            forwarded(world.request(&known)).unwrap();
            // A new window, a new budget.
            std::thread::sleep(Duration::from_millis(300));
            forwarded(world.request(&knock(TCP4, 1000))).unwrap();
        },
    )
    .unwrap();
}
