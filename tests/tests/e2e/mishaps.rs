//! What befalls an agent in service: interfaces that vanish, a disk that takes nothing, a broken
//! configuration, restart upon restart. Traffic goes on, it is told, and nothing piles up.

use std::{fs, path::PathBuf, thread, time::Duration};

use lb_tests::process::{Signal, wait_for};

use crate::scene::{Conversation, PATIENCE, Scene, VIP, VIP6, address, entry};

/// Open descriptors and resident memory (KiB) of the agent.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    descriptors: usize,
    resident: usize,
}

impl Footprint {
    fn of(scene: &Scene) -> Self {
        let process = PathBuf::from(format!("/proc/{}", scene.agent.process().pid()));
        let count = |directory| fs::read_dir(process.join(directory)).unwrap().count();
        let status = fs::read_to_string(process.join("status")).unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
            .unwrap();
        Self {
            descriptors: count("fd"),
            resident: resident.trim().parse().unwrap(),
        }
    }

    /// Waits until no more descriptors are open than at an earlier time (those of the last
    /// command may be about to close), and compares memory, with some for what is cached.
    fn assert_no_more_than(&self, scene: &Scene, what: &str) {
        let descriptors = wait_for("descriptors to be closed", PATIENCE, || {
            let now = Self::of(scene);
            Ok((now.descriptors <= self.descriptors).then_some(()))
        });
        let now = Self::of(scene);
        eprintln!("{what}: {self:?} before, {now:?} after");
        descriptors.unwrap_or_else(|error| panic!("{what}: {error:#}; {now:?} after {self:?}"));
        assert!(
            now.resident < self.resident + self.resident / 2 + 8 * 1024,
            "{what}: {now:?} after {self:?}"
        );
    }
}

/// Numbers of the maps that are pinned.
fn pinned_maps(scene: &Scene) -> Vec<u64> {
    let mut ids = Vec::new();
    for directory in fs::read_dir(scene.agent.pins()).unwrap() {
        for pin in fs::read_dir(directory.unwrap().path()).unwrap() {
            let pin = pin.unwrap();
            // Links; maps are named in capitals.
            if pin
                .file_name()
                .to_string_lossy()
                .contains(char::is_lowercase)
            {
                continue;
            }
            let info = aya::maps::MapInfo::from_pin(pin.path()).unwrap();
            ids.push(u64::from(info.id()));
        }
    }
    ids.sort_unstable();
    ids
}

