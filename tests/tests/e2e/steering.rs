//! A person steers: splits and drains, under traffic.

use std::time::{Duration, Instant};

use lb_tests::{
    process::wait_for,
    stats::{binomial_bounds, percentile},
};
use serde_json::{Value, json};

use crate::scene::{Conversation, PATIENCE, Scene, VIP, VIP6, address, reply};

const SUBSETS: &str = "subsets = { v1 = { tag = \"v1\" }, v2 = { tag = \"v2\" } }\n";

#[test]
fn ten_thousand_requests_land_within_three_standard_deviations() {
    let split = format!("{SUBSETS}split = {{ v1 = 90, v2 = 10 }}");
    let scene = Scene::listed(&["v1", "v1", "v2"], &split, "");
    let (low, high) = binomial_bounds(10_000, 0.1);
    // Chance alone leaves three deviations once in 370 times; twice running it does not.
    let landed: Vec<usize> = (0..2)
        .map(|_| {
            let begun = Instant::now();
            let spread = scene.client().spread(address(VIP), 10_000, 8);
            assert_eq!(spread.answered(), 10_000, "{:?}", spread.failures);
            eprintln!(
                "10,000 requests at 90/10: {:?} in {:?}; v2 may have {low} to {high}",
                spread.backends,
                begun.elapsed()
            );
            // The rest is the other subset's, half for each of its two.
            let (least, most) = binomial_bounds(10_000, 0.45);
            let slack = (most - least) / 3;
            for backend in ["b1", "b2"] {
                let count = spread.of(backend);
                assert!(
                    (least - slack..=most + slack).contains(&count),
                    "{backend}: {count}"
                );
            }
            spread.of("b3")
        })
        .skip_while(|count| !(low..=high).contains(count))
        .take(1)
        .collect();
    assert_eq!(landed.len(), 1, "v2 was out of {low} to {high} twice");
}

#[test]
fn a_split_set_by_hand_is_in_force_when_the_command_returns() {
    let split = format!("{SUBSETS}split = {{ v1 = 50, v2 = 50 }}");
    let mut scene = Scene::listed(&["v1", "v2"], &split, "");
    let load = scene.load(400.0);
    let mut rounds = Vec::new();
    for round in 0..10 {
        let (shares, backend) = match round % 2 {
            0 => (["v1=0", "v2=100"], "b2"),
            _ => (["v1=100", "v2=0"], "b1"),
        };
        let begun = load.now();
        scene
            .agent
            .command(&["split", "set", "echo", shares[0], shares[1]])
            .unwrap();
        let done = load.now();
        wait_for("requests under the new split", PATIENCE, || {
            let spread = load.record().between(done, Duration::MAX);
            Ok((spread.answered() >= 30).then_some(()))
        })
        .unwrap();
        rounds.push((begun, done, load.now(), backend));
    }
    let record = load.stop();
    assert_eq!(record.all().failed(), 0, "{:?}", record.all().failures);
    let (mut returned, mut reached) = (Vec::new(), Vec::new());
    for (begun, done, end, backend) in rounds {
        let after = record.between(done, end);
        assert!(after.answered() >= 30);
        assert_eq!(after.answered(), after.of(backend), "{:?}", after.backends);
        // The first request that no other backend's comes after.
        let samples = record.samples().iter();
        let mut here: Vec<_> = samples
            .filter(|sample| (begun..end).contains(&sample.began))
            .map(|sample| (sample.began, sample.outcome.as_deref() == Ok(backend)))
            .collect();
        here.sort_unstable();
        let wrong = here.iter().rposition(|(_, right)| !right);
        let (first, _) = here[wrong.map_or(0, |index| index + 1)];
        returned.push(done - begun);
        reached.push(first - begun);
    }
    for (what, times) in [("returned", &returned), ("reached the kernel", &reached)] {
        let (median, longest) = (percentile(times, 50.0).unwrap(), times.iter().max());
        eprintln!("`split set` {what} after: median {median:?}, longest {longest:?}");
    }
    // The command waits until the kernel is done with the former tables as well, on whatever
    // machine; the latter figure is when requests follow.
    let median = percentile(&reached, 50.0).unwrap();
    assert!(median < Duration::from_millis(100), "{reached:?}");

    // The last one survives the agent.
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    let show = || reply(&scene.agent, &["split", "show", "echo"])["services"][0].clone();
    let by_hand = json!({"shares": {"v1": 100, "v2": 0}, "source": "cli", "origin": "split set"});
    assert_eq!(show()["split"], by_hand);
    let all = |vip| scene.client().spread(address(vip), 50, 4);
    assert_eq!(all(VIP).of("b1"), 50);
    assert_eq!(all(VIP6).of("b1"), 50);

    // Reset, the configured one counts, and the next start knows nothing else.
    let reset = reply(&scene.agent, &["split", "reset", "echo"]);
    let configured = reset["split"].clone();
    assert_eq!(configured["shares"], json!({"v1": 50, "v2": 50}));
    assert_eq!(configured["source"], "file");
    let file = format!("{}:", scene.agent.config_file().display());
    let origin = configured["origin"].as_str().unwrap();
    assert!(origin.starts_with(&file), "{origin}");
    assert_eq!(all(VIP).backends.len(), 2);
    scene.agent.stop().unwrap();
    scene.agent.restart().unwrap();
    assert_eq!(
        reply(&scene.agent, &["split", "show"])["services"][0]["split"],
        configured
    );
}

