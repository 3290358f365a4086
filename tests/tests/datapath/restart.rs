//! What an agent that is started again finds, and what is left when the load balancer is removed.

use aya::programs::{SchedClassifier, TcAttachType};
use lb_agent::{
    datapath::{self, Datapath, Mode},
    domain::kernel::{Kernel as _, KernelBackend, KernelVip, Step},
};
use lb_common::verdict::Verdict;
use lb_tests::{
    packet::{ACK, SYN},
    world::{World, answer_to},
};

use crate::traffic::{ALL, SLOTS, TCP4, at_client, forwarded, number_of};

/// Everything is as before: flows, tables, VIPs, backends, rules and counters.
#[test]
fn adoption() {
    World::with(|world| {
        let mut flows = Vec::new();
        for traffic in ALL {
            traffic.serve(world, &[2, 3, 4]);
            for port in 20_000..20_020 {
                let request = traffic.request(port, ACK);
                let sent = traffic.establish(world, &request).unwrap();
                flows.push((traffic, request, sent));
            }
        }
        world.apply(&[TCP4.put_backend(4, false)]).unwrap();
        let rules = ["192.0.2.0/24", "198.51.100.7/32", "2001:db8:1::/48"]
            .map(|prefix| prefix.parse::<ipnet::IpNet>().unwrap());
        world.datapath.block(&rules).unwrap();
        let mut bad = TCP4.request(1, SYN);
        bad.src = "192.0.2.1".parse().unwrap();
        assert_eq!(world.request(&bad).verdict, Verdict::DropBlocked);
        let view = world.datapath.adopt().unwrap();
        let verdicts = world.datapath.verdicts().unwrap();
        let stats = world.datapath.backend_stats(TCP4.backend_id(2)).unwrap();
        assert!(stats.flows > 0);

        // Sizes count only where there are no tables yet.
        world.reopen(|options| options.flow_slots *= 4).unwrap();

        assert_eq!(world.datapath.flow_slots() * 4, world.options().flow_slots);
        assert_eq!(world.datapath.verdicts().unwrap(), verdicts);
        assert_eq!(
            world.datapath.backend_stats(TCP4.backend_id(2)).unwrap(),
            stats
        );
        let adopted = world.datapath.adopt().unwrap();
        assert_eq!(adopted, view);
        assert_eq!(adopted.vips.len(), 4);
        for traffic in ALL {
            let vip = KernelVip {
                service: traffic.id(),
                slots: SLOTS,
                treatment: Default::default(),
            };
            assert_eq!(adopted.vips[&traffic.key()], vip);
            for number in 2..=4 {
                let Step::PutBackend(id, backend) = traffic.put_backend(number, true) else {
                    unreachable!("a step that puts a backend")
                };
                let active = (traffic, number) != (TCP4, 4);
                let expected = KernelBackend { active, ..backend };
                assert_eq!(adopted.backends[&id], expected);
            }
        }
        let mut blocked = world.datapath.blocked().unwrap();
        blocked.sort();
        assert_eq!(blocked, {
            let mut rules: Vec<_> = rules.to_vec();
            rules.sort();
            rules
        });
        assert_eq!(
            world.datapath.block_stats(&rules[..1]).unwrap()[0].packets,
            1
        );
        assert_eq!(world.request(&bad).verdict, Verdict::DropBlocked);

        // The seed is the same: flows are found, and a new flow of a table that was not written
        // anew goes where it would have gone.
        for (traffic, request, sent) in &flows {
            let again = forwarded(world.request(request)).unwrap();
            assert_eq!(
                (again.dst, again.sport),
                (sent.dst, sent.sport),
                "{traffic:?}"
            );
            let answer = answer_to(&again, ACK);
            let got = forwarded(world.reply(&answer)).unwrap();
            assert_eq!(got, at_client(request, &answer));
        }
        let all = ["::/0", "0.0.0.0/0"].map(|prefix| prefix.parse().unwrap());
        let flows_before = flows.len() as u64;
        assert_eq!(world.datapath.cut_clients(&all).unwrap(), flows_before);
        for (traffic, request, sent) in &flows {
            if *traffic == TCP4 {
                // One of its backends no longer takes flows.
                continue;
            }
            let again = forwarded(world.request(request)).unwrap();
            assert_eq!(number_of(again.dst), number_of(sent.dst), "{traffic:?}");
        }
    })
    .unwrap();
}

/// Backends are found however far apart their ids lie.
#[test]
fn adoption_of_scattered_backends() {
    World::with(|world| {
        let Step::PutBackend(_, backend) = TCP4.put_backend(2, true) else {
            unreachable!("a step that puts a backend")
        };
        let ids = [0, 4095, 4096, 10_000, 100_000, 262_143];
        let steps = ids.map(|id| Step::PutBackend(id, backend));
        world.apply(&steps).unwrap();
        world.reopen(|_| {}).unwrap();
        let adopted = world.datapath.adopt().unwrap();
        assert_eq!(adopted.backends.keys().copied().collect::<Vec<_>>(), ids);
    })
    .unwrap();
}

