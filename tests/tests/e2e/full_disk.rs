//! The disk of the state, full.

use std::{fs, io::Write as _, process::Command};

use lb_tests::{cleanup, consul::Consul};

use crate::{
    consul::wait_for_answers,
    consul_chaos::{SHORT, assert_unnoticed, begin, start, wait_for_journal},
    scene::{Scene, hosts, reply},
};

/// No room is left where the state is kept: that is told, costs nothing, and what could not be saved
/// is saved as soon as there is room.
#[test]
fn the_disk_of_the_state_is_full() {
    let (topology, backends) = hosts(2);
    let state = topology.directory().join("state");
    fs::create_dir_all(&state).unwrap();
    let mount = state.display().to_string();
    let arguments = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", &mount];
    topology.node().tool("mount", &arguments).unwrap();
    let undo = mount.clone();
    let _unmount = cleanup::on_exit(move || {
        // Whoever still holds a file there keeps it until its end.
        let _ = Command::new("umount").args(["--lazy", &undo]).status();
    });
    let consul = Consul::start(topology.node(), topology.directory()).unwrap();
    let agent = start(&topology, "", SHORT, |setup| setup);
    let mut scene = Scene {
        agent,
        backends,
        topology,
    };
    let load = begin(&scene, &consul);
    let ballast = state.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);

    scene
        .agent
        .command(&["drain", "echo", "lb-node/b2"])
        .unwrap();
    scene.wait_for_problem("cannot save the agent's state");
    scene.wait_for_problem("No space left on device");
    wait_for_journal(&scene, "No space left on device");
    // It is in force all the same.
    wait_for_answers(&load, 100, "b2");
    // What was saved before is whole.
    let text = fs::read(state.join("state.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&text).unwrap();
    fs::remove_file(&ballast).unwrap();
    scene.wait_until_healthy();
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    let list = reply(&scene.agent, &["backend", "list", "echo"]);
    assert!(list.to_string().contains("drain"), "{list}");
    wait_for_answers(&load, 100, "b2");
    assert_unnoticed(load, &["b1"]);
}
