//! Upgrades under load, of the service's backends and of the agent: no request fails.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    agent::{Agent, Setup},
    backend::{Backend, program},
    client::{Client, Spread},
    consul::{Consul, Registration},
    documents,
    process::wait_for,
    topology::Topology,
};

use crate::local_clients::{Local, both};
use crate::scene::{Conversation, PATIENCE, Scene, VIP, VIP6, address, config, hosts};

/// Requests on a connection before a client opens another.
const PER_CONNECTION: usize = 25;

const HEALTH: &str = "health = { kind = \"http\", path = \"/health\", interval = \"200ms\", \
                      timeout = \"200ms\", rise = 2, fall = 3 }";

/// Does `work` while connections of one request and, to `kept`, connections of many come in. No more
/// of the requests may fail than `lost`. Answers with who answered the former.
fn under_load(
    scene: &mut Scene,
    kept: &[&str],
    lost: usize,
    work: impl FnOnce(&mut Agent, &mut [Backend], &Topology),
) -> Spread {
    let load = scene.load(200.0);
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let Scene {
        agent,
        backends,
        topology,
    } = scene;
    thread::scope(|scope| {
        let keeping: Vec<_> = kept
            .iter()
            .map(|vip| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let mut conversation = Conversation::open(topology.client(), address(vip));
                        for _ in 0..PER_CONNECTION {
                            conversation.ask();
                            asked.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                })
            })
            .collect();
        let work = std::panic::AssertUnwindSafe(|| work(agent, backends, topology));
        let worked = std::panic::catch_unwind(work);
        done.store(true, Ordering::Relaxed);
        for one in keeping {
            one.join().expect("no request on a kept connection fails");
        }
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.len() <= lost, "{failures:?}");
    let all = record.all();
    let asked = asked.into_inner();
    assert!(
        kept.is_empty() || asked > 50,
        "only {asked} on kept connections"
    );
    eprintln!(
        "{} requests on connections of their own and {asked} on kept ones, {} failed; the \
         longest gap was {:?}",
        all.answered(),
        all.failed(),
        record.longest_gap(Duration::ZERO)
    );
    all
}

/// Ends the process of backend `number` and starts another, which calls itself by another name.
fn replace(topology: &Topology, backends: &mut [Backend], number: u8) {
    let index = usize::from(number) - 1;
    backends[index].process().stop().unwrap();
    let addresses = [
        topology.backend_address(number),
        topology.backend_address6(number),
    ];
    let namespace = &topology.backends()[index];
    let name = format!("new{number}");
    backends[index] = Backend::start(namespace, &name, &addresses, topology.directory()).unwrap();
}

/// Waits until this backend answers through the VIP.
fn wait_for_answer(topology: &Topology, name: &str) {
    let client = Client::new(topology.client());
    wait_for(&format!("{name} to answer"), PATIENCE, || {
        Ok((client.spread(address(VIP), 20, 2).of(name) > 0).then_some(()))
    })
    .unwrap();
}

