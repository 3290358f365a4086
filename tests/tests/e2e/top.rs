//! `top` on a terminal, beside a real agent with traffic: what it shows is what `status` says.

use std::{process::Command, thread, time::Duration};

use lb_tests::{process::wait_for, screen::Screen};
use serde_json::Value;

use crate::scene::{PATIENCE, Scene, VIP, address, reply};

/// The command's process.
fn signal(screen: &Screen, name: &str) {
    let pid = screen.pid().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success());
}

/// Whoever started it finds the terminal as it was.
fn given_back(screen: &Screen) {
    wait_for("the terminal to be given back", PATIENCE, || {
        Ok((!screen.taken() && screen.cooked()?).then_some(()))
    })
    .unwrap();
}

/// One picture, as JSON.
fn picture(scene: &Scene, args: &[&str]) -> Value {
    let words = [&["-o", "json", "top"], args].concat();
    let text = scene.agent.command(&words).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Packets of the service so far.
fn packets(scene: &Scene) -> f64 {
    let list = reply(&scene.agent, &["service", "list"]);
    let counters = &list["services"][0]["counters"];
    let count = |name: &str| counters[name].as_u64().unwrap();
    (count("packets_in") + count("packets_out")) as f64
}

#[test]
fn top_shows_what_status_says() {
    let scene = Scene::listed(
        &["v1", "v2"],
        "subsets = { v1 = { tag = \"v1\" }, v2 = { tag = \"v2\" } }\n\
         split = { v1 = 70, v2 = 30 }",
        "",
    );
    let blocked = scene.topology.client_addresses()[1];
    let rule = blocked.to_string();
    for args in [
        [&rule, "--reason", "scan"],
        ["10.9.0.0/16", "--reason", "idle"],
    ] {
        let words = [&["block", "add"], &args[..]].concat();
        scene.agent.command(&words).unwrap();
    }
    let _load = scene.load(100.0);
    let command = scene
        .agent
        .prepare(&["top", "--interval", "500ms"])
        .unwrap();
    let mut screen = Screen::start(command, 120, 36).unwrap();
    screen
        .wait("top to take the terminal", |text| text.contains("Services"))
        .unwrap();
    assert!(screen.taken() && !screen.cooked().unwrap());
    assert!(screen.coloured());
    let short = scene
        .client()
        .from(blocked)
        .patience(Duration::from_millis(300));
    assert!(short.get(address(VIP), "/").is_err());

    let status = reply(&scene.agent, &["status"]);
    let version = status["agent_version"].as_str().unwrap();
    let backends = [1, 2].map(|number| scene.topology.backend_address(number).to_string());
    let words = [
        format!("lb-agent {version}"),
        format!("state {}", status["snapshot_version"]),
        "healthy".into(),
        VIP.into(),
        "4/4".into(),
        "v1=70 v2=30".into(),
        "Backends of echo".into(),
        format!("{rule}/32"),
        "blocked".into(),
        backends[0].clone(),
        backends[1].clone(),
    ];
    let all = |text: &str| words.iter().all(|word| text.contains(word));
    screen.wait(&format!("{words:?}"), all).unwrap();
    let drops: Vec<&str> = status["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|verdict| verdict["action"] == "drop" && verdict["packets"] != 0)
        .map(|verdict| verdict["name"].as_str().unwrap())
        .collect();
    let all = |text: &str| drops.iter().all(|reason| text.contains(reason));
    screen.wait(&format!("{drops:?}"), all).unwrap();

    // A rate is that of the counters. What is between two looks is no moment, so both sides of it
    // are measured.
    let (before, began) = (packets(&scene), std::time::Instant::now());
    let seen = picture(&scene, &["--interval", "2s"]);
    let measured = (packets(&scene) - before) / began.elapsed().as_secs_f64();
    let told = seen["services"][0]["packets_per_second"].as_f64().unwrap();
    assert!(measured > 100.0, "the load runs: {measured}");
    assert!(
        (0.5..2.0).contains(&(told / measured)),
        "{told} and {measured}"
    );
    // The rule that caught something stands before the one that did not.
    let blocks: Vec<&str> = seen["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["prefix"].as_str().unwrap())
        .collect();
    assert_eq!(blocks, [format!("{rule}/32").as_str(), "10.9.0.0/16"]);
    assert_eq!(seen["blocks"][0]["reason"], "scan");
    assert!(seen["blocks"][0]["dropped_packets"].as_u64().unwrap() > 0);
    // The flow tables are counted every five seconds.
    wait_for("flows of the service", PATIENCE, || {
        let seen = picture(&scene, &[]);
        Ok((seen["services"][0]["flows"].as_u64() > Some(0)).then_some(()))
    })
    .unwrap();

    // Keys, one after the other, on the same screen: what is seen then, and what no longer is. A key
    // that follows Escape too soon would be taken for one with Alt.
    let rows = [
        ("?", "sort the pane by its next column", "Detail"),
        ("x", "Services", "sort the pane"),
        ("\r", "forwarding", "sort the pane"),
        ("\u{1b}", "Tab pane", "forwarding"),
        ("/nobody", "nothing fits the filter", "Tab pane"),
        ("\u{1b}", VIP, "nobody"),
    ];
    for (keys, present, gone) in rows {
        screen.press(keys).unwrap();
        let fits = |text: &str| text.contains(present) && !text.contains(gone);
        screen
            .wait(&format!("{present:?} after {keys:?}"), fits)
            .unwrap();
    }
    screen.press("q").unwrap();
    assert!(screen.ended().unwrap().success());
    given_back(&screen);
}

#[test]
fn top_outlives_the_agent_and_fits_the_terminal() {
    let mut scene = Scene::listed(&["v1", "v1"], "", "");
    let command = scene
        .agent
        .prepare(&["top", "--interval", "200ms"])
        .unwrap();
    let mut screen = Screen::start(command, 120, 36).unwrap();
    screen
        .wait("a healthy node", |text| text.contains("● healthy"))
        .unwrap();
    for (columns, lines, present, absent) in [
        (80, 24, "Backends of echo", "Events"),
        (40, 10, "pkt/s", "Backends of"),
        (120, 36, "Events", "pkt/s  "),
    ] {
        screen.resize(columns, lines).unwrap();
        let fits = |text: &str| text.contains(present) && !text.contains(absent);
        screen.wait(&format!("{columns}x{lines}"), fits).unwrap();
    }

    scene.agent.kill9().unwrap();
    let stale = screen
        .wait("a stale picture", |text| text.contains("STALE"))
        .unwrap();
    assert!(stale.contains(VIP), "the last picture stays:\n{stale}");
    scene.agent.restart().unwrap();
    screen
        .wait("a fresh picture", |text| {
            text.contains("● healthy") && !text.contains("STALE")
        })
        .unwrap();

    signal(&screen, "TERM");
    assert!(screen.ended().unwrap().success());
    given_back(&screen);
}

#[test]
fn top_prints_where_there_is_no_terminal() {
    let scene = Scene::listed(&["v1"], "", "");
    let text = scene
        .agent
        .command(&["top", "echo", "--interval", "200ms"])
        .unwrap();
    for word in ["packets/s", "SERVICE", VIP, "BACKEND", "10.77.1.2:8080"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let seen = picture(&scene, &["echo", "--once", "--interval", "200ms"]);
    let status = reply(&scene.agent, &["status"]);
    assert_eq!(seen["node"]["version"], status["agent_version"]);
    assert_eq!(seen["node"]["state_version"], status["snapshot_version"]);
    assert_eq!(seen["backends"].as_array().unwrap().len(), 2);

    let two = scene
        .agent
        .command(&["-o", "json", "top", "-n", "2", "--interval", "200ms"]);
    assert_eq!(two.unwrap().lines().count(), 2);
    let unknown = scene.agent.cli(&["top", "nobody"]).unwrap();
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("there is no service `nobody`"),
        "{unknown:?}"
    );

    // Without colours where they are not wanted; the variable is the command's own.
    let mut plain = Command::new("env");
    let program = lb_tests::backend::program("lb-agent").unwrap();
    plain.arg("NO_COLOR=1").arg(program).arg("--socket");
    plain.arg(scene.agent.socket()).arg("top");
    let screen = Screen::start(plain, 100, 30).unwrap();
    screen
        .wait("top without colours", |text| text.contains("● healthy"))
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    assert!(!screen.coloured());

    scene.agent.stop().unwrap();
    assert_eq!(scene.agent.cli(&["top"]).unwrap().code, 4);
}