#[test]
fn a_subset_that_dies_leaves_its_share_to_the_others() {
    let lines = format!(
        "{SUBSETS}split = {{ v1 = 50, v2 = 50 }}\n\
         health = {{ kind = \"tcp\", interval = \"500ms\", timeout = \"500ms\", rise = 2, fall = 2 }}"
    );
    let mut scene = Scene::listed(&["v1", "v2"], &lines, "");
    wait_for("the probes to find b2 alive", PATIENCE, || {
        Ok((backend(&scene, 2)["observed"] == "healthy").then_some(()))
    })
    .unwrap();
    let load = scene.load(300.0);
    scene.backends[1].process().kill().unwrap();
    let dead = load.now();
    wait_for("the probes to find b2 dead", PATIENCE, || {
        let backend = backend(&scene, 2);
        let out = backend["health"] == "unhealthy" && backend["weight"] == 0;
        Ok(out.then_some(()))
    })
    .unwrap();
    let out = load.now();
    wait_for("a second without it", PATIENCE, || {
        Ok((load.now() > out + Duration::from_secs(1)).then_some(()))
    })
    .unwrap();
    let record = load.record();
    let after = record.between(out, Duration::MAX);
    eprintln!(
        "b2 was out {:?} after its death; {} requests were refused meanwhile, none of {} since",
        out - dead,
        record.between(dead, out).failed(),
        after.answered()
    );
    assert_eq!(after.failed(), 0, "{:?}", after.failures);
    assert_eq!(after.answered(), after.of("b1"));
    let shown = &reply(&scene.agent, &["split", "show", "echo"])["services"][0];
    assert_eq!(shown["subsets"][0]["share_percent"], 100.0);
    assert_eq!(shown["subsets"][1]["share"], 50);
    assert_eq!(shown["subsets"][1]["backends_active"], 0);

    scene.backends[1].restart().unwrap();
    wait_for("b2 to be back", PATIENCE, || {
        let spread = load.record().between(out, Duration::MAX);
        Ok((spread.of("b2") > 20).then_some(()))
    })
    .unwrap();
    let late = load.stop().between(out, Duration::MAX);
    assert_eq!(late.failed(), 0, "{:?}", late.failures);
}

/// The IPv4 backend of that number, as `backend list` shows it.
fn backend(scene: &Scene, number: u8) -> Value {
    let address = scene.topology.backend_address(number).to_string();
    let list = reply(&scene.agent, &["backend", "list", "echo"]);
    let backends = list["backends"].as_array().unwrap();
    let found = backends
        .iter()
        .find(|backend| backend["address"] == address.as_str());
    found.unwrap().clone()
}

#[test]
fn a_drained_backend_keeps_its_connections_and_takes_no_new_ones() {
    let mut scene = Scene::listed(&["v1", "v1"], "", "");
    let b1 = scene.topology.backend_address(1).to_string();
    let vip = address(VIP);
    let mut open = Conversation::with("b1", scene.topology.client(), vip);
    let load = scene.load(200.0);
    scene.agent.command(&["drain", "echo", &b1]).unwrap();
    let drained = load.now();
    assert_eq!(open.ask(), "b1");
    assert_eq!(scene.client().spread(vip, 200, 4).of("b2"), 200);
    let shown = backend(&scene, 1);
    assert_eq!(shown["weight"], 0);
    assert_eq!(shown["reason"], "drained by an operator");
    assert!(
        shown["draining_since_unix_ms"].as_i64().is_some(),
        "{shown}"
    );

    // It is a person's will, which outlives the agent; so does the connection.
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    assert_eq!(open.ask(), "b1");
    assert_eq!(scene.client().spread(vip, 100, 4).of("b2"), 100);
    let undrained = load.now();
    let spread = load.record().between(drained, undrained);
    assert_eq!(spread.answered(), spread.of("b2"), "{:?}", spread.backends);

    scene.agent.command(&["undrain", "echo", &b1]).unwrap();
    assert_eq!(scene.client().spread(vip, 100, 4).backends.len(), 2);
    assert_eq!(open.ask(), "b1");
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
    let again = scene.agent.cli(&["undrain", "echo", &b1]).unwrap();
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("is not drained"), "{}", again.stderr);
}
