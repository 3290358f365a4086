//! Health: every kind of probe, what traffic itself tells, and how backends come back.

use std::time::Duration;

use lb_tests::{
    agent::Setup,
    authority::{self, CERTIFICATE},
    backend::{GRPC_PORT, HTTPS_PORT},
    process::wait_for,
    topology::Topology,
};
use serde_json::Value;

use crate::scene::{METRICS, PATIENCE, Scene, VIP, VIP6, address, reply, sample};

/// The IPv4 backend of that number of a service.
fn backend(scene: &Scene, service: &str, number: u8) -> Value {
    let address = scene.topology.backend_address(number).to_string();
    let list = reply(&scene.agent, &["backend", "list", service]);
    let backends = list["backends"].as_array().unwrap();
    let found = backends.iter().find(|each| each["address"] == *address);
    found.unwrap().clone()
}

/// Waits until a key of a backend has a value.
fn follows(scene: &Scene, service: &str, number: u8, key: &str, value: &str) {
    let what = format!("{key} of backend {number} of {service} to be {value}");
    wait_for(&what, PATIENCE, || {
        Ok((backend(scene, service, number)[key] == value).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", backend(scene, service, number)));
}

/// From, to and source of each change of the IPv4 backend of that number.
fn history(scene: &Scene, number: u8) -> Vec<String> {
    let address = scene.topology.backend_address(number).to_string();
    let told = reply(&scene.agent, &["backend", "history", &address]);
    let changes = told["changes"].as_array().unwrap().iter();
    let word = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
    changes
        .map(|change| {
            let [from, to, source] = ["from", "to", "source"].map(|key| word(change, key));
            format!("{from}>{to} {source}")
        })
        .collect()
}

/// One service for each kind of probe on the same two backends: each sees one of them fail, for
/// its own reason, and come back.
#[test]
fn probes_of_every_kind() {
    let topology = Topology::new(2).unwrap();
    authority::found(topology.directory()).unwrap();
    let backends: Vec<_> = (1..=2)
        .map(|number| topology.start_echo(number).unwrap())
        .collect();
    let ca = topology.directory().join(CERTIFICATE);
    let quick = "interval = \"200ms\", rise = 2, fall = 2, slow_start = \"0s\"";
    let kinds = [
        ("tcp", "kind = \"tcp\"".to_owned()),
        (
            "http",
            "kind = \"http\", path = \"/health\", status = [200, 204]".to_owned(),
        ),
        (
            "body",
            "kind = \"http\", path = \"/health\", status = \"200-599\", body = \"ok\"".to_owned(),
        ),
        (
            "https",
            format!(
                "kind = \"http\", path = \"/health\", port = {HTTPS_PORT}, \
                 tls = {{ ca_cert = {ca:?} }}"
            ),
        ),
        (
            "untrusted",
            format!("kind = \"http\", path = \"/\", port = {HTTPS_PORT}, tls = true"),
        ),
        ("grpc", format!("kind = \"grpc\", port = {GRPC_PORT}")),
    ];
    let listed: Vec<String> = (1..=2)
        .map(|number| format!("{{ address = \"{}\" }}", topology.backend_address(number)))
        .collect();
    let services: String = (10..)
        .zip(&kinds)
        .map(|(host, (name, kind))| {
            format!(
                "[[service]]\nname = \"{name}\"\nvip = [\"198.51.100.{host}:80\"]\n\
                 backends = [{}]\nhealth = {{ {kind}, {quick} }}\n\n",
                listed.join(", ")
            )
        })
        .collect();
    let config = format!("{services}[metrics]\nlisten = \"{METRICS}\"\n");
    let agent = Setup::new(&topology).config(&config).start().unwrap();
    let scene = Scene {
        agent,
        backends,
        topology,
    };
    let rows = [
        ("http", "HTTP status 503"),
        ("body", "the answer's body does not contain \"ok\""),
        ("https", "HTTP status 503"),
        ("grpc", "gRPC health is NOT_SERVING"),
    ];
    for (service, _) in rows.iter().chain(&[("tcp", "")]) {
        for number in [1, 2] {
            follows(&scene, service, number, "observed", "healthy");
        }
    }
    // The system does not know the authority: no backend is trusted.
    follows(&scene, "untrusted", 1, "observed", "unhealthy");
    let reason = backend(&scene, "untrusted", 1)["observed_reason"].clone();
    assert!(reason.as_str().unwrap().starts_with("TLS: "), "{reason}");

    scene.backends[1].set_failing(true).unwrap();
    for (service, reason) in rows {
        follows(&scene, service, 2, "observed", "unhealthy");
        let shown = backend(&scene, service, 2);
        assert_eq!(shown["observed_reason"], reason, "{service}");
        assert_eq!(shown["weight"], 0, "{service}");
        assert_eq!(shown["enabled"], true, "nobody has said otherwise");
        assert_eq!(backend(&scene, service, 1)["observed"], "healthy");
    }
    assert_eq!(backend(&scene, "tcp", 2)["observed"], "healthy");
    scene.backends[1].set_failing(false).unwrap();
    for (service, _) in rows {
        follows(&scene, service, 2, "observed", "healthy");
    }
    let told = reply(&scene.agent, &["backend", "history", "grpc"]);
    let changes = told["changes"].as_array().unwrap();
    let back = changes.last().unwrap();
    assert_eq!(back["reason"], "2 probes in a row succeeded");
    assert_eq!(
        (&back["from"], &back["to"]),
        (&"unhealthy".into(), &"healthy".into())
    );
    // Each change stands in the log once, and with its reason.
    let told = reply(&scene.agent, &["backend", "history"]);
    let changes = told["changes"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["reason"] != ""));
    let log = scene.agent.process().output();
    let logged: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("a backend has changed"))
        .collect();
    assert_eq!(logged.len(), changes.len(), "{log}");
    for change in changes {
        let reason = change["reason"].as_str().unwrap();
        let reason = reason.split('"').next().unwrap();
        assert!(logged.iter().any(|line| line.contains(reason)), "{change}");
    }
}

/// No probes; only what traffic tells.
const BY_TRAFFIC: &str = "health = { kind = \"none\", slow_start = \"0s\", \
                          passive = { eject = \"8s\", eject_max = \"60s\" } }";

/// Backend 2 fails in some way under load: it is ejected, nobody notices it any more, and when it
/// has mended it is back after its time.
fn ejected_and_back(
    reason: &str,
    counter: &str,
    spoil: impl Fn(&mut Scene),
    mend: impl Fn(&mut Scene),
) {
    let mut scene = Scene::listed(&["v1", "v1"], BY_TRAFFIC, "");
    assert_eq!(history(&scene, 2), Vec::<String>::new());
    let load = scene.load(60.0);
    spoil(&mut scene);
    let spoilt = load.now();
    follows(&scene, "echo", 2, "health", "ejected");
    let ejected = load.now();
    let shown = backend(&scene, "echo", 2);
    assert_eq!(shown["weight"], 0, "{shown}");
    assert_eq!(shown["observed"], "unknown", "no probe has spoken: {shown}");
    assert_eq!(shown["enabled"], true, "{shown}");
    let why = shown["ejected_reason"].as_str().unwrap();
    assert!(why.contains("connections") && why.contains(reason), "{why}");
    mend(&mut scene);
    follows(&scene, "echo", 2, "health", "healthy");
    wait_for("answers of b2", PATIENCE, || {
        let spread = load.record().between(ejected, Duration::MAX);
        Ok((spread.of("b2") > 20).then_some(()))
    })
    .unwrap();
    let record = load.stop();
    // Those that were under way when it was ejected had begun before.
    let after = record.between(ejected, Duration::MAX);
    assert_eq!(after.failed(), 0, "{:?}", after.failures);
    let failed = record.between(spoilt, ejected).failed();
    eprintln!(
        "{reason}: ejected {:?} after it began, {failed} requests failed meanwhile",
        ejected - spoilt
    );
    assert_ne!(failed, 0, "it was spoilt for somebody");
    let expected = ["in>ejected flows", "ejected>in flows"];
    assert_eq!(history(&scene, 2), expected);
    assert_eq!(history(&scene, 1), Vec::<String>::new());
    let scrape = scene.scrape();
    let b2 = format!("backend=\"{}\"", scene.topology.backend_address(2));
    let counted = |labels: &[&str]| sample(&scrape, "lb_backend_failed_connections_total", labels);
    let reason = format!("reason=\"{counter}\"");
    assert!(counted(&[&b2, &reason]).unwrap() >= 5.0, "{scrape}");
    let ejections = sample(&scrape, "lb_service_ejections_total", &["service=\"echo\""]);
    assert_eq!(ejections, Some(1.0));
    let log = scene.agent.process().output();
    let told = log
        .lines()
        .filter(|line| line.contains("a backend has changed"));
    assert_eq!(told.count(), 2, "each change once: {log}");
}

#[test]
fn a_backend_that_resets_is_ejected_and_returns() {
    ejected_and_back(
        "refused",
        "refused",
        |scene| scene.backends[1].process().kill().unwrap(),
        |scene| scene.backends[1].restart().unwrap(),
    );
}

#[test]
fn a_backend_that_ignores_syns_is_ejected_and_returns() {
    let route = |scene: &Scene, what: &str| {
        let node = "10.77.2.1/32";
        let host = &scene.topology.backends()[1];
        host.tool("ip", &["route", what, "blackhole", node])
            .unwrap();
    };
    ejected_and_back(
        "not answered",
        "unanswered",
        |scene| route(scene, "add"),
        |scene| route(scene, "del"),
    );
}

/// The last one of a service stays in, and so does one of two when the other is out already.
#[test]
fn never_more_than_half() {
    let scene = Scene::listed(&["v1", "v1", "v1"], BY_TRAFFIC, "");
    let load = scene.load(60.0);
    for dead in [1, 2] {
        scene.backends[dead].process().kill().unwrap();
    }
    wait_for("one of them to be ejected", PATIENCE, || {
        let out = [2, 3].map(|number| backend(&scene, "echo", number)["health"] == "ejected");
        Ok((out != [false, false]).then_some(()))
    })
    .unwrap();
    wait_for("the other one to be spared", PATIENCE, || {
        let spared = [2, 3].map(|number| history(&scene, number) == ["in>in flows"]);
        Ok((spared != [false, false]).then_some(()))
    })
    .unwrap();
    let out = [1, 2, 3].map(|number| backend(&scene, "echo", number)["health"] == "ejected");
    assert_eq!(out.iter().filter(|out| **out).count(), 1, "{out:?}");
    drop(load.stop());
}

/// Under half of a service healthy: those that answer are used as well, and everybody is told; who
/// does not answer is left out, whatever the number.
#[test]
fn panic_below_half() {
    let lines = "health = { kind = \"http\", path = \"/health\", interval = \"200ms\", fall = 2, \
                 passive = false, slow_start = \"0s\" }";
    let mut scene = Scene::listed(&["v1", "v1", "v1"], lines, "");
    for number in 1..=3 {
        follows(&scene, "echo", number, "observed", "healthy");
    }
    let panic = |scene: &Scene| {
        let found = sample(&scene.scrape(), "lb_service_panic", &["service=\"echo\""]);
        found.unwrap()
    };
    let takes =
        |scene: &Scene| [1, 2, 3].map(|number| backend(scene, "echo", number)["weight"] != 0);
    scene.backends[1].set_failing(true).unwrap();
    follows(&scene, "echo", 2, "observed", "unhealthy");
    assert_eq!(takes(&scene), [true, false, true]);
    assert_eq!(panic(&scene), 0.0);
    scene.backends[2].set_failing(true).unwrap();
    scene.wait_for_problem("too few backends are healthy");
    // The families panic apart, each when its own probes have found out.
    wait_for("all that answer to be used", PATIENCE, || {
        Ok((takes(&scene) == [true; 3] && panic(&scene) == 1.0).then_some(()))
    })
    .unwrap();

    let logged = |scene: &Scene, what: &str| {
        let log = scene.agent.process().output();
        log.lines().filter(|line| line.contains(what)).count()
    };
    let (begins, ends) = ("too few backends are healthy, so", "are left out again");
    assert_eq!([begins, ends].map(|what| logged(&scene, what)), [1, 0]);

    let load = scene.load(100.0);
    for number in [1, 2] {
        scene.backends[number].process().kill().unwrap();
    }
    wait_for("the dead to be left out", PATIENCE, || {
        let left_out = takes(&scene) == [true, false, false];
        Ok((left_out && panic(&scene) == 0.0).then_some(()))
    })
    .unwrap();
    let out = load.now();
    wait_for("a second without them", PATIENCE, || {
        Ok((load.now() > out + Duration::from_secs(1)).then_some(()))
    })
    .unwrap();
    let after = load.stop().between(out, Duration::MAX);
    assert_eq!((after.failed(), after.answered()), (0, after.of("b1")));
    assert_eq!([begins, ends].map(|what| logged(&scene, what)), [1, 1]);

    // With nobody left all are used: better a try than a certain refusal.
    scene.backends[0].set_failing(true).unwrap();
    wait_for("all to be used", PATIENCE, || {
        Ok((takes(&scene) == [true; 3]).then_some(()))
    })
    .unwrap();
    for number in [1, 2] {
        scene.backends[number].restart().unwrap();
    }
    scene.backends[0].set_failing(false).unwrap();
    scene.wait_until_healthy();
}

/// A backend that comes back takes a tenth of its share at first, and all of it in the end; at
/// the agent's start nobody starts slowly.
#[test]
fn slow_start() {
    let lines = "health = { kind = \"tcp\", interval = \"200ms\", slow_start = \"5s\" }";
    let mut scene = Scene::listed(&["v1", "v1"], lines, "");
    let percent = |scene: &Scene| backend(scene, "echo", 2)["slow_start_percent"].clone();
    for number in [1, 2] {
        follows(&scene, "echo", number, "observed", "healthy");
    }
    assert_eq!(percent(&scene), Value::Null, "not at boot");
    scene.backends[1].process().kill().unwrap();
    follows(&scene, "echo", 2, "observed", "unhealthy");
    scene.backends[1].restart().unwrap();
    follows(&scene, "echo", 2, "observed", "healthy");
    let mut seen = Vec::new();
    wait_for("it to have its full share", PATIENCE, || {
        let now = percent(&scene);
        let (own, other) = (backend(&scene, "echo", 2), backend(&scene, "echo", 1));
        if let Some(now) = now.as_u64() {
            seen.push(now);
        }
        let same = own["weight"] == other["weight"] && own["slow_start_percent"].is_null();
        Ok(same.then_some(()))
    })
    .unwrap();
    seen.dedup();
    assert!(
        seen.is_sorted() && seen.len() >= 3 && seen[0] <= 30,
        "{seen:?}"
    );
    for vip in [VIP, VIP6] {
        let spread = scene.client().spread(address(vip), 200, 4);
        assert_eq!(spread.failed(), 0);
        assert!(spread.of("b2") > 50, "{spread:?}");
    }
    // The next agent begins with all of them at once.
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    follows(&scene, "echo", 2, "observed", "healthy");
    assert_eq!(percent(&scene), Value::Null);
}
