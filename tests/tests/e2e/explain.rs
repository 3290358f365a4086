//! Why a weight is what it is: each factor, who says it, and what the kernel holds.

use lb_tests::{consul::Registration, process::wait_for};
use serde_json::{Value, json};

use crate::{
    consul::{instance, scene_with},
    entries::{service, until_answer},
    scene::{PATIENCE, Scene, VIP, address, reply},
};

/// The factor of a backend, by its address and name.
fn factor(explained: &Value, address: &str, name: &str) -> Value {
    let backends = explained["explanation"]["backends"].as_array().unwrap();
    let mut backends = backends.iter();
    let backend = backends.find(|backend| backend["address"] == address);
    let factors = backend.unwrap()["factors"].as_array().unwrap();
    let mut factors = factors.iter();
    let found = factors.find(|factor| factor["name"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} of {address} in {explained}"))
        .clone()
}

fn explain(scene: &Scene, words: &[&str]) -> Vec<Value> {
    let words: Vec<&str> = ["explain"].iter().chain(words).copied().collect();
    let answer = reply(&scene.agent, &words);
    answer["services"].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn files_and_people_are_named() {
    let lines = "subsets = { v1 = { tag = \"v1\" }, v2 = { tag = \"v2\" } }\n\
                 split = { v1 = 90, v2 = 10 }\n";
    let scene = Scene::listed(&["v1", "v2"], lines, "");
    let config = std::fs::read_to_string(scene.agent.config_file()).unwrap();
    let line_of = |what: &str| 1 + config.lines().position(|line| line.contains(what)).unwrap();
    let file = scene.agent.config_file().display().to_string();
    let b1 = scene.topology.backend_address(1).to_string();
    let b2 = scene.topology.backend_address(2).to_string();

    let explained = explain(&scene, &["echo"]).remove(0);
    assert_eq!(
        factor(&explained, &b1, "registered")["origin"],
        json!({"kind": "file", "text": format!("{file}:{}", line_of(&b1)),
               "index": null, "user": null, "at_unix_ms": null})
    );
    let split = factor(&explained, &b1, "split");
    assert_eq!(split["value"], 0.9);
    let expected = format!("{file}:{}", line_of("split ="));
    assert_eq!(text(&split["origin"]["text"]), expected);
    // The table of the kernel is counted, not computed.
    for (backend, share) in [(0, 90.0), (1, 10.0)] {
        let backend = &explained["explanation"]["backends"][backend];
        assert_eq!(backend["expected_percent"], share);
        let held = backend["slots_percent"].as_f64().unwrap();
        assert!((held - share).abs() < 0.1, "{backend}");
        assert_eq!(backend["kernel"]["active"], true);
        assert_eq!(backend["kernel"]["address"], backend["address"]);
        let mac = text(&backend["kernel"]["mac"]);
        assert!(mac.len() == 17 && mac != "00:00:00:00:00:00", "{mac}");
    }
    let vips = explained["explanation"]["vips"].as_array().unwrap();
    assert!(
        vips.iter()
            .all(|vip| vip["present"] == true && vip["slots"] == 4093)
    );

    // A person sets the split and drains: who it was, and when.
    scene
        .agent
        .command(&["split", "set", "echo", "v1=1", "v2=3"])
        .unwrap();
    scene.agent.command(&["drain", "echo", &b1]).unwrap();
    let explained = explain(&scene, &[VIP]).remove(0);
    assert_eq!(explained["matched"], "vip");
    let split = factor(&explained, &b2, "split");
    assert_eq!(
        (&split["value"], text(&split["origin"]["user"])),
        (&json!(0.75), "root")
    );
    assert!(split["origin"]["at_unix_ms"].as_i64().unwrap() > 1_600_000_000_000);
    let drain = factor(&explained, &b1, "drain");
    assert_eq!(
        (&drain["value"], text(&drain["origin"]["user"])),
        (&json!(0.0), "root")
    );
    let layers = explained["service"]["split_layers"].as_array().unwrap();
    let in_force: Vec<bool> = layers
        .iter()
        .map(|layer| layer["in_force"] == true)
        .collect();
    assert_eq!(in_force, [true, false]);
    let origins = explained["explanation"]["split_origins"]
        .as_array()
        .unwrap();
    let kinds: Vec<&str> = origins.iter().map(|origin| text(&origin["kind"])).collect();
    assert_eq!(kinds, ["cli", "file"]);

    // Over a restart, and until it is taken back.
    let mut scene = scene;
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    let explained = explain(&scene, &[&b1]).remove(0);
    assert_eq!(explained["matched"], "backend");
    assert_eq!(
        text(&factor(&explained, &b1, "drain")["origin"]["user"]),
        "root"
    );
    scene.agent.command(&["undrain", "echo", &b1]).unwrap();
    scene.agent.command(&["split", "reset", "echo"]).unwrap();
    let explained = explain(&scene, &["echo"]).remove(0);
    assert_eq!(factor(&explained, &b1, "drain")["value"], 1.0);
    assert_eq!(factor(&explained, &b1, "split")["origin"]["kind"], "file");

    // For people, by both commands.
    for words in [&["explain", "echo"][..], &["service", "show", "echo"]] {
        let shown = scene.agent.command(words).unwrap();
        for expected in [
            "FACTOR",
            "in kernel",
            &expected,
            "90.0% for 90.0% asked",
            "kernel: VIP",
        ] {
            assert!(shown.contains(expected), "no {expected} in {shown}");
        }
    }
    // What is not there is told, and what cannot be is refused.
    for (words, code, said) in [
        (&["explain", "nope"][..], 1, "there is no service `nope`"),
        (&["explain", "10.9.9.9:1"], 1, "neither a VIP nor a backend"),
        (
            &["explain", "198.51.100.10:80/udp"],
            1,
            "neither a VIP nor a backend",
        ),
        (
            &["explain", "web.example", "/x"],
            1,
            "no service asks for web.example/x",
        ),
        (&["explain", "web.example", "x"], 2, "is no path"),
        (
            &["explain", "10.9.9.9:x"],
            2,
            "neither the name of a service nor an address",
        ),
    ] {
        let output = scene.agent.cli(words).unwrap();
        assert_eq!(output.code, code, "{words:?}");
        assert!(output.stderr.contains(said), "{words:?}: {}", output.stderr);
    }
}

#[test]
fn everything_in_consul_is_named_with_its_index() {
    let (consul, scene) = scene_with(3, "", "auto_publish = true");
    consul.register(instance(&scene, "b1")).unwrap();
    consul.register(instance(&scene, "b2")).unwrap();
    until_answer(&scene, &["b1", "b2"]);
    let b1 = scene.topology.backend_address(1).to_string();
    let explained = explain(&scene, &[&b1]).remove(0);
    let registered = factor(&explained, &b1, "registered");
    let said = text(&registered["origin"]["text"]).to_owned();
    assert!(
        said.starts_with("Consul service echo, instance lb-node/b1, index "),
        "{said}"
    );
    assert!(registered["origin"]["index"].as_u64().unwrap() > 0);

    // An entry, then a key that goes before it, each with its index.
    let defaults = json!({"Kind": "service-defaults", "Name": "echo", "Protocol": "http"});
    consul.put_entry(&defaults).unwrap();
    let resolver = json!({"Kind": "service-resolver", "Name": "echo", "Subsets": {
        "v1": {"Filter": "Service.ID == b1"}, "v2": {"Filter": "Service.ID == b2"}}});
    consul.put_entry(&resolver).unwrap();
    let splitter = json!({"Kind": "service-splitter", "Name": "echo", "Splits": [
        {"Weight": 60, "ServiceSubset": "v1"}, {"Weight": 40, "ServiceSubset": "v2"}]});
    consul.put_entry(&splitter).unwrap();
    let router = json!({"Kind": "service-router", "Name": "echo", "Routes": [
        {"Match": {"HTTP": {"PathPrefix": "/old"}}, "Destination": {"ServiceSubset": "v1"}}]});
    consul.put_entry(&router).unwrap();
    let from = |kind: &str| {
        wait_for(&format!("a split by {kind}"), PATIENCE, || {
            Ok((service(&scene, "echo")["split"]["source"] == kind).then_some(()))
        })
        .unwrap();
        let explained = explain(&scene, &["echo"]).remove(0);
        factor(&explained, &b1, "split")
    };
    let split = from("service-splitter");
    assert_eq!(split["value"], 0.6);
    let said = text(&split["origin"]["text"]);
    assert!(
        said.starts_with("Consul service-splitter echo, index "),
        "{said}"
    );
    consul.put_kv("lb/split/echo", "v1=1 v2=1").unwrap();
    let split = from("consul-kv");
    let key = consul.get("/v1/kv/lb/split/echo").unwrap();
    assert_eq!(split["origin"]["index"], key[0]["ModifyIndex"]);
    assert_eq!(split["value"], 0.5);

    // Requests: by tags, the most particular first, and by a router's routes.
    let tagged = Registration {
        service: "web",
        id: "web",
        tags: &["urlprefix-web.example/", "urlprefix-/any"],
        ..instance(&scene, "b3")
    };
    consul.register(tagged).unwrap();
    wait_for("the tags to be followed", PATIENCE, || {
        let output = scene.agent.cli(&["explain", "web.example", "/x"])?;
        Ok((output.code == 0).then_some(()))
    })
    .unwrap();
    let explained = explain(&scene, &["web.example:80", "/x"]).remove(0);
    assert_eq!(
        (
            text(&explained["matched"]),
            text(&explained["service"]["name"])
        ),
        ("route", "web")
    );
    let explained = explain(&scene, &["echo.consul.localhost", "/old/x"]).remove(0);
    assert_eq!(explained["matched"], "service-router");
    assert!(
        text(&explained["because"]).contains("/old* to subset v1"),
        "{explained}"
    );
    let shown = scene
        .agent
        .command(&["explain", "web.example", "/x"])
        .unwrap();
    assert!(shown.contains("web.example"), "{shown}");
    assert!(scene.client().get(address(VIP), "/").is_ok());
}
