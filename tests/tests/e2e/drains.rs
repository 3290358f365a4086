//! Backends, and the node, taken out by hand: how many connections are left is told, a deadline is
//! kept, and what is drained stays so.

use std::{thread, time::Duration};

use lb_tests::{agent::Setup, client::Client, process::wait_for, topology::Topology};
use serde_json::Value;

use crate::local_clients::{Local, both};
use crate::scene::{
    Conversation, METRICS, PATIENCE, Scene, VIP, address, config, entry, reply, sample,
};

/// Whoever waits is told of the last connection, and that it has ended; nothing fails meanwhile.
#[test]
fn a_drain_waits_for_the_last_connection() {
    let scene = Scene::listed(&["v1", "v1"], "", "");
    let load = scene.load(200.0);
    let mut conversation = Conversation::with("b2", scene.topology.client(), address(VIP));
    let b2 = scene.topology.backend_address(2).to_string();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let words = ["-o", "json", "drain", "echo", &b2, "--wait"];
            scene.agent.cli(&words).unwrap()
        });
        thread::sleep(Duration::from_secs(3));
        assert!(!waiting.is_finished());
        assert_eq!(conversation.ask(), "b2");
        let status = reply(&scene.agent, &["status"]);
        assert_eq!(status["drains"][0]["by"], "root", "{status}");
        assert_eq!(status["drains"][0]["backend_id"], b2.as_str());
        let shown = scene.agent.command(&["status"]).unwrap();
        assert!(shown.contains("DRAINED"), "{shown}");
        drop(conversation);
        let output = waiting.join().unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        let looks: Vec<Value> = output
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let one = |look: &&Value| look["flows"] == 1 && look["state"] == "draining";
        assert!(looks.iter().filter(one).count() >= 3, "{looks:?}");
        let last = looks.last().unwrap();
        assert_eq!(
            (&last["state"], &last["flows"]),
            (&"empty".into(), &0.into())
        );
    });
    let from = load.now();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(load.record().between(from, load.now()).of("b2"), 0);

    // To drain it again waits for nothing; the other one is the last.
    let again = scene
        .agent
        .command(&["drain", "echo", &b2, "--wait"])
        .unwrap();
    assert!(again.contains("has no connections left"), "{again}");
    let b1 = scene.topology.backend_address(1).to_string();
    let last = scene.agent.cli(&["drain", "echo", &b1]).unwrap();
    assert_eq!(last.code, 1);
    assert!(last.stderr.contains("is the last backend"), "{last:?}");
    scene.agent.command(&["undrain", "echo", &b2]).unwrap();
    scene.wait_until_served(&[VIP]);
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// At the deadline what is left is cut, and only there; the deadline outlives the agent.
#[test]
fn what_is_left_at_the_deadline_is_cut() {
    let mut scene = Scene::listed(&["v1", "v1"], "", "");
    let client = scene.topology.client();
    let mut kept = Conversation::with("b1", client, address(VIP));
    let mut cut = Conversation::with("b2", client, address(VIP));
    let b2 = scene.topology.backend_address(2).to_string();
    let drain = ["drain", "echo", &b2, "--deadline", "6s"];
    scene.agent.command(&drain).unwrap();
    let deadline =
        |scene: &Scene| reply(&scene.agent, &["status"])["drains"][0]["deadline_unix_ms"].clone();
    let before = deadline(&scene);
    assert!(before.is_number());
    let list = scene.agent.command(&["backend", "list"]).unwrap();
    assert!(list.contains("drained by root since"), "{list}");
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    assert_eq!(deadline(&scene), before);
    assert_eq!(cut.ask(), "b2");
    let output = scene.agent.cli(&["drain", "echo", &b2, "--wait"]).unwrap();
    assert_eq!(output.code, 5, "{output:?}");
    assert!(output.stdout.contains("1 connection left, "), "{output:?}");
    assert!(output.stdout.contains("until they are cut"), "{output:?}");
    assert!(
        output.stderr.contains("1 connection of backend"),
        "{output:?}"
    );
    assert!(cut.is_cut());
    assert_eq!(kept.ask(), "b1");
    let status = scene.agent.command(&["status"]).unwrap();
    assert!(status.contains("passed, 1 flow cut"), "{status}");
}