/// Programs stay on their interfaces without the agent; the next one takes them over; `detach`
/// takes everything away.
#[test]
fn attach_adopt_and_detach() {
    World::with(|world| {
        for adopted in [false, true, true] {
            let datapath = Datapath::open(world.options()).unwrap();
            let attached: Vec<(&str, u32, bool)> = datapath
                .attached()
                .iter()
                .map(|one| (one.name.as_str(), one.ifindex, one.adopted))
                .collect();
            let expected = [
                ("front", world.front, adopted),
                ("back", world.back, adopted),
            ];
            assert_eq!(attached, expected);
            drop(datapath);
            assert_eq!(programs(), 2, "they stay when the agent goes");
        }
        // One interface less: its program goes, the other's stays.
        let mut options = world.options().clone();
        options.interfaces.pop();
        drop(Datapath::open(&options).unwrap());
        assert_eq!(programs(), 1);

        let removed = datapath::detach(world.pins()).unwrap();
        let expected = [
            "front (native XDP)",
            "front (tc finish)",
            "front (tc egress)",
        ];
        assert_eq!(removed.len(), expected.len() + 1, "{removed:?}");
        for (line, expected) in removed.iter().zip(expected) {
            assert!(line.contains(expected), "{removed:?}");
        }
        assert_eq!(programs(), 0);
        assert!(!world.pins().exists());
        // Nothing left to remove is no error.
        assert!(datapath::detach(world.pins()).unwrap().is_empty());

        // What comes after is new: no flows, another seed, counters at zero.
        let fresh = Datapath::open_detached(world.options()).unwrap();
        let view = fresh.verdicts().unwrap();
        assert!(view.iter().all(|counter| counter.packets == 0));
    })
    .unwrap();
}

/// The same without XDP, by links and by filters, as older kernels have them; and from one to the
/// other.
#[test]
fn attach_adopt_and_detach_in_tc() {
    World::with(|world| {
        let mut options = world.options().clone();
        options.mode = Mode::Off;
        for filters in [false, true] {
            options.tc_filters = filters;
            options.interfaces = vec!["front".into(), "back".into()];
            for adopted in [false, true, true] {
                let datapath = Datapath::open(&options).unwrap();
                let attached: Vec<(&str, &str, bool)> = datapath
                    .attached()
                    .iter()
                    .map(|one| (one.name.as_str(), one.mode, one.adopted))
                    .collect();
                let expected = [("front", "tc", adopted), ("back", "tc", adopted)];
                assert_eq!(attached, expected);
                drop(datapath);
                for interface in ["front", "back"] {
                    let sides = ["lb_tc_ingress", "lb_tc_egress"];
                    assert_eq!(classifiers(interface, filters), sides, "{filters}");
                }
            }
            // To XDP, where tc finishes its work, and back.
            options.mode = Mode::Native;
            drop(Datapath::open(&options).unwrap());
            assert_eq!(programs(), 2);
            let sides = ["lb_tc_finish", "lb_tc_egress"];
            assert_eq!(classifiers("front", filters), sides);
            options.mode = Mode::Off;
            drop(Datapath::open(&options).unwrap());
            assert_eq!(programs(), 0);
            // One interface less.
            options.interfaces.pop();
            drop(Datapath::open(&options).unwrap());
            assert_eq!(classifiers("front", filters).len(), 2);
            assert!(classifiers("back", filters).is_empty());

            let removed = datapath::detach(world.pins()).unwrap();
            assert_eq!(removed.len(), 3, "{removed:?}");
            assert!(removed[0].contains("front (tc ingress)"), "{removed:?}");
            assert!(classifiers("front", filters).is_empty());
            assert!(!world.pins().exists());
        }
    })
    .unwrap();
}

/// Names of our tc programs on an interface, ingress first, by the kernel's own account.
fn classifiers(interface: &str, filters: bool) -> Vec<String> {
    let sides = [
        ("ingress", TcAttachType::Ingress),
        ("egress", TcAttachType::Egress),
    ];
    if !filters {
        return sides
            .into_iter()
            .flat_map(|(_, side)| SchedClassifier::query_tcx(interface, side).unwrap().1)
            .map(|info| info.name_as_str().unwrap().to_owned())
            .collect();
    }
    let mut names = Vec::new();
    for (side, _) in sides {
        let output = std::process::Command::new("tc")
            .args(["filter", "show", "dev", interface, side])
            .output()
            .expect("tc runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        // `... handle 0x1 lb_tc_ingress direct-action not_in_hw id 7 name lb_tc_ingress ...`
        let words = text
            .split_whitespace()
            .filter(|word| word.starts_with("lb_tc_"));
        names.extend(words.map(str::to_owned));
        names.dedup();
    }
    names
}

/// Interfaces of this namespace that carry an XDP program, by the kernel's own account.
fn programs() -> usize {
    let output = std::process::Command::new("ip")
        .args(["-details", "-json", "link", "show"])
        .output()
        .expect("ip runs");
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let links = links.as_array().expect("a list");
    links
        .iter()
        .filter(|link| link.get("xdp").is_some())
        .count()
}
