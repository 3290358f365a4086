//! Consul at its worst, and the node around the agent: in each case clients notice nothing, the
//! operator is told, and all is well again by itself once the cause is gone.
//!
//! Told elsewhere: a server that is replaced by an empty one, one that dies or hangs, and a damaged
//! state file (`consul.rs`); a state directory that is none (`mishaps.rs`) or full (`full_disk.rs`).

use std::{fs, net::TcpStream, path::Path, thread, time::Duration};

use lb_tests::{
    agent::Setup,
    consul::{self, Consul},
    load::Load,
    process::{Signal, wait_for},
    topology::Topology,
};

use crate::{
    consul::{backend, from_consul, instance, scene_with, wait_for_answers},
    scene::{PATIENCE, Scene, VIP, address, config, hosts, reply, sample},
};

/// Keys of `[consul]` that make questions short, so that an answer which never comes is missed soon:
/// after 2 s, a sixteenth of that, and 5 s.
pub(crate) const SHORT: &str = "wait = \"2s\"";
/// Longer than that.
const OVERDUE: Duration = Duration::from_secs(9);

/// The agent of a node with these hosts and this Consul; `prepare` may say more of it.
pub(crate) fn start<'a>(
    topology: &'a Topology,
    service: &str,
    keys: &str,
    prepare: impl FnOnce(Setup<'a>) -> Setup<'a>,
) -> lb_tests::agent::Agent {
    let config = config(
        &from_consul(service),
        &format!("[consul]\naddress = \"http://127.0.0.1:8500\"\n{keys}\n"),
    );
    let setup = Setup::new(topology).config(&config);
    prepare(setup).start().unwrap()
}

/// Registers the first two backends; clients come as soon as both answer.
pub(crate) fn begin(scene: &Scene, consul: &Consul) -> Load {
    for id in ["b1", "b2"] {
        consul.register(instance(scene, id)).unwrap();
    }
    wait_for_backends(scene, &["b1", "b2"]);
    scene.wait_until_healthy();
    scene.load(200.0)
}

