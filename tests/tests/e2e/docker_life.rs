//! Engine, Consul and agent die and come back: what runs is registered, what does not is not, and
//! what is registered all the time serves all the time.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use lb_tests::{backend::program, docker::Docker, process::wait_for};

use crate::{
    docker::{PREFIX, Stage},
    scene::{Conversation, PATIENCE, VIP, address, reply},
};

/// Starts a container of the service `echo` under its own address.
fn run(docker: &Docker, name: &str) {
    let options = json!({"Labels": {"SERVICE_NAME": "echo"}});
    docker.run(name, &options).unwrap();
}

#[test]
fn what_runs_is_registered_whoever_dies() {
    let mut stage = Stage::new("register = \"internal\"");
    for name in ["c1", "c2"] {
        run(&stage.docker, name);
    }
    stage.wait_for_ids(&["c1:8080", "c2:8080"]);
    let c1 = stage.service("c1:8080").unwrap();
    let ip = c1["Address"].as_str().unwrap();
    assert!(ip.starts_with("172.31.251."), "{c1}");
    assert_eq!(c1["Port"], 8080);
    stage.wait_until_served_by(&["c1", "c2"]);
    let load = stage.scene.load(100.0);

    // The engine dies; its containers do not, and stay registered.
    stage.docker.kill9().unwrap();
    stage
        .scene
        .wait_for_problem("until then what was registered stays");
    assert_eq!(stage.ids(), ["c1:8080", "c2:8080"]);
    stage.wait_until_served_by(&["c1", "c2"]);
    // Even a Consul that forgets everything meanwhile is told again.
    stage.consul.restart_empty().unwrap();
    stage.wait_for_ids(&["c1:8080", "c2:8080"]);
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    // One dies unseen, another comes; when the engine is back, that is what counts.
    stage.docker.restart().unwrap();
    stage.scene.wait_until_healthy();
    assert_eq!(stage.ids(), ["c1:8080", "c2:8080"]);
    let pid = stage.docker.inspect("c2").unwrap()["State"]["Pid"].to_string();
    stage.docker.kill9().unwrap();
    stage
        .scene
        .wait_for_problem("until then what was registered stays");
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(stage.ids(), ["c1:8080", "c2:8080"]);
    stage.docker.restart().unwrap();
    stage.wait_for_ids(&["c1:8080"]);
    run(&stage.docker, "c3");
    stage.wait_for_ids(&["c1:8080", "c3:8080"]);
    stage.wait_until_served_by(&["c1", "c3"]);

    // Consul is emptied, with nothing happening to any container.
    stage.consul.restart_empty().unwrap();
    assert_eq!(stage.consul.get("/v1/agent/services").unwrap(), json!({}));
    stage.wait_for_ids(&["c1:8080", "c3:8080"]);

    // The agent is away: what was registered stays, and then the ghost goes.
    stage.scene.agent.kill9().unwrap();
    stage.docker.remove("c1").unwrap();
    run(&stage.docker, "c4");
    assert_eq!(stage.ids(), ["c1:8080", "c3:8080"]);
    stage.scene.agent.restart().unwrap();
    stage.wait_for_ids(&["c3:8080", "c4:8080"]);
    stage.wait_until_served_by(&["c3", "c4"]);
    // An orderly end takes nothing away, either.
    stage.scene.agent.stop().unwrap();
    assert_eq!(stage.ids(), ["c3:8080", "c4:8080"]);
}

