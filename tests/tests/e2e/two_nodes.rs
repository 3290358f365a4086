//! Two nodes with an agent each, and one Consul: what is said for the fleet on one counts on the other.

use std::time::{Duration, Instant};

use lb_tests::{
    agent::{Agent, Setup},
    consul::{Consul, Registration},
    pace::at_this_pace,
    process::wait_for,
};
use serde_json::Value;

use crate::scene::{PATIENCE, config, hosts, reply};

/// How often each thing is said, from either side in turn.
const ROUNDS: usize = 6;

/// From the end of the command here to when it counts there; usually it takes milliseconds.
const SOON: Duration = Duration::from_secs(1);

const SERVICE: &str = "consul = { service = \"echo\" }\n\
    subsets = { v1 = { tag = \"v1\" }, v2 = { tag = \"v2\" } }";

/// Weight of the backend with this id, in the form `NODE/ID`, as an agent has it in the kernel.
fn weight(agent: &Agent, id: &str) -> Value {
    let list = reply(agent, &["backend", "list", "echo"]);
    let mut backends = list["backends"].as_array().unwrap().iter();
    let backend = backends.find(|backend| backend["id"].as_str().unwrap().ends_with(id));
    backend
        .map(|backend| backend["weight"].clone())
        .unwrap_or_default()
}

fn took(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    wait_for(what, PATIENCE, || Ok(is_so().then_some(()))).unwrap();
    begun.elapsed()
}

#[test]
fn what_one_node_says_for_the_fleet_counts_on_the_other() {
    let (topology, _backends) = hosts(2);
    // The second node is the host of the second backend, which reaches the first one there.
    let [_, second] = topology.backends() else {
        panic!("two hosts");
    };
    let consul = "10.77.2.1";
    let address = consul.parse().unwrap();
    let server = Consul::shared(topology.node(), topology.directory(), address).unwrap();
    for (number, version) in [(1, "v1"), (2, "v2")] {
        let instance = Registration {
            service: "echo",
            id: &format!("b{number}"),
            address: topology.backend_address(number),
            tags: &[version],
            meta: &[],
            weights: (1, 1),
        };
        server.register(instance).unwrap();
    }
    let text = |host: &str| {
        let tables = format!("[consul]\naddress = \"http://{host}:8500\"\n");
        config(SERVICE, &tables)
    };
    let agents = [
        Setup::new(&topology).config(&text("127.0.0.1")),
        Setup::new(&topology)
            .host(second, "second")
            .interfaces(&["eth0"])
            .config(&text(consul)),
    ];
    let agents = agents.map(|setup| setup.start().unwrap());
    for agent in &agents {
        took("both backends", || {
            ["b1", "b2"].iter().all(|id| weight(agent, id) == 1)
        });
    }

    let (mut splits, mut blocks) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (here, there) = (&agents[round % 2], &agents[(round + 1) % 2]);
        let (shares, out) = match round / 2 % 2 {
            0 => (["v1=0", "v2=1"], "b1"),
            _ => (["v1=1", "v2=0"], "b2"),
        };
        let [one, two] = shares;
        let set = reply(here, &["split", "set", "--fleet", "echo", one, two]);
        assert_eq!(set["split"]["source"], "consul-kv");
        splits.push(took("the split over there", || weight(there, out) == 0));
        assert_eq!(weight(here, out), 0);
        reply(there, &["split", "reset", "--fleet", "echo"]);
        splits.push(took("the end of the split", || weight(here, out) == 1));

        let prefix = format!("203.0.113.{round}/32");
        let rules = |agent| reply(agent, &["status"])["block_rules"].clone();
        reply(
            here,
            &["block", "add", "--fleet", "--reason", "scan", &prefix],
        );
        blocks.push(took("the block over there", || rules(there) == 1));
        let list = reply(there, &["block", "list"]);
        let rule = &list["blocks"][0]["rule"];
        assert_eq!(
            (&rule["origin"], &rule["reason"]),
            (&"fleet".into(), &"scan".into())
        );
        reply(there, &["block", "del", "--fleet", &prefix]);
        blocks.push(took("the end of the block", || rules(here) == 0));
    }
    for (what, times) in [("splits", &mut splits), ("blocks", &mut blocks)] {
        times.sort();
        let (median, longest) = (times[ROUNDS], times[2 * ROUNDS - 1]);
        eprintln!(
            "{what} of the fleet count on the other node after: median {median:?}, longest {longest:?}"
        );
        assert!(median < at_this_pace(SOON), "{what}: {times:?}");
    }
}
