//! The block list: at once, for as long as it is meant to, and not what would be foolish.

use std::{
    fmt::Write,
    fs,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_tests::{agent::Agent, client::Client, process::wait_for};
use serde_json::Value;

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, reply, sample};

/// How long a client that may be blocked waits for an answer.
const SHORT: Duration = Duration::from_millis(700);

/// The rule on the list, if it is there.
fn rule(agent: &Agent, prefix: &str) -> Option<Value> {
    let list = reply(agent, &["block", "list"]);
    let mut blocks = list["blocks"].as_array().unwrap().iter();
    blocks
        .find(|entry| entry["rule"]["prefix"] == prefix)
        .cloned()
}

fn dropped(agent: &Agent, prefix: &str) -> u64 {
    let rule = rule(agent, prefix).unwrap_or_else(|| panic!("{prefix} is not on the list"));
    rule["dropped_packets"].as_u64().unwrap()
}

fn from(scene: &Scene, source: IpAddr) -> Client {
    scene.client().from(source).patience(SHORT)
}

/// Whether requests from `source` are answered: all of them or none.
fn answered(scene: &Scene, source: IpAddr) -> bool {
    let vip = address(if source.is_ipv6() { VIP6 } else { VIP });
    let spread = from(scene, source).spread(vip, 6, 6);
    assert!(
        spread.answered() == 0 || spread.failed() == 0,
        "from {source}: {spread:?}"
    );
    spread.failed() == 0
}

#[test]
fn a_block_ends_a_download_within_a_second_and_counts() {
    let scene = Scene::listed(&["v1"], "", "");
    let [bad, good] = scene.topology.client_addresses();
    let [bad6, good6] = scene.topology.client_addresses6();
    // What is blocked, its name on the list, who is downloading, and who goes on.
    let rows = [
        ("10.77.0.2", "10.77.0.2/32", bad, good),
        ("fd77::2", "fd77::2/128", bad6, good6),
        ("10.77.0.2/31", "10.77.0.2/31", bad, good6),
        ("fd77::2/127", "fd77::2/127", bad6, good),
    ];
    let mut stops = Vec::new();
    for (given, prefix, bad, good) in rows {
        let vip = |source: IpAddr| address(if source.is_ipv6() { VIP6 } else { VIP });
        let (received, others) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let cut = scope.spawn(|| {
                let client = from(&scene, bad);
                client.download(vip(bad), 100_000_000_000, Some(20_000_000), &received)
            });
            let kept = scope.spawn(|| {
                let client = scene.client().from(good);
                client.download(vip(good), 8_000_000, Some(2_000_000), &others)
            });
            wait_for("both downloads", PATIENCE, || {
                let run = [&received, &others]
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) > 500_000);
                Ok(run.then_some(()))
            })
            .unwrap();
            let begun = Instant::now();
            scene.agent.command(&["block", "add", given]).unwrap();
            let (mut last, mut moved) = (received.load(Ordering::Relaxed), begun);
            while !cut.is_finished() {
                let now = received.load(Ordering::Relaxed);
                if now != last {
                    (last, moved) = (now, Instant::now());
                }
                thread::sleep(Duration::from_millis(2));
            }
            stops.push(moved - begun);
            assert!(cut.join().unwrap().is_err(), "the download went on");
            assert!(!answered(&scene, bad));
            let early = dropped(&scene.agent, prefix);
            assert!(early > 0, "{prefix} has caught nothing");
            assert!(!answered(&scene, bad));
            assert!(dropped(&scene.agent, prefix) > early);
            // Nobody else is concerned, in the other family least of all.
            assert!(answered(&scene, good));
            kept.join().unwrap().unwrap();
            let caught = dropped(&scene.agent, prefix) as f64;
            let label = format!("prefix=\"{prefix}\"");
            let metric = sample(&scene.scrape(), "lb_block_packets_total", &[&label]);
            assert!(metric.unwrap() >= caught, "{metric:?} of {caught}");
        });
        scene.agent.command(&["block", "del", given]).unwrap();
        assert!(answered(&scene, bad));
        let label = format!("prefix=\"{prefix}\"");
        let gone = sample(&scene.scrape(), "lb_block_packets_total", &[&label]);
        assert_eq!(gone, None, "{prefix}");
    }
    eprintln!("a blocked download stood still, after the command's start: {stops:?}");
    assert!(
        stops.iter().all(|stop| *stop < Duration::from_secs(1)),
        "{stops:?}"
    );
}