/// No request failed, and each of these answered some.
pub(crate) fn assert_unnoticed(load: Load, backends: &[&str]) {
    // One that has just come may have had no turn yet.
    let all = || load.record().between(Duration::ZERO, Duration::MAX);
    let have_answered = || backends.iter().all(|id| all().of(id) > 0);
    wait_for("each to answer", PATIENCE, || {
        Ok(have_answered().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}; {:?}", all().backends));
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    for id in backends {
        assert!(all.of(id) > 0, "{:?}", all.backends);
    }
}

fn held(scene: &Scene) -> Option<f64> {
    sample(&scene.scrape(), "lb_service_held_backends", &[])
}

pub(crate) fn wait_for_journal(scene: &Scene, words: &str) {
    wait_for(
        &format!("the journal to tell of {words:?}"),
        PATIENCE,
        || {
            let journal = scene.agent.process().output();
            Ok(journal.contains(words).then_some(()))
        },
    )
    .unwrap_or_else(|error| panic!("{error:#}; {}", scene.agent.process().tail()));
}

/// Backends that are of a later time than the snapshot are kept; those that are listed again after
/// it are used at once, and the index, which has gone backward, is followed.
#[test]
fn an_older_snapshot_is_restored() {
    let (consul, scene) = scene_with(3, "", SHORT);
    let before = consul.snapshot().unwrap();
    for id in ["b1", "b2"] {
        consul.register_in_catalog(instance(&scene, id)).unwrap();
    }
    wait_for_backends(&scene, &["b1", "b2"]);
    let load = scene.load(200.0);
    consul.restore(before).unwrap();
    scene.wait_for_problem("2 backends vanished from Consul at once");
    wait_for_journal(&scene, "most backends vanished from the catalog at once");
    assert_eq!(held(&scene), Some(2.0));
    let listed = consul.get("/v1/health/service/echo").unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(0));
    wait_for_answers(&load, 200, "nobody");
    for id in ["b1", "b2", "b3"] {
        consul.register_in_catalog(instance(&scene, id)).unwrap();
    }
    scene.wait_until_healthy();
    assert_eq!(held(&scene), Some(0.0));
    wait_for_backends(&scene, &["b1", "b2", "b3"]);
    assert_unnoticed(load, &["b1", "b2", "b3"]);
}

/// Waits until these answer, and no others.
fn wait_for_backends(scene: &Scene, ids: &[&str]) {
    wait_for(&format!("{ids:?} to answer"), PATIENCE, || {
        scene.agent.process().ensure_running()?;
        let client = scene.client().patience(Duration::from_millis(500));
        let spread = client.spread(address(VIP), 60, 4);
        let found: Vec<&str> = spread.backends.keys().map(String::as_str).collect();
        Ok((found == ids && spread.failed() == 0).then_some(()))
    })
    .unwrap();
}

/// Of three servers two die: the third has no leader, and what it says is not believed.
#[test]
fn the_servers_lose_their_leader() {
    let (topology, backends) = hosts(3);
    let mut consul = Consul::cluster(topology.node(), topology.directory()).unwrap();
    let agent = start(&topology, "", SHORT, |setup| setup);
    let scene = Scene {
        agent,
        backends,
        topology,
    };
    let load = begin(&scene, &consul);
    consul.lose_leader().unwrap();
    scene.wait_for_problem("Consul watch health/echo: ");
    scene.wait_for_problem("the last good backends are used");
    wait_for_journal(&scene, "leader");
    let up = || sample(&scene.scrape(), "lb_consul_up", &["watch=\"health/echo\""]);
    assert_eq!(up(), Some(0.0));
    wait_for_answers(&load, 200, "nobody");

    consul.regain_leader().unwrap();
    scene.wait_until_healthy();
    assert_eq!(up(), Some(1.0));
    consul.register(instance(&scene, "b3")).unwrap();
    wait_for_backends(&scene, &["b1", "b2", "b3"]);
    assert_unnoticed(load, &["b1", "b2", "b3"]);
}

/// A token that loses its rights gets `200 []`, one that is deleted gets 403. Neither is the end of
/// a backend; a new token in the file is taken up.
#[test]
fn a_token_is_revoked() {
    const MASTER: &str = "6a1253d2-1785-24fd-91c2-f8e78c745511";
    const FIRST: &str = "0d3830b4-9e15-2eca-5e46-6cbbbd16a426";
    const SECOND: &str = "c58b5b2e-7e43-4c3a-9f52-0f5d6f1b9f31";
    const RULES: &str = "node_prefix \"\" { policy = \"read\" }\n\
                         service_prefix \"\" { policy = \"read\" }\n\
                         key_prefix \"lb/\" { policy = \"read\" }";
    let (topology, backends) = hosts(2);
    let consul = Consul::with_acl(topology.node(), topology.directory(), MASTER).unwrap();
    let policy = consul.put_policy(None, "reader", RULES).unwrap();
    let token = consul.put_token(FIRST, "reader").unwrap();
    let file = topology.directory().join("token");
    fs::write(&file, FIRST).unwrap();
    let keys = format!("{SHORT}\ntoken_file = \"{}\"", file.display());
    let agent = start(&topology, "", &keys, |setup| setup);
    let scene = Scene {
        agent,
        backends,
        topology,
    };
    let load = begin(&scene, &consul);

    // It may still ask, and sees nothing.
    consul
        .put_policy(
            Some(&policy),
            "reader",
            "agent \"none\" { policy = \"read\" }",
        )
        .unwrap();
    scene.wait_for_problem("2 backends vanished from Consul at once");
    wait_for_journal(&scene, "most backends vanished from the catalog at once");
    assert_eq!(held(&scene), Some(2.0));
    wait_for_answers(&load, 200, "nobody");
    consul.put_policy(Some(&policy), "reader", RULES).unwrap();
    scene.wait_until_healthy();
    assert_eq!(held(&scene), Some(0.0));

    consul.delete_token(&token).unwrap();
    scene.wait_for_problem("permission denied");
    wait_for_journal(&scene, "permission denied");
    wait_for_answers(&load, 200, "nobody");
    consul.put_token(SECOND, "reader").unwrap();
    fs::write(&file, SECOND).unwrap();
    scene.wait_until_healthy();
    assert_unnoticed(load, &["b1", "b2"]);
}

/// Others on the node have taken all connections that Consul lets one address have.
#[test]
fn there_is_no_connection_left() {
    /// `http_max_conns_per_client`.
    const LIMIT: usize = 200;
    let (consul, mut scene) = scene_with(3, "", SHORT);
    for id in ["b1", "b2"] {
        consul.register(instance(&scene, id)).unwrap();
    }
    wait_for_backends(&scene, &["b1", "b2"]);
    scene.wait_until_saved(&["lb-node/b1", "lb-node/b2"]);
    let load = scene.load(200.0);
    scene.agent.kill9().unwrap();
    let taken: Vec<TcpStream> = scene.topology.node().run(|| {
        let connect = |_| TcpStream::connect(consul::ADDRESS).unwrap();
        (0..LIMIT).map(connect).collect()
    });
    scene.agent.restart().unwrap();
    scene.wait_for_problem("http_max_conns_per_client");
    wait_for_journal(&scene, "http_max_conns_per_client");
    for id in ["b1", "b2"] {
        assert_eq!(backend(&scene, id)["weight"], 1);
    }
    wait_for_answers(&load, 200, "nobody");
    drop(taken);
    scene.wait_until_healthy();
    consul.register(instance(&scene, "b3")).unwrap();
    wait_for_backends(&scene, &["b1", "b2", "b3"]);
    assert_unnoticed(load, &["b1", "b2", "b3"]);
}

/// The agent stands still: for so long that every probe and every answer is overdue when it goes on,
/// which is all that a minute would do more.
#[test]
fn the_agent_is_paused() {
    let health = "health = { kind = \"tcp\", interval = \"500ms\", timeout = \"500ms\", fall = 2, slow_start = \"0s\" }";
    let (consul, scene) = scene_with(3, health, SHORT);
    for id in ["b1", "b2"] {
        consul.register(instance(&scene, id)).unwrap();
    }
    wait_for_backends(&scene, &["b1", "b2"]);
    scene.wait_until_healthy();
    let load = scene.load(200.0);
    scene.agent.process().freeze().unwrap();
    consul.register(instance(&scene, "b3")).unwrap();
    consul.deregister("b1").unwrap();
    thread::sleep(OVERDUE);
    // Whoever asks for the metrics is not answered, which is what an alert is made of.
    let silent = scene
        .client()
        .patience(Duration::from_secs(1))
        .get(address("10.77.0.1:9180"), "/metrics");
    assert!(silent.is_err());
    let before = load.now();
    let paused = load
        .record()
        .between(before - Duration::from_secs(5), before);
    assert!(paused.of("b1") > 0 && paused.of("b2") > 0, "{paused:?}");
    assert_eq!(paused.of("b3"), 0);

    scene.agent.process().signal(Signal::Continue).unwrap();
    wait_for_backends(&scene, &["b2", "b3"]);
    scene.wait_until_healthy();
    assert_unnoticed(load, &["b1", "b2", "b3"]);
}

/// The wall clock is set two days ahead and then two days back, while backends are held, which they
/// are for ten minutes.
#[test]
fn the_clock_is_set() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let (topology, backends) = hosts(3);
    let consul = Consul::start(topology.node(), topology.directory()).unwrap();
    let clock = topology.directory().join("clock");
    // In place of the old file, never half written.
    let set = |offset: &str| {
        let new = clock.with_extension("new");
        fs::write(&new, offset).unwrap();
        fs::rename(&new, &clock).unwrap();
    };
    set("+0");
    assert!(
        Path::new(LIBRARY).exists(),
        "Debian's faketime is missing; `cargo xtask setup` installs it"
    );
    let health = "health = { kind = \"tcp\", interval = \"500ms\", timeout = \"500ms\", fall = 2, slow_start = \"0s\" }";
    let agent = start(&topology, health, SHORT, |setup| {
        setup
            .variable("LD_PRELOAD", LIBRARY)
            .variable("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
            .variable("FAKETIME_NO_CACHE", "1")
            // Nobody sets the monotonic clock.
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    });
    let scene = Scene {
        agent,
        backends,
        topology,
    };
    for id in ["b1", "b2"] {
        consul.register_in_catalog(instance(&scene, id)).unwrap();
    }
    wait_for_backends(&scene, &["b1", "b2"]);
    scene.wait_until_healthy();
    let load = scene.load(200.0);
    for id in ["b1", "b2"] {
        consul.deregister_in_catalog(id).unwrap();
    }
    // One after the other, the first is believed and the last is not.
    scene.wait_for_problem("1 backends vanished from Consul at once");
    // A rule that ends by the calendar shows that the agent has the clock that is set.
    let rule = ["block", "add", "10.77.0.99", "--ttl", "1h"];
    scene.agent.command(&rule).unwrap();
    let rules = |scene: &Scene| {
        let list = reply(&scene.agent, &["block", "list"]);
        list["blocks"].as_array().unwrap().len()
    };
    assert_eq!(rules(&scene), 1);
    for (offset, days) in [("+2d", 2), ("-2d", -2), ("+0", 0)] {
        set(offset);
        let from = load.now();
        // Ticks, probes and questions by the new clock.
        thread::sleep(Duration::from_secs(6));
        let after = load.record().between(from, Duration::MAX);
        assert_eq!(after.failed(), 0, "{days} days: {:?}", after.failures);
        assert!(after.of("b2") > 0, "{days} days: {:?}", after.backends);
        assert_eq!(held(&scene), Some(1.0), "{days} days");
        assert_eq!(rules(&scene), 0, "{days} days");
        // Nobody else's news is missed.
        let problems = scene.problems();
        assert!(
            problems.iter().all(|text| !text.contains("silent")),
            "{days} days: {problems:?}"
        );
    }
    for id in ["b1", "b2", "b3"] {
        consul.register_in_catalog(instance(&scene, id)).unwrap();
    }
    scene.wait_until_healthy();
    wait_for_backends(&scene, &["b1", "b2", "b3"]);
    assert_unnoticed(load, &["b2", "b3"]);
}
