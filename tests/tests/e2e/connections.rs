//! Many connections at once, each of which keeps its backend whatever comes and goes; and new ones,
//! by weight.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use lb_tests::{
    agent::Setup,
    process::{Signal, wait_for},
    stats::{binomial_bounds, bounds},
};

use crate::scene::{Conversation, PATIENCE, Scene, VIP, VIP6, address, config, hosts};

/// The service with as many backends as there are `weights`, in both families.
fn weighted(weights: &[u32]) -> Scene {
    let (topology, backends) = hosts(weights.len());
    let rows: String = (1..)
        .zip(weights)
        .flat_map(|(number, weight)| {
            let addresses = [
                topology.backend_address(number),
                topology.backend_address6(number),
            ];
            addresses
                .map(|address| format!("  {{ address = \"{address}\", weight = {weight} }},\n"))
        })
        .collect();
    let config = config(&format!("backends = [\n{rows}]"), "");
    let agent = Setup::new(&topology).config(&config).start().unwrap();
    Scene {
        agent,
        backends,
        topology,
    }
}

/// Replaces words of the configuration and sends SIGHUP.
fn hang_up(scene: &Scene, old: &str, new: &str) {
    let file = scene.agent.config_file();
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{old:?} in {text}");
    fs::write(file, text.replace(old, new)).unwrap();
    scene.agent.process().signal(Signal::Hangup).unwrap();
}

/// Waits until exactly these backends take new connections, on both families.
fn wait_for_backends(scene: &Scene, names: &[&str]) {
    let client = scene.client().patience(Duration::from_secs(5));
    let wanted: BTreeSet<&str> = names.iter().copied().collect();
    for vip in [VIP, VIP6] {
        let what = format!("{names:?} to answer through {vip}");
        wait_for(&what, PATIENCE, || {
            let spread = client.spread(address(vip), 60, 4);
            let found: BTreeSet<&str> = spread.backends.keys().map(String::as_str).collect();
            Ok((spread.failed() == 0 && found == wanted).then_some(()))
        })
        .unwrap();
    }
}

/// Two hundred connections are held open at once. While backends come, change their weight and
/// go, each connection keeps its own, and new ones follow the change.
#[test]
fn two_hundred_connections_keep_their_backends() {
    let scene = weighted(&[1, 1, 1, 0]);
    wait_for_backends(&scene, &["b1", "b2", "b3"]);
    let vips = [VIP, VIP6];
    let mut held: Vec<(String, Conversation)> = (0..200)
        .map(|number| {
            let to = address(vips[number % 2]);
            let mut conversation = Conversation::open(scene.topology.client(), to);
            (conversation.ask(), conversation)
        })
        .collect();
    let mut spread = BTreeMap::<String, usize>::new();
    for (backend, _) in &held {
        *spread.entry(backend.clone()).or_default() += 1;
    }
    eprintln!("200 connections held open: {spread:?}");
    let (low, high) = bounds(200, 1.0 / 3.0, 5.0);
    assert_eq!(spread.len(), 3, "{spread:?}");
    assert!(
        spread.values().all(|count| (low..=high).contains(count)),
        "{spread:?}"
    );

    let mut ask_all = |when: &str| {
        for (backend, conversation) in &mut held {
            assert_eq!(conversation.ask(), *backend, "{when}");
        }
    };
    let load = scene.load(200.0);
    ask_all("before any change");
    hang_up(&scene, "weight = 0", "weight = 1");
    wait_for_backends(&scene, &["b1", "b2", "b3", "b4"]);
    ask_all("with a backend more");
    let first = scene.topology.backend_address(1);
    let first6 = scene.topology.backend_address6(1);
    for address in [first, first6] {
        let row = format!("\"{address}\", weight = ");
        hang_up(&scene, &format!("{row}1"), &format!("{row}0"));
    }
    wait_for_backends(&scene, &["b2", "b3", "b4"]);
    ask_all("with the first backend's weight at zero");
    for address in [first, first6] {
        let row = format!("{{ address = \"{address}\", weight = 0 }},");
        hang_up(&scene, &row, "");
    }
    wait_for("the first backend to leave the list", PATIENCE, || {
        let list = scene.agent.command(&["backend", "list"])?;
        Ok((!list.contains(&first.to_string())).then_some(()))
    })
    .unwrap();
    ask_all("without the first backend");
    let third = scene.topology.backend_address(3);
    let third6 = scene.topology.backend_address6(3);
    for address in [third, third6] {
        let row = format!("{{ address = \"{address}\", weight = 1 }},");
        hang_up(&scene, &row, "");
    }
    wait_for_backends(&scene, &["b2", "b4"]);
    ask_all("without the first and the third backend");
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn new_connections_follow_the_weights() {
    const REQUESTS: usize = 3000;
    let scene = weighted(&[1, 3]);
    wait_for_backends(&scene, &["b1", "b2"]);
    let (low, high) = binomial_bounds(REQUESTS, 0.25);
    for vip in [VIP, VIP6] {
        // Chance alone leaves three deviations once in 370 times; twice running it does not.
        let within = (0..2).any(|_| {
            let spread = scene.client().spread(address(vip), REQUESTS, 4);
            assert_eq!(spread.answered(), REQUESTS, "{:?}", spread.failures);
            eprintln!(
                "weights 1 and 3 through {vip}: {:?}; b1 may have {low} to {high}",
                spread.backends
            );
            (low..=high).contains(&spread.of("b1"))
        });
        assert!(within, "b1 was out of {low} to {high} twice");
    }
}