#[test]
fn a_block_ends_with_its_time_and_not_with_the_agent() {
    let mut scene = Scene::listed(&["v1"], "", "");
    let [bad, other] = scene.topology.client_addresses();
    let begun = Instant::now();
    scene
        .agent
        .command(&["block", "add", "10.77.0.3", "--ttl", "2s"])
        .unwrap();
    assert!(!answered(&scene, other));
    wait_for("the rule to end", PATIENCE, || {
        Ok(rule(&scene.agent, "10.77.0.3/32").is_none().then_some(()))
    })
    .unwrap();
    let lasted = begun.elapsed();
    eprintln!("a block of 2 s ended after {lasted:?}");
    assert!(lasted >= Duration::from_secs(2), "{lasted:?}");
    assert!(answered(&scene, other));

    let add = |words: &[&str]| {
        scene
            .agent
            .command(&[&["block", "add"], words].concat())
            .unwrap();
    };
    add(&["10.77.0.2", "--reason", "for good"]);
    add(&["203.0.113.0/24", "--ttl", "10m"]);
    add(&["10.77.0.3", "--ttl", "2s"]);
    let begun = Instant::now();
    assert!(!answered(&scene, bad));
    let before = ["10.77.0.2/32", "203.0.113.0/24"].map(|prefix| rule(&scene.agent, prefix));
    let [Some(forever), Some(limited)] = &before else {
        panic!("{before:?}");
    };
    let caught = forever["dropped_packets"].as_u64().unwrap();
    assert!(caught > 0);

    scene.agent.kill9().unwrap();
    assert!(!answered(&scene, bad));
    // The third ends while there is no agent to end it.
    thread::sleep(Duration::from_secs(2).saturating_sub(begun.elapsed()));
    scene.agent.restart().unwrap();
    assert_eq!(rule(&scene.agent, "10.77.0.3/32"), None);
    assert!(answered(&scene, other));
    assert!(!answered(&scene, bad));
    let after = rule(&scene.agent, "10.77.0.2/32").unwrap();
    assert_eq!(after["rule"], forever["rule"]);
    assert!(after["dropped_packets"].as_u64().unwrap() > caught);
    let after = rule(&scene.agent, "203.0.113.0/24").unwrap();
    assert_eq!(after["rule"], limited["rule"]);
    assert!(after["rule"]["expires_unix_ms"].as_i64().is_some());
}