/// The script of the guide, as it stands there: each backend is drained, replaced when it has no
/// connections left, and put back when it is healthy.
#[test]
fn backends_are_replaced_by_the_script_of_the_guide() {
    let guide = documents::read("docs/operations.md").blocks();
    let script = guide.into_iter().map(|block| block.text);
    let mut script = script.filter(|text| text.starts_with("for backend in"));
    let script = script.next().expect("the script of the rolling upgrade");
    let mut scene = Scene::listed(&["v1", "v1", "v1"], HEALTH, "");
    let all = under_load(&mut scene, &[VIP, VIP], 0, |agent, backends, topology| {
        thread::sleep(Duration::from_millis(500));
        let directory = topology.directory();
        let order = directory.join("upgrade.order");
        let tool = |name: &str, text: &str| {
            let path = directory.join("tools").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        };
        let binary = program("lb-agent").unwrap();
        let (binary, socket) = (binary.display(), agent.socket().display());
        tool(
            "lb-agent",
            &format!("exec {binary} --socket {socket} \"$@\""),
        );
        // Done here: the order is a file, which goes away when it has been carried out.
        let file = order.display();
        let wait = format!("while [ -e {file} ]; do sleep 0.1; done");
        tool(
            "upgrade",
            &format!("echo \"$1\" > {file}.new && mv {file}.new {file}\n{wait}"),
        );
        let path = format!(
            "{}:{}",
            directory.join("tools").display(),
            std::env::var("PATH").unwrap()
        );
        let mut shell = topology.node().command("sh").unwrap();
        let mut shell = shell
            .args(["-euc", &script])
            .env("PATH", path)
            .spawn()
            .unwrap();
        let mut orders = Vec::new();
        let begun = Instant::now();
        let ended = loop {
            if let Some(status) = shell.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(120) {
                shell.kill().unwrap();
            }
            if let Ok(text) = fs::read_to_string(&order) {
                let number = (1..=3)
                    .find(|number| topology.backend_address(*number).to_string() == text.trim())
                    .unwrap();
                replace(topology, backends, number);
                orders.push(number);
                fs::remove_file(&order).unwrap();
            }
            thread::sleep(Duration::from_millis(20));
        };
        assert!(ended.success(), "{ended}, after {orders:?}");
        assert_eq!(orders, [1, 2, 3]);
        wait_for_answer(topology, "new3");
    });
    for number in 1..=3 {
        assert!(all.of(&format!("b{number}")) > 0, "{:?}", all.backends);
        assert!(all.of(&format!("new{number}")) > 0, "{:?}", all.backends);
    }
    let after = scene.client().spread(address(VIP), 60, 4);
    assert_eq!(after.backends.len(), 3);
    assert!(
        after.backends.keys().all(|name| name.starts_with("new")),
        "{after:?}"
    );
}

/// The same by Consul's means: maintenance drains, and the new one is registered in the place of the
/// old one.
#[test]
fn instances_in_consul_are_replaced_one_after_another() {
    let (topology, backends) = hosts(3);
    let consul = Consul::start(topology.node(), topology.directory()).unwrap();
    let register = |topology: &Topology, number: u8| {
        consul
            .register(Registration {
                service: "echo",
                id: &format!("b{number}"),
                address: topology.backend_address(number),
                tags: &[],
                meta: &[],
                weights: (1, 1),
            })
            .unwrap();
    };
    for number in 1..=3 {
        register(&topology, number);
    }
    let text = config(
        &format!("consul = {{ service = \"echo\" }}\n{HEALTH}"),
        "[consul]\naddress = \"http://127.0.0.1:8500\"\n",
    );
    let agent = Setup::new(&topology).config(&text).start().unwrap();
    let mut scene = Scene {
        agent,
        backends,
        topology,
    };
    scene.wait_until_served(&[VIP]);
    let all = under_load(&mut scene, &[VIP], 0, |agent, backends, topology| {
        thread::sleep(Duration::from_millis(500));
        for number in 1..=3 {
            let id = format!("b{number}");
            let address = topology.backend_address(number).to_string();
            consul.set_maintenance(&id, true).unwrap();
            let words = ["drain", "echo", &address, "--follow", "--timeout", "30s"];
            let said = agent.command(&words).unwrap();
            assert!(said.contains("has no connections left"), "{said}");
            consul.deregister(&id).unwrap();
            replace(topology, backends, number);
            register(topology, number);
            wait_for_answer(topology, &format!("new{number}"));
        }
    });
    for number in 1..=3 {
        assert!(all.of(&format!("b{number}")) > 0, "{:?}", all.backends);
        assert!(all.of(&format!("new{number}")) > 0, "{:?}", all.backends);
    }
}

