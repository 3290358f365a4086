//! Configuration entries and keys of a real Consul shape a service.

use std::time::{Duration, Instant};

use lb_tests::{consul::Registration, process::wait_for, stats::bounds};
use serde_json::{Value, json};

use crate::{
    consul::{instance, scene_with},
    scene::{PATIENCE, Scene, VIP, address, reply},
};

/// How soon a change in Consul must be followed.
const SOON: Duration = Duration::from_secs(1);

/// The service, as `service show` has it.
pub(crate) fn service(scene: &Scene, name: &str) -> Value {
    reply(&scene.agent, &["service", "show", name])["service"].clone()
}

/// Shares and who set them, as in `v1=90 v2=10 (cli)`; empty: none.
fn split(scene: &Scene) -> String {
    let split = service(scene, "echo")["split"].clone();
    let Some(shares) = split["shares"].as_object() else {
        return String::new();
    };
    let mut words: Vec<String> = shares
        .iter()
        .map(|(subset, share)| format!("{subset}={share}"))
        .collect();
    words.sort();
    format!(
        "{} ({})",
        words.join(" "),
        split["source"].as_str().unwrap()
    )
}

/// Waits until the split is this one; how long it took.
fn until_split(scene: &Scene, expected: &str) -> Duration {
    let begun = Instant::now();
    wait_for(&format!("the split {expected:?}"), PATIENCE, || {
        Ok((split(scene) == expected).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}; it is {:?}", split(scene)));
    begun.elapsed()
}

/// Waits until these backends answer on the VIP, and no others.
pub(crate) fn until_answer(scene: &Scene, expected: &[&str]) -> Duration {
    let client = scene.client().patience(Duration::from_millis(500));
    let begun = Instant::now();
    wait_for(&format!("answers of {expected:?} only"), PATIENCE, || {
        let spread = client.spread(address(VIP), 40, 4);
        let names: Vec<&str> = spread.backends.keys().map(String::as_str).collect();
        Ok((spread.failed() == 0 && names == expected).then_some(()))
    })
    .unwrap();
    begun.elapsed()
}

#[test]
fn entries_shape_a_service() {
    let (consul, scene) = scene_with(4, "", "");
    let register = |service, id, version| {
        let instance = Registration {
            service,
            meta: &[("version", version)],
            ..instance(&scene, id)
        };
        consul.register(instance).unwrap();
    };
    register("echo", "b1", "1");
    register("echo", "b2", "2");
    register("echo-spare", "b3", "1");
    register("echo-other", "b4", "1");
    until_answer(&scene, &["b1", "b2"]);
    let load = scene.load(200.0);

    // Consul itself wants this first.
    let defaults = |name| json!({"Kind": "service-defaults", "Name": name, "Protocol": "http"});
    for name in ["echo", "echo-spare", "echo-other"] {
        consul.put_entry(&defaults(name)).unwrap();
    }
    let resolver = json!({
        "Kind": "service-resolver",
        "Name": "echo",
        "DefaultSubset": "v1",
        "ConnectTimeout": "3s",
        "Subsets": {
            "v1": {"Filter": "Service.Meta.version == 1"},
            "v2": {"Filter": "\"v9\" not in Service.Tags and Service.Meta.version == \"2\""},
        },
        "Failover": {"*": {"Service": "echo-spare"}},
    });
    let router = json!({"Kind": "service-router", "Name": "echo", "Routes": [
        {"Match": {"HTTP": {"PathPrefix": "/old", "Methods": ["GET"]}},
         "Destination": {"ServiceSubset": "v1", "RequestTimeout": "2s", "NumRetries": 1}}]});
    consul.put_entry(&resolver).unwrap();
    consul.put_entry(&router).unwrap();
    until_answer(&scene, &["b1"]);
    assert_eq!(split(&scene), "v1=1 (service-resolver)");
    let words = [
        "speaks http",
        "gives connections 3s",
        "GET /old* to subset v1",
    ];
    wait_for("what the entries make of it", PATIENCE, || {
        let shown = scene.agent.command(&["service", "show", "echo"])?;
        Ok(words
            .iter()
            .all(|words| shown.contains(words))
            .then_some(()))
    })
    .unwrap();

    // Shares: who set them, how soon they are followed, and what they come to.
    let splitter = |v1: f64, v2: f64| {
        json!({"Kind": "service-splitter", "Name": "echo", "Splits": [
            {"Weight": v1, "ServiceSubset": "v1"}, {"Weight": v2, "ServiceSubset": "v2"}]})
    };
    consul.put_entry(&splitter(50.0, 50.0)).unwrap();
    until_split(&scene, "v1=5000 v2=5000 (service-splitter)");
    let begun = Instant::now();
    consul.put_entry(&splitter(90.0, 10.0)).unwrap();
    until_split(&scene, "v1=9000 v2=1000 (service-splitter)");
    let took = begun.elapsed();
    eprintln!("a splitter is followed {took:?} after the write");
    assert!(took < SOON, "{took:?}");
    let spread = scene.client().spread(address(VIP), 2000, 4);
    let (low, high) = bounds(2000, 0.1, 5.0);
    assert!(
        (low..=high).contains(&spread.of("b2")),
        "{:?}",
        spread.backends
    );
    consul.put_kv("lb/split/echo", "v1=1 v2=3").unwrap();
    until_split(&scene, "v1=1 v2=3 (consul-kv)");
    scene
        .agent
        .command(&["split", "set", "echo", "v2=1"])
        .unwrap();
    assert_eq!(split(&scene), "v2=1 (cli)");
    until_answer(&scene, &["b2"]);
    scene.agent.command(&["split", "reset", "echo"]).unwrap();
    assert_eq!(split(&scene), "v1=1 v2=3 (consul-kv)");
    consul.put_kv("lb/split/echo", "v1=1 v9=3").unwrap();
    until_split(&scene, "v1=9000 v2=1000 (service-splitter)");
    scene.wait_for_problem(
        "consul-kv (key lb/split/echo) is not in force, for there is no subset v9",
    );
    consul.delete_kv("lb/split/echo").unwrap();
    scene.wait_until_healthy();
    consul.delete_entry("service-splitter", "echo").unwrap();
    until_split(&scene, "v1=1 (service-resolver)");

    // A shift begins on that, too, and goes back to it.
    let shift = ["split", "shift", "echo", "v2", "--to", "50", "--step", "50"];
    scene.agent.command(&shift).unwrap();
    assert_eq!(split(&scene), "v1=50 v2=50 (cli)");
    until_answer(&scene, &["b1", "b2"]);
    scene.agent.command(&["split", "rollback", "echo"]).unwrap();
    assert_eq!(split(&scene), "v1=1 (service-resolver)");
    until_answer(&scene, &["b1"]);

    // The last backend of a subset goes down: another service takes over, and gives back.
    consul.set_check("b1", "critical").unwrap();
    until_answer(&scene, &["b3"]);
    let notes = service(&scene, "echo")["notes"].to_string();
    assert!(notes.contains("echo-spare takes over"), "{notes}");
    consul.set_check("b1", "passing").unwrap();
    until_answer(&scene, &["b1"]);

    // Another service altogether.
    consul.delete_entry("service-router", "echo").unwrap();
    let redirect = json!({"Kind": "service-resolver", "Name": "echo",
        "Redirect": {"Service": "echo-other"}});
    consul.put_entry(&redirect).unwrap();
    until_answer(&scene, &["b4"]);
    consul.delete_entry("service-resolver", "echo").unwrap();
    until_answer(&scene, &["b1", "b2"]);

    scene.wait_until_healthy();
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
}

/// A resolver's failover takes over from whom a person drains, so that nobody has to insist; when it
/// cannot, the last backend is the last again.
#[test]
fn the_last_backend_with_a_failover_is_drained_without_force() {
    let (consul, scene) = scene_with(2, "", "");
    for (service, id) in [("echo", "b1"), ("echo-spare", "b2")] {
        let instance = instance(&scene, id);
        consul
            .register(Registration {
                service,
                ..instance
            })
            .unwrap();
    }
    until_answer(&scene, &["b1"]);
    let drain = || scene.agent.cli(&["drain", "echo", "lb-node/b1"]).unwrap();
    let is_refused = |why: &str| {
        let output = drain();
        assert_eq!(output.code, 1, "{why}: {output:?}");
        assert!(output.stderr.contains("is the last backend"), "{output:?}");
    };
    is_refused("nobody takes over yet");

    let resolver = json!({"Kind": "service-resolver", "Name": "echo",
        "Failover": {"*": {"Service": "echo-spare"}}});
    consul.put_entry(&resolver).unwrap();
    let spare_is_known = || {
        let status = reply(&scene.agent, &["status"]);
        let mut watches = status["watches"].as_array().unwrap().iter();
        Ok(watches
            .any(|watch| watch["name"] == "health/echo-spare" && watch["index"] != 0)
            .then_some(()))
    };
    wait_for("the one who takes over", PATIENCE, spare_is_known).unwrap();

    let load = scene.load(200.0);
    let output = drain();
    assert_eq!(output.code, 0, "{output:?}");
    until_answer(&scene, &["b2"]);
    let shown = service(&scene, "echo")["notes"].to_string();
    assert!(shown.contains("echo-spare takes over"), "{shown}");
    scene
        .agent
        .command(&["undrain", "echo", "lb-node/b1"])
        .unwrap();
    until_answer(&scene, &["b1"]);
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);

    consul.set_check("b2", "critical").unwrap();
    wait_for("the spare's end", PATIENCE, || {
        Ok((drain().code == 1).then_some(()).or_else(|| {
            // It was not seen yet: back to where it was.
            let _ = scene.agent.command(&["undrain", "echo", "lb-node/b1"]);
            None
        }))
    })
    .unwrap();
    is_refused("who would take over is ill");
    until_answer(&scene, &["b1"]);
}

#[test]
fn what_an_emptied_server_forgets_of_entries_stays_in_force() {
    let (mut consul, scene) = scene_with(2, "", "");
    for (id, version) in [("b1", "1"), ("b2", "2")] {
        let instance = Registration {
            meta: &[("version", version)],
            ..instance(&scene, id)
        };
        consul.register(instance).unwrap();
    }
    // Who knows only b1 answers as the entry has it before the entry is read.
    until_answer(&scene, &["b1", "b2"]);
    let resolver = json!({
        "Kind": "service-resolver",
        "Name": "echo",
        "DefaultSubset": "v1",
        "Subsets": {"v1": {"Filter": "Service.Meta.version == 1"}},
    });
    consul.put_entry(&resolver).unwrap();
    until_answer(&scene, &["b1"]);
    let load = scene.load(200.0);
    consul.restart_empty().unwrap();
    scene.wait_for_problem("Consul lists 1 service-resolver entries no longer");
    until_answer(&scene, &["b1"]);
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    assert_eq!(all.of("b2"), 0, "a canary took all the traffic");
}

#[test]
fn what_is_written_for_the_fleet_is_followed_in_under_a_second() {
    let (consul, mut scene) = scene_with(
        2,
        "subsets = { v1 = { meta = { version = \"1\" } }, v2 = { meta = { version = \"2\" } } }",
        "",
    );
    for (id, version) in [("b1", "1"), ("b2", "2")] {
        let instance = Registration {
            meta: &[("version", version)],
            ..instance(&scene, id)
        };
        consul.register(instance).unwrap();
    }
    until_answer(&scene, &["b1", "b2"]);
    let bad = scene.topology.client_addresses()[0];
    let client = scene
        .client()
        .from(bad)
        .patience(Duration::from_millis(500));
    let prefix = format!("{bad}/32");

    // By this node's command line: when it answers, it is so here, and Consul has it.
    let add = ["block", "add", "--fleet", "--reason", "scan", &prefix];
    let added = reply(&scene.agent, &add);
    assert_eq!(added["rules"][0]["origin"], "fleet");
    assert_eq!(added["notes"], json!([]));
    assert!(client.get(address(VIP), "/").is_err());
    let key = format!("/v1/kv/lb/block/{prefix}?raw");
    let value = consul.get(&key).unwrap();
    assert_eq!(value["reason"], "scan");
    let listed = reply(&scene.agent, &["block", "list"]);
    assert_eq!(listed["blocks"][0]["rule"]["origin"], "fleet");
    let output = scene.agent.cli(&["block", "del", &prefix]).unwrap();
    assert!(
        output.code == 1 && output.stderr.contains("block del --fleet"),
        "{output:?}"
    );

    // Over a restart with Consul away.
    consul.stop().unwrap();
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    assert!(client.get(address(VIP), "/").is_err());
    let output = scene
        .agent
        .cli(&["block", "del", "--fleet", &prefix])
        .unwrap();
    assert!(
        output.code == 1 && output.stderr.contains("nothing was written"),
        "{output:?}"
    );
    let mut consul = consul;
    consul.restart().unwrap();
    scene.wait_until_healthy();
    scene
        .agent
        .command(&["block", "del", "--fleet", &prefix])
        .unwrap();
    assert!(client.get(address(VIP), "/").is_ok());
    let output = scene
        .agent
        .cli(&["block", "del", "--fleet", &prefix])
        .unwrap();
    assert!(
        output.code == 1 && output.stderr.contains("there is no key"),
        "{output:?}"
    );

    // By others, as another node's agent would write it.
    let mut times = Vec::new();
    for _ in 0..5 {
        let key = format!("lb/block/{bad}");
        let rules = || reply(&scene.agent, &["status"])["block_rules"].clone();
        let begun = Instant::now();
        consul.put_kv(&key, "").unwrap();
        wait_for("the rule to be followed", PATIENCE, || {
            Ok((rules() == 1).then_some(()))
        })
        .unwrap();
        times.push(begun.elapsed());
        assert!(client.get(address(VIP), "/").is_err());
        let begun = Instant::now();
        consul.delete_kv(&key).unwrap();
        wait_for("the rule to be gone", PATIENCE, || {
            Ok((rules() == 0).then_some(()))
        })
        .unwrap();
        times.push(begun.elapsed());
        assert!(client.get(address(VIP), "/").is_ok());
    }
    times.sort();
    eprintln!(
        "keys of others are followed after: median {:?}, longest {:?}",
        times[5], times[9]
    );
    assert!(times[5] < SOON, "{times:?}");
    consul.put_kv("lb/block/example.com", "").unwrap();
    scene.wait_for_problem("lb/block/example.com in Consul is not followed");
    consul.delete_kv("lb/block/example.com").unwrap();

    // Splits.
    let set = ["split", "set", "--fleet", "echo", "v1=0", "v2=1"];
    assert_eq!(reply(&scene.agent, &set)["split"]["source"], "consul-kv");
    until_answer(&scene, &["b2"]);
    let output = scene
        .agent
        .cli(&["split", "set", "--fleet", "echo", "v9=1"])
        .unwrap();
    assert!(
        output.code != 0 && output.stderr.contains("no subset `v9`"),
        "{output:?}"
    );
    reply(&scene.agent, &["split", "reset", "--fleet", "echo"]);
    until_answer(&scene, &["b1", "b2"]);
    scene.wait_until_healthy();
}