#[test]
fn a_containers_own_health_check_counts() {
    let mut stage = Stage::new("register = \"internal\"");
    let flags = stage.scene.topology.directory().join("flags");
    fs::create_dir_all(&flags).unwrap();
    let second = Duration::from_secs(1).as_nanos() as u64;
    let options = json!({
        "Labels": {"SERVICE_NAME": "echo"},
        "Healthcheck": {
            "Test": ["CMD", "/cat", "/flags/healthy"], "Interval": 3 * second, "Timeout": 5 * second,
            "Retries": 1,
        },
        "HostConfig": {"Binds": [format!("{}:/flags:ro", flags.display())]},
    });
    fs::write(flags.join("healthy"), "").unwrap();
    stage.docker.run("web", &options).unwrap();
    run(&stage.docker, "plain");
    stage.wait_for_ids(&["plain:8080", "web:8080"]);
    stage.wait_for_status("web:8080", "health", "passing");
    let check = stage.check("web:8080", "health").unwrap();
    let output = check["Output"].as_str().unwrap();
    assert!(output.starts_with("container web, started 2"), "{output}");
    assert!(output.ends_with(", is healthy"), "{output}");
    assert_eq!(stage.check("plain:8080", "health"), None);
    stage.wait_until_served_by(&["plain", "web"]);

    fs::remove_file(flags.join("healthy")).unwrap();
    stage.wait_for_status("web:8080", "health", "critical");
    stage.wait_until_served_by(&["plain"]);
    let list = reply(&stage.scene.agent, &["backend", "list", "echo"]);
    let mut backends = list["backends"].as_array().unwrap().iter();
    let id = format!("lb-node/{PREFIX}web:8080");
    let web = backends
        .find(|backend| backend["id"] == id.as_str())
        .unwrap();
    assert_eq!(web["health"], "unhealthy", "{web}");
    fs::write(flags.join("healthy"), "").unwrap();
    stage.wait_for_status("web:8080", "health", "passing");
    stage.wait_until_served_by(&["plain", "web"]);
    // Over a restart of the engine, what was healthy stays so.
    stage.docker.kill9().unwrap();
    stage.docker.restart().unwrap();
    wait_for("the engine to be asked again", PATIENCE, || {
        let check = stage.check("web:8080", "health").unwrap();
        assert_eq!(check["Status"], "passing", "{check}");
        Ok(stage.status()["engine_error"].is_null().then_some(()))
    })
    .unwrap();
    let check = stage.check("web:8080", "health").unwrap();
    assert_eq!(check["Status"], "passing", "{check}");
    // Somebody takes the check away; it comes back.
    let path = format!("/v1/agent/check/deregister/{PREFIX}web:8080:health");
    stage.consul.order(&path).unwrap();
    wait_for("the check to be gone", PATIENCE, || {
        Ok(stage.check("web:8080", "health").is_none().then_some(()))
    })
    .unwrap();
    stage.wait_for_status("web:8080", "health", "passing");
}

/// Who is told to stop gets nothing new from then on, ends what it has, and is gone when it is. The
/// signal is one that the process takes no notice of, so that it lives until the engine kills it.
#[test]
fn who_is_told_to_stop_gets_nothing_new() {
    let stage = Stage::new("register = \"internal\"");
    let options = json!({"Labels": {"SERVICE_NAME": "echo"}, "StopSignal": "SIGWINCH"});
    stage.docker.run("c1", &options).unwrap();
    run(&stage.docker, "c2");
    stage.wait_until_served_by(&["c1", "c2"]);
    // `doctor` finds the engine that the configuration names.
    let doctor = std::process::Command::new(program("lb-agent").unwrap())
        .args(["doctor", "-o", "json", "--config"])
        .arg(stage.scene.agent.config_file())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let engine = findings.iter().find(|one| one["subject"] == "docker");
    let engine = engine.unwrap();
    assert_eq!(engine["state"], "fine", "{engine}");
    let maintenance = || {
        let checks = stage.consul.get("/v1/agent/checks").unwrap();
        let id = format!("_service_maintenance:{PREFIX}c1:8080");
        checks.get(id).map(|check| check["Notes"].clone())
    };
    // What does not end it is nothing.
    stage.docker.signal("c1", "HUP").unwrap();
    stage.docker.signal("c1", "USR1").unwrap();
    let mut open = Conversation::with("c1", stage.scene.topology.client(), address(VIP));
    thread::scope(|scope| {
        let begun = Instant::now();
        let stop = scope.spawn(|| stage.docker.stop_within("c1", 6));
        let notes = wait_for("maintenance", PATIENCE, || Ok(maintenance())).unwrap();
        eprintln!(
            "in maintenance {:?} after the stop was asked for",
            begun.elapsed()
        );
        assert_eq!(notes, "the container is told to stop (lb-agent)");
        stage.wait_until_served_by(&["c2"]);
        assert_eq!(stage.ids(), ["c1:8080", "c2:8080"]);
        assert_eq!(open.ask(), "c1");
        assert!(!stop.is_finished(), "it was to take six seconds");
        stop.join().unwrap().unwrap();
    });
    stage.wait_for_ids(&["c2:8080"]);
    // The next run begins anew.
    stage.docker.start_again("c1").unwrap();
    stage.wait_for_ids(&["c1:8080", "c2:8080"]);
    stage.wait_until_served_by(&["c1", "c2"]);
    assert_eq!(maintenance(), None);
}