#[test]
fn ten_thousand_lines_are_imported_or_none() {
    let mut scene = Scene::listed(&["v1"], "", "");
    let [free, blocked] = scene.topology.client_addresses();
    let file = scene.topology.directory().join("list");
    let name = file.display().to_string();
    let mut text = String::from("# addresses and prefixes of both families\n\n10.77.0.3 # us\n");
    for number in 0..3333 {
        let (high, low) = (number / 256, number % 256);
        writeln!(text, "203.{high}.{low}.7").unwrap();
        writeln!(text, "172.{high}.{low}.0/24\t# a network").unwrap();
        writeln!(text, "2001:db8:{number:x}::/48").unwrap();
    }
    fs::write(&file, &text).unwrap();
    let begun = Instant::now();
    let import = reply(
        &scene.agent,
        &["block", "import", &name, "--reason", "list"],
    );
    eprintln!("10,000 rules were imported in {:?}", begun.elapsed());
    assert_eq!(import["imported"], 10_000);
    let count = |scene: &Scene| {
        let list = reply(&scene.agent, &["block", "list"]);
        list["blocks"].as_array().unwrap().len()
    };
    assert_eq!(count(&scene), 10_000);
    assert!(answered(&scene, free) && !answered(&scene, blocked));
    // Prometheus gets those that count only.
    let scrape = scene.scrape();
    assert_eq!(sample(&scrape, "lb_block_rules", &[]), Some(10_000.0));
    assert!(
        sample(
            &scrape,
            "lb_block_packets_total",
            &["prefix=\"10.77.0.3/32\""]
        ) > Some(0.0)
    );

    // One bad line is told with its place, and keeps the others out.
    let bad = file.with_file_name("bad");
    fs::write(&bad, "192.0.2.1\n\n192.0.2.2/33\n2001:db8::1\nx\n").unwrap();
    let output = scene
        .agent
        .cli(&["block", "import", &bad.display().to_string()])
        .unwrap();
    assert_eq!(output.code, 2, "{output:?}");
    for line in [3, 5] {
        let place = format!("{}:{line}: ", bad.display());
        assert!(output.stderr.contains(&place), "{}", output.stderr);
    }
    fs::write(&bad, "192.0.2.1\n10.77.0.1\n").unwrap();
    let output = scene
        .agent
        .cli(&["block", "import", &bad.display().to_string()])
        .unwrap();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.contains("this node's own address"),
        "{output:?}"
    );
    assert_eq!(count(&scene), 10_000);

    scene.agent.kill9().unwrap();
    let begun = Instant::now();
    scene.agent.restart().unwrap();
    eprintln!("the agent was back with them after {:?}", begun.elapsed());
    assert_eq!(count(&scene), 10_000);
    assert!(answered(&scene, free) && !answered(&scene, blocked));

    // As after a reboot: the kernel knows nothing, the file everything.
    scene.agent.stop().unwrap();
    let pins = scene.agent.pins().display().to_string();
    scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    let begun = Instant::now();
    scene.agent.restart().unwrap();
    eprintln!("and from nothing after {:?}", begun.elapsed());
    assert_eq!(count(&scene), 10_000);
    scene.wait_until_served(&[VIP]);
    assert!(!answered(&scene, blocked));
}

#[test]
fn what_would_be_foolish_takes_force() {
    // Nobody listens there; that it is not to be blocked holds all the same.
    let consul = "[consul]\naddress = \"http://10.77.0.200:8500\"\n";
    let scene = Scene::listed(&["v1"], "", consul);
    let [client, _] = scene.topology.client_addresses();
    let rows: [(&[&str], &str); 9] = [
        (&["0.0.0.0/0"], "0.0.0.0/0 is everybody"),
        (&["::/0"], "::/0 is everybody"),
        (&["10.77.0.1"], "10.77.0.1, this node's own address"),
        (&["10.77.0.0/24"], "not blocked: 10.77.0.0/24 contains "),
        (&["fd77:1::1"], "fd77:1::1, this node's own address"),
        (&["10.77.0.200"], "10.77.0.200, the Consul server"),
        (&["10.77.1.2"], "10.77.1.2, a backend of service echo"),
        (&["fd77:1::2"], "fd77:1::2, a backend of service echo"),
        (
            &["203.0.113.9", "10.77.1.0/24"],
            "not blocked: 10.77.1.0/24",
        ),
    ];
    for (given, words) in rows {
        let output = scene
            .agent
            .cli(&[&["block", "add"], given].concat())
            .unwrap();
        assert_eq!(output.code, 1, "{given:?}: {output:?}");
        assert!(
            output.stderr.contains(words),
            "{given:?}: {}",
            output.stderr
        );
        assert!(output.stderr.contains("--force"), "{}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    }
    let list = || reply(&scene.agent, &["block", "list"])["blocks"].clone();
    assert_eq!(list().as_array().map(Vec::len), Some(0));
    assert!(answered(&scene, client));

    for (given, _) in rows {
        let words = [&["block", "add", "--force"], given].concat();
        scene.agent.command(&words).unwrap();
        scene
            .agent
            .command(&[&["block", "del"], given].concat())
            .unwrap();
    }
    scene
        .agent
        .command(&["block", "add", "0.0.0.0/0", "--force"])
        .unwrap();
    assert!(!answered(&scene, client));
    scene.agent.command(&["block", "del", "0.0.0.0/0"]).unwrap();
    assert!(answered(&scene, client));
}
