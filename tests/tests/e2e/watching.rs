//! Traces of real traffic: who is seen, who is not, and that nothing is left on.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::loaded_programs,
};
use lb_tests::{agent::Output, client::Client, process::wait_for};
use serde_json::Value;

use crate::scene::{PATIENCE, Scene, VIP, address, sample};

const SHORT: Duration = Duration::from_millis(300);

pub(crate) fn from(scene: &Scene, source: IpAddr) -> Client {
    scene.client().from(source).patience(SHORT)
}

/// Events of `trace -o json`.
fn events(output: &Output) -> Vec<Value> {
    assert_eq!(output.code, 0, "{}", output.stderr);
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn metric(scene: &Scene, name: &str) -> f64 {
    sample(&scene.scrape(), name, &[]).unwrap()
}

/// Waits until so many traces and captures run.
pub(crate) fn wait_for_watchers(scene: &Scene, count: f64) {
    wait_for(&format!("{count} watchers"), PATIENCE, || {
        Ok((metric(scene, "lb_trace_watchers") == count).then_some(()))
    })
    .unwrap();
}

/// Does something again and again until the thread has ended.
pub(crate) fn keep_doing<T>(thread: ScopedJoinHandle<'_, T>, mut something: impl FnMut()) -> T {
    while !thread.is_finished() {
        something();
    }
    thread.join().unwrap()
}

/// One client is blocked, another is served; each of two traces shows its own, both at once, and
/// once they have ended the switch in the kernel is off.
#[test]
fn each_trace_shows_what_it_asks_for() {
    let scene = Scene::listed(&["v1", "v2"], "", "");
    let [bad, good] = scene.topology.client_addresses();
    let bad_text = bad.to_string();
    let good_text = good.to_string();
    scene.agent.command(&["block", "add", &bad_text]).unwrap();
    assert_eq!(metric(&scene, "lb_trace_events_total"), 0.0);
    let run = |args: &[&str]| scene.agent.cli(args).unwrap();
    let (blocked, requests, replies) = thread::scope(|scope| {
        let blocked = scope.spawn(|| {
            run(&[
                "-o",
                "json",
                "trace",
                "--src",
                "10.77.0.0/24",
                "--verdict",
                "blocked",
                "--count",
                "3",
            ])
        });
        let requests = scope.spawn(|| {
            run(&[
                "-o", "json", "trace", "--src", &good_text, "--port", "80", "--proto", "tcp",
                "--count", "40",
            ])
        });
        let replies = scope.spawn(|| {
            run(&[
                "-o",
                "json",
                "trace",
                "--dst",
                &good_text,
                "--verdict",
                "reply",
                "--count",
                "20",
            ])
        });
        wait_for_watchers(&scene, 3.0);
        let traffic = || {
            let _ = from(&scene, bad).get(address(VIP), "/");
            from(&scene, good).get(address(VIP), "/").unwrap();
        };
        let blocked = keep_doing(blocked, traffic);
        let requests = keep_doing(requests, traffic);
        (blocked, requests, keep_doing(replies, traffic))
    });
    assert_eq!(events(&blocked).len(), 3);
    for event in events(&blocked) {
        assert_eq!(
            (&event["action"], &event["verdict"]),
            (&"drop".into(), &"blocked".into())
        );
        assert_eq!(event["reason"], "The source is on the block list.");
        assert_eq!(event["interface"], "to-client");
        let source: SocketAddr = event["src"].as_str().unwrap().parse().unwrap();
        assert_eq!(source.ip(), bad);
        assert_eq!(
            (&event["dst"], &event["service"]),
            (&VIP.into(), &"echo".into())
        );
        assert_eq!(
            (&event["backend"], &event["sent_dst"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(event["tcp_flags"], "SYN");
    }
    let backends = [1, 2].map(|number| scene.topology.backend_address(number).to_string());
    assert_eq!(events(&requests).len(), 40);
    assert_eq!(events(&requests)[0]["tcp_flags"], "SYN");
    for event in events(&requests) {
        assert_eq!(event["verdict"], "request", "{event}");
        let source: SocketAddr = event["src"].as_str().unwrap().parse().unwrap();
        assert_eq!(source.ip(), good);
        assert_eq!(
            (&event["dst"], &event["service"]),
            (&VIP.into(), &"echo".into())
        );
        let backend = event["backend"].as_str().unwrap();
        assert!(backends.iter().any(|known| known == backend), "{event}");
        assert_eq!(
            (&event["sent_dst"], &event["backend_id"]),
            (&backend.into(), &backend.into())
        );
    }
    assert_eq!(events(&replies).len(), 20);
    for event in events(&replies) {
        assert_eq!(
            (&event["verdict"], &event["sent_src"]),
            (&"reply".into(), &VIP.into())
        );
        assert_eq!(
            (&event["src"], &event["service"]),
            (&event["backend"], &"echo".into())
        );
    }
    wait_for_watchers(&scene, 0.0);
    assert!(!is_on(&scene));
    assert!(metric(&scene, "lb_trace_events_total") >= 63.0);
    assert_eq!(metric(&scene, "lb_trace_lost_total"), 0.0);
}

/// What a person reads: one line a packet, the reason on request, an end by time.
#[test]
fn a_person_reads_lines() {
    let scene = Scene::listed(&["v1"], "", "");
    let [client, _] = scene.topology.client_addresses();
    let text = client.to_string();
    scene.agent.command(&["block", "add", &text]).unwrap();
    let args = ["trace", "--verdict", "drop", "--verbose", "--count", "2"];
    let output = thread::scope(|scope| {
        let trace = scope.spawn(|| scene.agent.cli(&args).unwrap());
        wait_for_watchers(&scene, 1.0);
        keep_doing(trace, || {
            let _ = from(&scene, client).get(address(VIP), "/");
        })
    });
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{output:?}");
    assert!(lines[0].starts_with("TIME (UTC) "), "{output:?}");
    let start = format!("tcp {text}:");
    assert!(
        lines[1].contains("  drop blocked ") && lines[1].contains(&start),
        "{output:?}"
    );
    let end = "bytes service echo  # The source is on the block list.";
    assert!(lines[1].ends_with(end), "{output:?}");
    assert!(output.stderr.contains("2 packets in "), "{output:?}");
    assert!(output.stderr.contains("none lost"), "{output:?}");

    // Beyond the rate packets are lost, and it is said.
    let args = ["trace", "--rate", "1", "--seconds", "2", "--port", "80"];
    let output = thread::scope(|scope| {
        let trace = scope.spawn(|| scene.agent.cli(&args).unwrap());
        wait_for_watchers(&scene, 1.0);
        keep_doing(trace, || {
            let other = scene.topology.client_addresses()[1];
            from(&scene, other).get(address(VIP), "/").unwrap();
        })
    });
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains(" more were lost"), "{output:?}");
    assert!(metric(&scene, "lb_trace_lost_total") > 0.0);
}

/// Whoever ends a trace, and however: the kernel's switch falls.
#[test]
fn nothing_stays_on_when_somebody_is_killed() {
    let mut scene = Scene::listed(&["v1"], "", "");
    let [client, _] = scene.topology.client_addresses();
    // The watcher.
    let mut trace = scene
        .topology
        .node()
        .command(lb_tests::backend::program("lb-agent").unwrap())
        .unwrap();
    trace.arg("--socket").arg(scene.agent.socket());
    trace.args(["trace", "--count", "0", "--seconds", "0"]);
    trace.stdout(std::process::Stdio::null());
    let mut child = trace.spawn().unwrap();
    wait_for_watchers(&scene, 1.0);
    assert!(is_on(&scene));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_watchers(&scene, 0.0);
    assert!(!is_on(&scene));

    // The agent: whoever watches is told, and the programs throw the switch by themselves.
    let args = ["trace", "--count", "0", "--seconds", "0"];
    let output = thread::scope(|scope| {
        let trace = scope.spawn(|| scene.agent.cli(&args).unwrap());
        wait_for_watchers(&scene, 1.0);
        scene.agent.kill9().unwrap();
        trace.join().unwrap()
    });
    assert_eq!(output.code, 4, "{output:?}");
    assert!(output.stderr.contains("the connection broke"), "{output:?}");
    assert!(is_on(&scene), "nobody has had the time to throw it");
    wait_for("the switch to fall", PATIENCE, || {
        from(&scene, client).get(address(VIP), "/").unwrap();
        Ok((!is_on(&scene)).then_some(()))
    })
    .unwrap();
    scene.agent.restart().unwrap();
    assert!(!is_on(&scene));
    wait_for_watchers(&scene, 0.0);

    // A stop ends a trace with a sentence, and does not wait for it.
    let args = ["trace", "--count", "0", "--seconds", "0"];
    let output = thread::scope(|scope| {
        let trace = scope.spawn(|| scene.agent.cli(&args).unwrap());
        wait_for_watchers(&scene, 1.0);
        let begun = std::time::Instant::now();
        scene.agent.stop().unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        trace.join().unwrap()
    });
    assert_eq!(output.code, 4, "{output:?}");
    assert!(
        output.stderr.contains("the agent is shutting down"),
        "{output:?}"
    );
    assert!(!is_on(&scene));
}

/// Whether the programs that run on the node look at packets.
fn is_on(scene: &Scene) -> bool {
    let pins = fs::read_dir(scene.agent.pins()).unwrap();
    let version = pins.flatten().next().expect("pins of some schema").path();
    let counters = MapInfo::from_pin(version.join("VERDICT_STATS"))
        .unwrap()
        .id();
    // The attached program is one of those that use our maps; of a killed agent's and the present
    // one's only one is left.
    let mut on = Vec::new();
    let mut names = Vec::new();
    for program in loaded_programs() {
        // One that another test has just unloaded.
        let Ok(program) = program else { continue };
        let maps = program.map_ids().ok().flatten().unwrap_or_default();
        if !maps.contains(&counters) {
            continue;
        }
        for id in maps {
            let Ok(info) = MapInfo::from_id(id) else {
                continue;
            };
            names.push(info.name_as_str().unwrap_or_default().to_owned());
            if info.name_as_str() == Some(".data.trace") {
                let map = Map::from_map_data(MapData::from_id(id).unwrap()).unwrap();
                let map: Array<MapData, [u32; 2]> = map.try_into().unwrap();
                on.push(map.get(&0, 0).unwrap()[0] != 0);
            }
        }
    }
    assert!(!on.is_empty(), "no switch among {names:?}");
    on.contains(&true)
}
