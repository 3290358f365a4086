//! The agent's comings and goings, which no packet may notice: kill and restart, reload, change of
//! mode, and the only one that ends traffic, `detach`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use lb_tests::process::Signal;

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, entry, sample};

/// Flows counted so far.
fn flows(scene: &Scene) -> f64 {
    sample(
        &scene.scrape(),
        "lb_service_flows_total",
        &["service=\"echo\""],
    )
    .unwrap()
}

/// Killed and started again and again under load, with a download running: nothing fails,
/// nothing is counted anew, and nothing piles up.
#[test]
fn killed_and_restarted_under_load() {
    const BYTES: u64 = 80_000_000;
    let mut scene = Scene::listed(&["v1", "v2"], "", "");
    let client = scene.client().patience(PATIENCE);
    let done = AtomicU64::new(0);
    let load = scene.load(300.0);
    thread::scope(|scope| {
        // About ten seconds at this rate.
        let download = scope.spawn(|| {
            client
                .download(address(VIP), BYTES, Some(8_000_000), &done)
                .unwrap();
        });
        while done.load(Ordering::Relaxed) == 0 {
            thread::sleep(Duration::from_millis(10));
        }
        let mut counted = flows(&scene);
        for round in 0..4 {
            if round % 2 == 0 {
                scene.agent.kill9().unwrap();
            } else {
                scene.agent.stop().unwrap();
            }
            let before = done.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(500));
            // It may have come to its end on a slow machine.
            let now = done.load(Ordering::Relaxed);
            assert!(now > before || now == BYTES, "the download stands still");
            scene.agent.restart().unwrap();
            assert!(scene.problems().is_empty());
            let now = flows(&scene);
            assert!(now >= counted, "{now} flows after {counted}");
            counted = now;
            let status = scene.agent.command(&["status"]).unwrap();
            assert!(status.contains("to-client (native, adopted)"), "{status}");
        }
        download.join().unwrap();
    });
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    eprintln!(
        "{} requests over four restarts, none failed; the longest gap was {:?}",
        record.all().answered(),
        record.longest_gap(Duration::ZERO)
    );
}

/// Twenty restarts leave as many pins as one.
#[test]
fn restarts_leave_nothing_behind() {
    let mut scene = Scene::listed(&["v1"], "", "");
    let pins = |scene: &Scene| {
        let mut names = Vec::new();
        for directory in std::fs::read_dir(scene.agent.pins()).unwrap() {
            for pin in std::fs::read_dir(directory.unwrap().path()).unwrap() {
                names.push(pin.unwrap().file_name().into_string().unwrap());
            }
        }
        names.sort();
        names
    };
    let before = pins(&scene);
    assert_eq!(
        before
            .iter()
            .filter(|name| name.starts_with("xdp_native_"))
            .count(),
        2
    );
    for _ in 0..20 {
        scene.agent.kill9().unwrap();
        scene.agent.restart().unwrap();
    }
    assert_eq!(pins(&scene), before);
    scene.wait_until_served(&[VIP, VIP6]);
}

/// A reload that takes a backend away and brings it back, under load; an invalid file changes
/// nothing and is told of.
#[test]
fn reload_under_load() {
    let scene = Scene::listed(&["v1", "v1", "v1"], "", "");
    let load = scene.load(300.0);
    let third = entry(scene.topology.backend_address(3), "v1");
    scene.reconfigure(&third, "# away\n");
    let list = scene.agent.command(&["backend", "list"]).unwrap();
    assert!(!list.contains("10.77.3.2"), "{list}");
    let from = load.now();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(load.record().between(from, load.now()).of("b3"), 0);

    let file = scene.agent.config_file().to_owned();
    let valid = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, valid.replace("[[service]]", "[[servise]]")).unwrap();
    scene.agent.process().signal(Signal::Hangup).unwrap();
    scene.wait_for_problem("servise");
    std::fs::write(&file, &valid).unwrap();
    scene.agent.process().signal(Signal::Hangup).unwrap();
    scene.wait_until_healthy();

    scene.reconfigure("# away\n", &third);
    scene.wait_until_served(&[VIP]);
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// Where the driver cannot, or is not asked to, the stack runs the programs; a change of mode
/// replaces the link.
#[test]
fn generic_mode_and_back() {
    let mut scene = Scene::listed(&["v1", "v2"], "", "");
    change_mode(&mut scene, "generic", "to-client (generic)");
    change_mode(&mut scene, "native", "to-client (native)");
}

/// From the driver to tc and back, under load: both run for a moment rather than neither.
#[test]
fn no_request_notices_a_change_to_tc() {
    let mut scene = Scene::listed(&["v1", "v2"], "", "");
    let load = scene.load(300.0);
    // A veth's other end is a local stack.
    change_mode(&mut scene, "auto", "to-client (tc)");
    change_mode(&mut scene, "native", "to-client (native)");
    change_mode(&mut scene, "off", "to-client (tc)");
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

fn change_mode(scene: &mut Scene, mode: &str, shown: &str) {
    scene.agent.stop().unwrap();
    let file = scene.agent.config_file().to_owned();
    let text = std::fs::read_to_string(&file).unwrap();
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with("xdp_mode"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(
        &file,
        text.replace("[node]", &format!("[node]\nxdp_mode = \"{mode}\"")),
    )
    .unwrap();
    scene.agent.restart().unwrap();
    let status = scene.agent.command(&["status"]).unwrap();
    assert!(status.contains(shown), "{status}");
    scene.wait_until_served(&[VIP, VIP6]);
}

/// `detach` is refused while the agent runs; afterwards it takes everything off the node.
#[test]
fn detach_takes_everything_away() {
    let scene = Scene::listed(&["v1"], "", "");
    let pins = scene.agent.pins().display().to_string();
    let output = scene.agent.cli(&["detach", "--bpf-dir", &pins]).unwrap();
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("the agent is running"),
        "{}",
        output.stderr
    );
    let links = || scene.topology.node().tool("ip", &["link", "show"]).unwrap();
    scene.agent.stop().unwrap();
    assert_eq!(links().matches("prog/xdp").count(), 2, "{}", links());
    assert_eq!(scene.client().spread(address(VIP), 20, 2).failed(), 0);

    let removed = scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    assert!(removed.contains("to-client (native XDP)"), "{removed}");
    assert!(!links().contains("xdp"), "{}", links());
    assert!(!scene.agent.pins().exists());
    let client = scene.client().patience(Duration::from_millis(300));
    assert_eq!(client.spread(address(VIP), 2, 2).answered(), 0);
    let again = scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    assert!(again.contains("nothing to remove"), "{again}");
}