/// A new program of the agent takes the pins of the old one over, again and again: neither new
/// connections nor those that were open notice.
#[test]
fn the_agent_is_replaced() {
    let mut scene = Scene::listed(&["v1", "v1"], HEALTH, "");
    let mut conversation = Conversation::with("b2", scene.topology.client(), address(VIP));
    let programs = |topology: &Topology| {
        let links = topology
            .node()
            .tool("ip", &["-d", "link", "show", "to-client"]);
        let links = links.unwrap();
        let (_, rest) = links.split_once("prog/xdp id ").expect("a program");
        let id = rest.split_whitespace().next().unwrap().to_owned();
        id.parse::<u32>().unwrap()
    };
    under_load(&mut scene, &[VIP, VIP6], 0, |agent, _, topology| {
        for _ in 0..3 {
            let before = programs(topology);
            agent.stop().unwrap();
            thread::sleep(Duration::from_millis(300));
            agent.restart().unwrap();
            assert_ne!(programs(topology), before, "the programs are the new one's");
            let status = agent.command(&["status"]).unwrap();
            assert!(status.contains("to-client (native, adopted)"), "{status}");
            assert_eq!(conversation.ask(), "b2");
        }
    });
}

/// Pins of another schema: refused with a sentence, and replaced without a gap when told to. Here the
/// programs are the same; only their place says that their maps cannot be read.
#[test]
fn programs_of_another_schema_are_replaced() {
    let mut scene = Scene::listed(&["v1", "v1"], HEALTH, "");
    let drained = scene.topology.backend_address6(2).to_string();
    scene.agent.command(&["drain", "echo", &drained]).unwrap();
    let schema = format!("v{}", lb_common::maps::SCHEMA);
    // Each of the two clients has one request under way, whose connection is one of those that may
    // break.
    under_load(&mut scene, &[], 2, |agent, _, topology| {
        agent.stop().unwrap();
        let (own, other) = (agent.pins().join(&schema), agent.pins().join("v1"));
        fs::rename(&own, &other).unwrap();

        let file = agent.config_file().display().to_string();
        let output = agent.cli(&["run", "--config", &file]).unwrap();
        assert_eq!(output.code, 1, "{output:?}");
        let refusal = output.stderr.lines().last().unwrap();
        for words in [
            &*other.display().to_string(),
            "--replace-schema",
            "go on to forward",
        ] {
            assert!(refusal.contains(words), "{refusal}");
        }
        assert!(!own.exists(), "nothing is made of it");
        let spread = Client::new(topology.client()).spread(address(VIP), 20, 2);
        assert_eq!(spread.failed(), 0, "{spread:?}");

        agent.restart_with(&["--replace-schema"]).unwrap();
        assert!(own.exists() && !other.exists());
        let status = agent.command(&["status"]).unwrap();
        assert!(status.contains("to-client (native, adopted)"), "{status}");
        // The next start is one like any other.
        thread::sleep(Duration::from_millis(300));
        agent.stop().unwrap();
        agent.restart().unwrap();
    });
    scene.wait_until_served(&[VIP]);
    let spread = scene.client().spread(address(VIP6), 40, 4);
    assert_eq!(
        (spread.of("b1"), spread.failed()),
        (40, 0),
        "the drain is still there"
    );
    scene.agent.stop().unwrap();
    let pins = scene.agent.pins().display().to_string();
    scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    assert!(!scene.agent.pins().exists());
}

/// The same of local clients: calls are sent to backends all the time, and what is connected stays.
#[test]
fn local_clients_outlive_another_schema() {
    let mut local = Local::new(2, |topology| both(topology, &[(1, 1), (2, 1)]));
    let talker = local.talker(local.topology.node(), "talker");
    assert_eq!(talker.request(&format!("tcp t {VIP}")).unwrap(), VIP);
    let name = talker.request("ask t").unwrap();
    local.agent.stop().unwrap();
    let own = local
        .agent
        .pins()
        .join(format!("v{}", lb_common::maps::SCHEMA));
    fs::rename(&own, local.agent.pins().join("v1")).unwrap();
    assert_eq!(talker.request(&format!("tcp n {VIP}")).unwrap(), VIP);
    local.agent.restart_with(&["--replace-schema"]).unwrap();
    let status = local.agent.command(&["status"]).unwrap();
    assert!(
        status.contains("(adopted): 0 sent to a backend"),
        "{status}"
    );
    assert_eq!(talker.request("ask t").unwrap(), name);
    assert_eq!(talker.request(&format!("tcp n {VIP}")).unwrap(), VIP);
    let status = local.agent.command(&["status"]).unwrap();
    assert!(
        status.contains("(adopted): 1 sent to a backend"),
        "{status}"
    );
}