/// A node that is drained says so at once to whoever asks, goes on to forward, and stops to announce
/// its VIPs when the grace is over; also after a restart.
#[test]
fn a_node_is_drained() {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    let client = topology.client();
    let ip = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        client.tool("ip", &words).unwrap()
    };
    ip("route replace 198.51.100.0/24 dev eth0");
    ip("-6 route del 2001:db8:100::/64");
    ip("-6 route add 2001:db8:100::/64 dev eth0");
    let rows: String = [topology.backend_address(1), topology.backend_address6(1)]
        .map(|address| entry(address, "v1"))
        .concat();
    let tables = config(&format!("backends = [\n{rows}]"), "");
    let mut agent = Setup::new(&topology)
        .node("announce = [\"to-client\"]")
        .config(&tables)
        .start()
        .unwrap();
    let answers = || Ok(Client::new(client).get(address(VIP), "/").ok());
    wait_for("the VIP to be served", PATIENCE, answers).unwrap();
    let local = Client::new(topology.node());
    let ready = || local.get(address(METRICS), "/readyz").unwrap().status;
    assert_eq!(ready(), 200);
    let mut conversation = Conversation::open(client, address(VIP));
    let is_found = || {
        ip("neigh flush dev eth0");
        let quick = Client::new(client).patience(Duration::from_millis(800));
        quick.get(address(VIP), "/").is_ok()
    };

    agent
        .command(&["drain", "--node", "--grace", "4s"])
        .unwrap();
    assert_eq!(ready(), 503);
    assert_eq!(conversation.ask(), "b1");
    assert!(is_found(), "it goes on to announce its VIPs for the grace");
    let output = agent.cli(&[
        "drain",
        "--node",
        "--grace",
        "4s",
        "--wait",
        "--timeout",
        "8s",
    ]);
    let output = output.unwrap();
    assert_eq!(output.code, 5, "{output:?}");
    assert!(
        output.stdout.contains("VIPs are announced for"),
        "{output:?}"
    );
    assert!(
        output
            .stderr
            .contains("the node stays drained, with 1 connection left"),
        "{output:?}"
    );
    assert_eq!(conversation.ask(), "b1");
    assert!(!is_found(), "it announces its VIPs no longer");
    agent.kill9().unwrap();
    agent.restart().unwrap();
    assert_eq!(ready(), 503);
    assert!(!is_found(), "nor after a restart");
    let scrape = agent.metrics(address(METRICS)).unwrap();
    assert_eq!(sample(&scrape, "lb_node_drained", &[]), Some(1.0));
    let status = agent.command(&["status"]).unwrap();
    assert!(status.contains("the node is drained by root"), "{status}");
    drop(conversation);

    agent.command(&["undrain", "--node"]).unwrap();
    assert_eq!(ready(), 200);
    wait_for("the VIP to be found again", PATIENCE, || {
        Ok(is_found().then_some(()))
    })
    .unwrap();
}

/// A local client's connection has no flow, and counts all the same; at the deadline it is closed.
#[test]
fn local_clients_are_waited_for_and_cut() {
    let local = Local::new(2, |topology| both(topology, &[(1, 1), (2, 1)]));
    let talker = local.talker(local.topology.node(), "talker");
    talker.request(&format!("tcp t {VIP}")).unwrap();
    let name = talker.request("ask t").unwrap();
    let number = name.trim_start_matches('b').parse().unwrap();
    let backend = local.topology.backend_address(number).to_string();
    let words = ["drain", "echo", &backend, "--deadline", "3s", "--wait"];
    let output = local.agent.cli(&words).unwrap();
    assert_eq!(output.code, 5, "{output:?}");
    assert!(
        output
            .stdout
            .contains("0 connections left, and 1 of local clients, "),
        "{output:?}"
    );
    assert!(
        output.stderr.contains("1 connection of backend"),
        "{output:?}"
    );
    assert!(talker.request("ask t").is_err());
}
