//! The agent as a user with few capabilities, which it becomes before it starts its threads. That
//! every other story comes out the same as such a user, `LB_AGENT_USER=nobody` shows.

use std::{collections::BTreeMap, fs, thread};

use lb_agent::privilege::capability;
use lb_tests::{
    agent::{Agent, Setup},
    cgroup::Cgroup,
    client::Client,
    process::wait_for,
    talk::Talker,
    tamper::Tamper,
};

use crate::scene::{METRICS, PATIENCE, VIP, VIP6, address, entry, hosts, sample};

/// A user that there is everywhere, and its number.
const USER: (&str, u32) = ("nobody", 65_534);
/// VIP of a service behind the proxy, on a port that takes a capability.
const PROXIED: &str = "198.51.100.12:80";

/// What the kernel says of each thread of a process: lines of `/proc/PID/task/TID/status` by name.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let lines = |text: String| {
        let pairs = text.lines().filter_map(|line| line.split_once(":\t"));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    texts.map(lines).collect()
}

/// Every thread is the user's, with the capabilities that the agent names and no others, nor a way
/// to get them.
fn has_few_rights(pid: u32) {
    let few = format!("{:016x}", capability::all().bits());
    let none = format!("{:016x}", 0);
    let own = vec![USER.1.to_string(); 4].join("\t");
    let expected = [
        ("Uid", own.as_str()),
        ("CapInh", &none),
        ("CapPrm", &few),
        ("CapEff", &few),
        ("CapBnd", &few),
        ("CapAmb", &none),
        ("NoNewPrivs", "1"),
    ];
    let threads = threads(pid);
    assert!(threads.len() > 3, "{threads:?}");
    for thread in threads {
        for (key, value) in expected {
            assert_eq!(thread[key], value, "{key} of thread {}", thread["Name"]);
        }
    }
}

/// Waits until so many backends, and nothing else, answer on each of `vips`.
fn served(agent: &Agent, count: usize, client: &Client, vips: &[&str]) {
    for vip in vips {
        wait_for(&format!("{count} backends on {vip}"), PATIENCE, || {
            agent.process().ensure_running()?;
            let spread = client.spread(address(vip), 40, 4);
            Ok((spread.failed() == 0 && spread.backends.len() == count).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process().tail()));
    }
}

/// All that an agent does, as that user: balance, split, block, mend, serve local clients and
/// requests, capture, reload, be adopted and restarted, and be taken off.
#[test]
fn a_user_with_few_capabilities_is_enough() {
    let (topology, _backends) = hosts(2);
    let rows: String = [(1, "v1"), (2, "v2")]
        .into_iter()
        .flat_map(|(number, tag)| {
            [
                entry(topology.backend_address(number), tag),
                entry(topology.backend_address6(number), tag),
            ]
        })
        .collect();
    let config = format!(
        "[[service]]\nname = \"echo\"\nvip = [\"{VIP}\", \"{VIP6}\"]\nbackends = [\n{rows}]\n\
         subsets = {{ v1 = {{ tag = \"v1\" }}, v2 = {{ tag = \"v2\" }} }}\n\
         [[service]]\nname = \"web\"\nprotocol = \"http\"\nvip = [\"{PROXIED}\"]\n\
         backends = [{{ address = \"{}\" }}]\n\
         [metrics]\nlisten = \"{METRICS}\"\n",
        topology.backend_address(1)
    );
    let cgroup = Cgroup::new("few").unwrap();
    let node = format!(
        "announce = [\"to-client\"]\nlocal_clients = true\ncgroup = \"{}\"\ndrift_check = \"1s\"",
        cgroup.path().display()
    );
    let mut agent = Setup::new(&topology)
        .user(USER.0)
        .node(&node)
        .config(&config)
        .start()
        .unwrap();
    let client = Client::new(topology.client());
    has_few_rights(agent.process().pid());
    served(&agent, 2, &client, &[VIP, VIP6]);
    served(&agent, 1, &client, &[PROXIED]);
    let files = topology.directory();
    let local = Talker::start(topology.node(), Some(&cgroup), files, "local").unwrap();
    assert_eq!(local.request(&format!("tcp t {VIP}")).unwrap(), VIP);
    drop(local);

    agent.command(&["split", "set", "echo", "v2=100"]).unwrap();
    served(&agent, 1, &client, &[VIP, VIP6]);
    agent.command(&["split", "reset", "echo"]).unwrap();
    served(&agent, 2, &client, &[VIP]);

    let tamper = Tamper::new(agent.pins());
    for harm in ["service", "maglev"] {
        let label = format!("what=\"{harm}\"");
        let mended = || {
            let scrape = agent.metrics(address(METRICS)).unwrap();
            sample(&scrape, "lb_drift_repairs_total", &[&label]).unwrap()
        };
        let before = mended();
        match harm {
            "service" => tamper.delete_vip(address(VIP)).unwrap(),
            _ => tamper.fill_table(address(VIP), 0).unwrap(),
        }
        wait_for(harm, PATIENCE, || Ok((mended() > before).then_some(()))).unwrap();
    }
    served(&agent, 2, &client, &[VIP]);

    let [_, bad] = topology.client_addresses();
    agent.command(&["block", "add", &bad.to_string()]).unwrap();
    client.clone().from(bad).get(address(VIP), "/").unwrap_err();
    let file = topology.directory().join("drops.pcapng");
    let args = ["capture", "-w", file.to_str().unwrap(), "--count", "1"];
    let output = thread::scope(|scope| {
        let capture = scope.spawn(|| agent.cli(&args).unwrap());
        while !capture.is_finished() {
            let _ = client.clone().from(bad).get(address(VIP), "/");
        }
        capture.join().unwrap()
    });
    assert_eq!(output.code, 0, "{output:?}");
    agent.command(&["explain", "echo"]).unwrap();
    agent.command(&["reload"]).unwrap();

    agent.kill9().unwrap();
    // By the kernel alone; through the proxy, when it is there again.
    assert_eq!(client.spread(address(VIP), 10, 2).failed(), 0);
    agent.restart().unwrap();
    has_few_rights(agent.process().pid());
    let status = agent.command(&["status"]).unwrap();
    assert!(status.contains("to-client (native, adopted)"), "{status}");
    assert!(
        agent
            .command(&["block", "list"])
            .unwrap()
            .contains(&bad.to_string())
    );
    let holders = agent.holders().unwrap();
    assert_eq!(holders.len(), 1);
    for thread in threads(holders[0]) {
        assert_eq!(
            thread["CapEff"],
            format!("{:016x}", 0),
            "the holder of sockets needs none"
        );
    }
    agent.stop().unwrap();
    let pins = agent.pins().display().to_string();
    agent.command(&["detach", "--bpf-dir", &pins]).unwrap();
    assert!(!agent.pins().exists());
}