/// An agent that was restarted twenty times, half of them by SIGKILL, works on the same maps and
/// is as large as the first; a connection that was opened before is still open.
#[test]
fn restarts_pile_nothing_up() {
    let mut scene = Scene::listed(&["v1", "v1"], "", "");
    let mut conversation = Conversation::with("b2", scene.topology.client(), address(VIP));
    let maps = pinned_maps(&scene);
    assert!(maps.len() > 5, "{maps:?}");
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    let first = Footprint::of(&scene);
    for round in 0..20 {
        if round % 2 == 0 {
            scene.agent.kill9().unwrap();
        } else {
            scene.agent.stop().unwrap();
        }
        assert_eq!(conversation.ask(), "b2", "round {round}, without an agent");
        scene.agent.restart().unwrap();
        assert_eq!(conversation.ask(), "b2", "round {round}");
    }
    assert_eq!(pinned_maps(&scene), maps);
    first.assert_no_more_than(&scene, "twenty restarts");

    // One program on each interface, and all maps go with `detach`.
    scene.agent.stop().unwrap();
    let pins = scene.agent.pins().display().to_string();
    scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    let left = || -> Vec<String> {
        aya::maps::loaded_maps()
            .filter_map(Result::ok)
            .filter(|map| maps.contains(&u64::from(map.id())))
            .map(|map| map.name_as_str().unwrap_or("?").to_owned())
            .collect()
    };
    // Rarely: looking at an array of programs keeps it alive while the kernel empties it.
    wait_for("the maps to be freed", PATIENCE, || {
        std::thread::sleep(Duration::from_secs(2));
        Ok(left().is_empty().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {:?} are left", left()));
}

/// Reloads that change the backends, and commands, leave the agent as large as before.
#[test]
fn reloads_and_commands_pile_nothing_up() {
    let scene = Scene::listed(&["v1", "v1"], "", "");
    let second = entry(scene.topology.backend_address(2), "v1");
    let cycle = || {
        scene.reconfigure(&second, "# away\n");
        scene.agent.command(&["status"]).unwrap();
        scene.scrape();
        scene.reconfigure("# away\n", &second);
    };
    for _ in 0..5 {
        cycle();
    }
    let before = Footprint::of(&scene);
    for _ in 0..25 {
        cycle();
    }
    before.assert_no_more_than(&scene, "fifty reloads");
    scene.wait_until_served(&[VIP, VIP6]);
}

/// An invalid file changes nothing, is told in the journal and in `status`, with its line; and
/// again by SIGHUP, a valid one ends the problem.
#[test]
fn a_broken_configuration_is_not_taken() {
    let scene = Scene::listed(&["v1", "v1"], "", "");
    let file = scene.agent.config_file().to_owned();
    let valid = fs::read_to_string(&file).unwrap();
    let in_force = || -> Vec<String> {
        let scrape = scene.scrape();
        let kept = ["lb_backend_weight", "lb_snapshot_version"];
        scrape
            .lines()
            .filter(|line| kept.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect()
    };
    let before = in_force();
    assert_eq!(before.len(), 5, "{before:?}");
    let load = scene.load(200.0);
    for (broken, place, words) in [
        (valid.replace("[[service]]", "[[servise]]"), "", "`servise`"),
        (
            valid.replace("10.77.2.2:8080", "10.77.2.2"),
            "",
            "10.77.2.2",
        ),
        (String::new(), ":1", "[node]"),
    ] {
        fs::write(&file, &broken).unwrap();
        let place = match broken
            .lines()
            .position(|line| line.contains(words.trim_matches('`')))
        {
            Some(line) => format!(":{}:", line + 1),
            None => place.to_owned(),
        };
        scene.agent.process().signal(Signal::Hangup).unwrap();
        let named = format!("{}{place}", file.display());
        wait_for("status to name the place", PATIENCE, || {
            let problems = scene.problems();
            let told = |problem: &String| problem.contains(&named) && problem.contains(words);
            Ok(problems.iter().any(told).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {named}, {words}; {:?}", scene.problems()));
        let journal = scene.agent.process().output();
        let told = |line: &str| line.contains("\"ERROR\"") && line.contains(&named);
        assert!(journal.lines().any(told), "{journal}");
        assert_eq!(in_force(), before);
    }
    fs::write(&file, &valid).unwrap();
    scene.agent.process().signal(Signal::Hangup).unwrap();
    scene.wait_until_healthy();
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// A state that cannot be saved is told of, costs no packet, and is saved once it can be, without
/// a further change.
#[test]
fn a_full_or_broken_disk_is_told_and_outlived() {
    let mut scene = Scene::listed(&["v1", "v1"], "", "");
    let state = scene.topology.directory().join("state");
    let aside = scene.topology.directory().join("state.aside");
    let load = scene.load(200.0);
    fs::rename(&state, &aside).unwrap();
    fs::write(&state, "no directory").unwrap();
    let drained = scene.topology.backend_address(2).to_string();
    scene.agent.command(&["drain", "echo", &drained]).unwrap();
    scene.wait_for_problem("cannot save the agent's state");
    let from = load.now();
    thread::sleep(Duration::from_millis(300));
    let after = load.record().between(from, load.now());
    assert!(after.of("b1") > 0 && after.of("b2") == 0, "{after:?}");

    fs::remove_file(&state).unwrap();
    fs::rename(&aside, &state).unwrap();
    scene.wait_until_healthy();
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    let list = scene.agent.command(&["backend", "list"]).unwrap();
    let row = list.lines().find(|line| line.contains(&drained)).unwrap();
    assert!(row.contains("drain"), "{list}");
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// An interface that goes away takes only its own traffic with it, and is told of.
#[test]
fn an_interface_that_vanishes_is_told_of() {
    let health = "health = { kind = \"http\", path = \"/health\", interval = \"200ms\", \
                  timeout = \"200ms\", rise = 2, fall = 2 }";
    let scene = Scene::listed(&["v1", "v1"], health, "");
    scene
        .topology
        .node()
        .tool("ip", &["link", "del", "to-b2"])
        .unwrap();
    scene.wait_for_problem("to-b2");
    let journal = scene.agent.process().output();
    let told = |line: &str| line.contains("to-b2") && line.contains("\"WARN\"");
    assert!(journal.lines().any(told), "{journal}");
    let client = scene.client().patience(Duration::from_secs(2));
    for vip in [VIP, VIP6] {
        let what = format!("the other backend to take everything of {vip}");
        wait_for(&what, PATIENCE, || {
            let spread = client.spread(address(vip), 40, 4);
            Ok((spread.of("b1") == 40).then_some(()))
        })
        .unwrap();
    }
    scene.agent.process().ensure_running().unwrap();
}
