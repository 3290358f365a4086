//! Services in a real Consul publish themselves.

use std::time::{Duration, Instant};

use lb_tests::{consul::Registration, process::wait_for};
use serde_json::json;

use crate::{
    consul::{instance, scene_with},
    entries::{service, until_answer},
    scene::{PATIENCE, Scene, VIP, address, reply},
};

/// Where another service publishes itself.
const OTHER: &str = "198.51.100.20:80";

#[test]
fn services_publish_themselves() {
    let (consul, mut scene) = scene_with(3, "", "auto_publish = true");
    let client = scene.client().patience(Duration::from_millis(500));
    consul.register(instance(&scene, "b1")).unwrap();
    until_answer(&scene, &["b1"]);
    let web = |scene: &Scene, id, meta, tags| {
        let instance = Registration {
            service: "web",
            meta,
            tags,
            ..instance(scene, id)
        };
        consul.register(instance).unwrap();
    };
    let good: &[_] = &[
        ("lb-vip", OTHER),
        ("lb-health-path", "/"),
        ("lb-health-interval", "200ms"),
    ];
    web(&scene, "b2", good, &["urlprefix-web.example/"]);
    wait_for("the service to answer", PATIENCE, || {
        Ok(client.get(address(OTHER), "/").ok())
    })
    .unwrap();
    let shown = service(&scene, "web");
    assert_eq!(shown["origin"], "consul meta of lb-node/b2");
    assert_eq!(shown["probe"]["kind"], "http");
    assert_eq!(
        shown["routes"],
        json!([{"host": "web.example", "path": null, "path_prefix": null}])
    );
    // One that has no VIP is known, too, and nobody misses backends that take connections.
    let routed = Registration {
        service: "routed",
        tags: &["traefik.http.routers.r.rule=Host(`r.example`) && PathPrefix(`/a`)"],
        ..instance(&scene, "b3")
    };
    let routed = Registration {
        id: "routed",
        ..routed
    };
    consul.register(routed).unwrap();
    wait_for("the service without a VIP", PATIENCE, || {
        let list = reply(&scene.agent, &["service", "list"]);
        let services = list["services"].as_array().unwrap();
        Ok(services
            .iter()
            .any(|service| service["name"] == "routed")
            .then_some(()))
    })
    .unwrap();
    let text = scene.agent.command(&["service", "show", "routed"]).unwrap();
    assert!(text.contains("r.example/a*"), "{text}");
    assert_eq!(service(&scene, "routed")["protocol"], "http");
    assert_eq!(
        service(&scene, "routed")["origin"],
        "consul tags of lb-node/routed"
    );
    scene.wait_until_healthy();
    // Watched from then on: another backend is followed at once.
    let begun = Instant::now();
    web(&scene, "b3", good, &[]);
    wait_for("b3 to take traffic", PATIENCE, || {
        Ok((service(&scene, "web")["backends_active"] == 2).then_some(()))
    })
    .unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");

    // Over a restart of the agent without Consul, once it is on disk: that takes its time.
    scene.wait_until_saved(&["lb-node/b1", "lb-node/b2", "lb-node/b3"]);
    consul.stop().unwrap();
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    assert_eq!(service(&scene, "web")["backends"], 2);
    assert!(client.get(address(OTHER), "/").is_ok());
    let mut consul = consul;
    consul.restart().unwrap();
    scene.wait_until_healthy();

    // What clashes with the file, and what is nonsense, is told and not followed.
    let clash = Registration {
        service: "thief",
        meta: &[("lb-vip", VIP)],
        ..instance(&scene, "b3")
    };
    consul
        .register(Registration {
            id: "thief",
            ..clash
        })
        .unwrap();
    scene.wait_for_problem(
        "thief in Consul is not published: 198.51.100.10:80 (tcp) belongs to service echo",
    );
    let wrong = Registration {
        service: "wrong",
        id: "wrong",
        meta: &[("lb-vip", "web.example:80")],
        ..clash
    };
    consul.register(wrong).unwrap();
    scene.wait_for_problem("`web.example:80` in lb-vip is not of the form ADDRESS:PORT");
    until_answer(&scene, &["b1"]);
    for id in ["thief", "wrong"] {
        consul.deregister(id).unwrap();
    }
    scene.wait_until_healthy();
    assert!(client.get(address(OTHER), "/").is_ok());
}
