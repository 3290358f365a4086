//! A real Consul says which backends there are: it is followed at once, and outlived.

use std::{
    fs,
    time::{Duration, Instant},
};

use lb_tests::{
    agent::Setup,
    consul::{Consul, Registration},
    load::Load,
    process::wait_for,
    stats::{bounds, percentile},
};
use serde_json::Value;

use crate::scene::{Conversation, PATIENCE, Scene, VIP, address, config, hosts, reply, sample};

/// The name of its watch, as `status` and the metrics have it.
const WATCH: &str = "watch=\"health/echo\"";

/// Hosts with `count` backends, none of them registered, and the agent.
fn scene(count: usize, service: &str) -> (Consul, Scene) {
    scene_with(count, service, "")
}

/// Keys of a service from Consul, with these beside them. Nobody probes and nobody starts slowly,
/// unless they say so.
pub(crate) fn from_consul(service: &str) -> String {
    let health = match service.contains("health =") {
        true => "",
        false => "health = { kind = \"none\", slow_start = \"0s\" }\n",
    };
    format!("consul = {{ service = \"echo\" }}\n{health}{service}")
}

/// The same with further keys of `[consul]`.
pub(crate) fn scene_with(count: usize, service: &str, keys: &str) -> (Consul, Scene) {
    let (topology, backends) = hosts(count);
    let consul = Consul::start(topology.node(), topology.directory()).unwrap();
    let config = config(
        &from_consul(service),
        &format!("[consul]\naddress = \"http://127.0.0.1:8500\"\n{keys}\n"),
    );
    let agent = Setup::new(&topology).config(&config).start().unwrap();
    let scene = Scene {
        agent,
        backends,
        topology,
    };
    (consul, scene)
}

/// Backend `number` as a registration, named `b<number>` and on IPv4 only.
pub(crate) fn instance<'a>(scene: &Scene, id: &'a str) -> Registration<'a> {
    let number = id.trim_start_matches('b').parse().unwrap();
    Registration {
        service: "echo",
        id,
        address: scene.topology.backend_address(number),
        tags: &[],
        meta: &[],
        weights: (1, 1),
    }
}

/// The backend, as `backend list` shows it.
pub(crate) fn backend(scene: &Scene, id: &str) -> Value {
    let id = format!("lb-node/{id}");
    let list = reply(&scene.agent, &["backend", "list", "echo"]);
    let mut backends = list["backends"].as_array().unwrap().iter();
    let found = backends.find(|backend| backend["id"] == id.as_str());
    found.unwrap_or_else(|| panic!("no {id} in {list}")).clone()
}

/// Waits until so many more requests have been answered, none of them by `without`.
pub(crate) fn wait_for_answers(load: &Load, count: usize, without: &str) {
    let from = load.now();
    wait_for("answers", PATIENCE, || {
        let spread = load.record().between(from, Duration::MAX);
        Ok((spread.answered() >= count).then_some(()))
    })
    .unwrap();
    let spread = load.record().between(from, Duration::MAX);
    assert_eq!(spread.of(without), 0, "{:?}", spread.backends);
}

#[test]
fn registrations_are_in_the_kernel_in_under_a_second() {
    let (consul, scene) = scene(2, "");
    consul.register(instance(&scene, "b1")).unwrap();
    let client = scene.client().patience(Duration::from_millis(500));
    wait_for("b1", PATIENCE, || Ok(client.get(address(VIP), "/").ok())).unwrap();
    let load = scene.load(300.0);
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        // Measured from before the request to Consul: its own part is in it.
        let begun = load.now();
        consul.register(instance(&scene, "b2")).unwrap();
        let first = wait_for("b2 to answer", PATIENCE, || {
            let record = load.record();
            let mut samples = record.samples().iter().rev();
            let found = samples
                .by_ref()
                .take_while(|sample| sample.ended >= begun)
                .filter(|sample| sample.outcome.as_deref() == Ok("b2"))
                .map(|sample| sample.ended)
                .last();
            Ok(found)
        })
        .unwrap();
        came.push(first - begun);
        let begun = load.now();
        consul.deregister("b2").unwrap();
        let last = wait_for("half a second without b2", PATIENCE, || {
            let record = load.record();
            let mut samples = record.samples().iter().rev();
            let last = samples
                .find(|sample| sample.outcome.as_deref() == Ok("b2"))
                .map_or(begun, |sample| sample.began.max(begun));
            let quiet = record.until.saturating_sub(last) > Duration::from_millis(500);
            Ok(quiet.then_some(last))
        })
        .unwrap();
        went.push(last - begun);
    }
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    for (what, times) in [("registered", came), ("deregistered", went)] {
        let median = percentile(&times, 50.0).unwrap();
        let longest = times.iter().max();
        eprintln!("{what} in Consul and followed after: median {median:?}, longest {longest:?}");
        assert!(median < Duration::from_secs(1), "{what}: {times:?}");
    }
}

#[test]
fn what_consul_says_of_a_backend_counts() {
    let (consul, scene) = scene(
        3,
        "subsets = { v1 = { tag = \"v1\" }, v2 = { meta = { version = \"2\" } } }\n\
         split = { v1 = 80, v2 = 20 }",
    );
    let register = |id, tags, meta, passing| {
        let instance = Registration {
            tags,
            meta,
            weights: (passing, 1),
            ..instance(&scene, id)
        };
        consul.register(instance).unwrap();
    };
    register("b1", &["v1", "other"], &[], 1);
    register("b2", &["v1"], &[], 3);
    register("b3", &[], &[("version", "2")], 1);
    scene.wait_until_served(&[VIP]);
    scene.wait_until_healthy();
    let shares_are = |expected: [f64; 3]| {
        let spread = scene.client().spread(address(VIP), 2000, 4);
        assert_eq!(spread.failed(), 0, "{:?}", spread.failures);
        for (id, share) in ["b1", "b2", "b3"].into_iter().zip(expected) {
            let (low, high) = bounds(2000, share, 5.0);
            let count = spread.of(id);
            assert!((low..=high).contains(&count), "{id}: {count} for {share}");
        }
    };
    let follows = |id: &str, key: &str, value: Value| {
        wait_for(&format!("{key} of {id} to be {value}"), PATIENCE, || {
            Ok((backend(&scene, id)[key] == value).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", backend(&scene, id)));
    };
    // A subset's share is divided by weight.
    shares_are([0.2, 0.6, 0.2]);
    register("b2", &["v1"], &[], 1);
    follows("b2", "registered_weight", 1.into());
    shares_are([0.4, 0.4, 0.2]);
    // Another tag, another subset.
    register("b1", &[], &[("version", "2")], 1);
    follows("b1", "subset", "v2".into());
    shares_are([0.1, 0.8, 0.1]);

    // Maintenance lets connections end by themselves.
    let load = scene.load(200.0);
    let mut open = Conversation::with("b2", scene.topology.client(), address(VIP));
    consul.set_maintenance("b2", true).unwrap();
    follows("b2", "disabled_reason", "maintenance".into());
    follows("b2", "weight", 0.into());
    wait_for_answers(&load, 100, "b2");
    assert_eq!(open.ask(), "b2");
    consul.set_maintenance("b2", false).unwrap();
    follows("b2", "health", "healthy".into());
    assert_eq!(open.ask(), "b2");

    // A check that fails takes it out, a warning changes its weight at most.
    for (status, health, weight) in [
        ("critical", "unhealthy", 0),
        ("warning", "warning", 8_000_000),
        ("passing", "healthy", 8_000_000),
    ] {
        consul.set_check("b2", status).unwrap();
        follows("b2", "health", health.into());
        follows("b2", "weight", weight.into());
        if weight == 0 {
            wait_for_answers(&load, 100, "b2");
        }
    }
    assert_eq!(open.ask(), "b2");
    shares_are([0.1, 0.8, 0.1]);
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
}

#[test]
fn consul_may_go_and_come_back() {
    let (mut consul, scene) = scene(2, "");
    for id in ["b1", "b2"] {
        consul.register(instance(&scene, id)).unwrap();
    }
    scene.wait_until_served(&[VIP]);
    scene.wait_until_healthy();
    let load = scene.load(200.0);
    let watched = |metric: &str| sample(&scene.scrape(), metric, &[WATCH]).unwrap();
    assert_eq!(watched("lb_consul_up"), 1.0);

    consul.stop().unwrap();
    scene.wait_for_problem("Consul watch health/echo: ");
    scene.wait_for_problem("the last good backends are used");
    let age = watched("lb_consul_sync_age_seconds");
    wait_for("the age to grow by two seconds", PATIENCE, || {
        Ok((watched("lb_consul_sync_age_seconds") >= age + 2.0).then_some(()))
    })
    .unwrap();
    assert_eq!(watched("lb_consul_up"), 0.0);
    assert!(watched("lb_consul_errors_total") >= 1.0);
    assert_eq!(backend(&scene, "b1")["weight"], 1);

    let begun = Instant::now();
    consul.restart().unwrap();
    scene.wait_until_healthy();
    eprintln!("healthy {:?} after Consul's restart", begun.elapsed());
    assert_eq!(watched("lb_consul_up"), 1.0);
    // Every watch was answered by the new one.
    assert!(watched("lb_consul_sync_age_seconds") < begun.elapsed().as_secs_f64());

    // Silence is no news: connections that hang are not believed to be an answer.
    consul.pause().unwrap();
    let paused = load.now();
    wait_for("three seconds of silence", PATIENCE, || {
        Ok((load.now() > paused + Duration::from_secs(3)).then_some(()))
    })
    .unwrap();
    assert_eq!(backend(&scene, "b2")["weight"], 1);
    consul.resume().unwrap();
    scene.wait_until_healthy();

    // A server restored to nothing answers every question, with an empty list.
    consul.restart_empty().unwrap();
    scene.wait_for_problem("2 backends vanished from Consul at once");
    let listed = consul.get("/v1/health/service/echo").unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(0));
    let held = sample(&scene.scrape(), "lb_service_held_backends", &[]);
    assert_eq!(held, Some(2.0));
    for id in ["b1", "b2"] {
        let backend = backend(&scene, id);
        assert!(
            backend["held_until_unix_ms"].as_i64().is_some(),
            "{backend}"
        );
        assert_eq!(backend["weight"], 1);
    }
    wait_for_answers(&load, 200, "nobody");
    for id in ["b1", "b2"] {
        consul.register(instance(&scene, id)).unwrap();
    }
    scene.wait_until_healthy();
    let held = sample(&scene.scrape(), "lb_service_held_backends", &[]);
    assert_eq!(held, Some(0.0));

    let all = load.stop().all();
    eprintln!("{} requests through all of it", all.answered());
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    assert!(all.of("b1") > 0 && all.of("b2") > 0);
}

#[test]
fn the_agent_starts_without_consul_and_without_its_own_memory() {
    let (mut consul, mut scene) = scene(2, "");
    for id in ["b1", "b2"] {
        consul.register(instance(&scene, id)).unwrap();
    }
    scene.wait_until_served(&[VIP]);
    let state = scene.topology.directory().join("state/state.json");
    scene.wait_until_saved(&["lb-node/b1", "lb-node/b2"]);
    let load = scene.load(200.0);

    // From what it knew last.
    consul.stop().unwrap();
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    scene.wait_for_problem("Consul watch health/echo: ");
    scene.wait_for_problem("no answer since the agent started");
    for id in ["b1", "b2"] {
        assert_eq!(backend(&scene, id)["weight"], 1);
    }
    wait_for_answers(&load, 100, "nobody");
    assert!(scene.client().spread(address(VIP), 40, 4).backends.len() == 2);

    // Programs and maps gone as well, it builds everything from the file.
    scene.agent.stop().unwrap();
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    let pins = scene.agent.pins().display().to_string();
    scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    let client = scene.client().patience(Duration::from_millis(500));
    assert!(client.get(address(VIP), "/").is_err());
    scene.agent.restart().unwrap();
    scene.wait_until_served(&[VIP]);

    // From nothing: the kernel has what it needs, until Consul says what there is.
    let load = scene.load(200.0);
    scene.agent.command(&["block", "add", "10.77.0.3"]).unwrap();
    scene.agent.kill9().unwrap();
    fs::write(&state, "{\"version\": 1, \"splits\": {").unwrap();
    scene.agent.restart().unwrap();
    scene.wait_for_problem("state.json");
    scene.wait_for_problem("service echo: its backends are not known yet");
    let directory = state.parent().unwrap();
    let aside = fs::read_dir(directory).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with("state.json.corrupt-")
    });
    assert!(aside, "the file was not set aside");
    wait_for_answers(&load, 100, "nobody");
    // Whom it blocks, it goes on blocking.
    let list = reply(&scene.agent, &["block", "list"]);
    let rule = &list["blocks"][0]["rule"];
    assert_eq!(rule["prefix"], "10.77.0.3/32", "{list}");
    assert_eq!(rule["expires_unix_ms"], Value::Null);
    let blocked = client.from("10.77.0.3".parse().unwrap());
    assert!(blocked.get(address(VIP), "/").is_err());
    consul.restart().unwrap();
    wait_for("both backends to be known again", PATIENCE, || {
        let problems = scene.problems();
        let known = matches!(problems.as_slice(), [only] if only.contains("state.json"));
        Ok(known.then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", scene.problems()));
    wait_for_answers(&load, 100, "nobody");
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    assert!(all.of("b1") > 0 && all.of("b2") > 0);
}
