//! Traffic that goes over to a new version behind the proxy, which answers everything, and in the
//! end too slowly.

use std::time::Duration;

use hyper::Method;
use lb_tests::{
    crowd::{Ask, Crowd},
    process::wait_for,
};
use serde_json::Value;

use crate::{
    proxy_stage::Stage,
    scene::{PATIENCE, VIP, address, reply},
};

const WINDOW: Duration = Duration::from_secs(6);
/// What the new version takes once it is slow; twice what the gate lets pass.
const SLOW: Duration = Duration::from_millis(400);
/// Probes go on being answered at once: the requests alone tell.
const LINES: &str = "protocol = \"http\"\n\
    split = { v1 = 100, v2 = 0 }\n\
    gate = { window = \"6s\", latency = \"200ms\" }\n\
    health = { kind = \"tcp\", interval = \"500ms\", timeout = \"500ms\" }\n";

fn shift(stage: &Stage) -> Value {
    reply(&stage.agent, &["split", "show", "web"])["services"][0]["shift"].clone()
}

#[test]
fn a_canary_that_becomes_slow_is_given_back() {
    let stage = Stage::of_subsets(2, LINES);
    let ask = |_, _| Ask {
        to: address(VIP),
        method: Method::GET,
        path: "/size/100".into(),
        body: "".into(),
    };
    let crowd = Crowd::start(stage.client().entry(), 12, Duration::from_millis(50), ask);
    let order = ["split", "shift", "web", "v2", "--to", "50", "--step", "50"];
    stage.agent.command(&order).unwrap();
    wait_for("a good window", PATIENCE, || {
        let shift = shift(&stage);
        assert_eq!(shift["phase"], "arrived", "{shift}");
        Ok((shift["last_window"] == "good").then_some(()))
    })
    .unwrap();
    stage.always(2, &format!("/delay/{}", SLOW.as_millis()));
    let slow = crowd.now();
    wait_for("its traffic to be taken back", PATIENCE, || {
        Ok((shift(&stage)["phase"] == "returned").then_some(()))
    })
    .unwrap();
    let back = crowd.now();
    let done = crowd.done();
    wait_for("requests thereafter", PATIENCE, || {
        Ok((crowd.done() > done + 200).then_some(()))
    })
    .unwrap();
    let shift = shift(&stage);
    let reason = shift["reason"].as_str().unwrap();
    assert!(
        reason.contains("its answers to requests took ")
            && reason.ends_with(" on average, of 200ms at most"),
        "{reason}"
    );
    let took = back - slow;
    eprintln!("taken back {took:?} after it became slow: {reason}");
    assert!(took <= 3 * WINDOW, "{took:?}");

    let outcomes = crowd.stop();
    // Nobody saw anything but slowness.
    for outcome in &outcomes {
        assert_eq!(outcome.status, Ok(200), "{outcome:?}");
    }
    let of_new = |from: Duration, to: Duration| {
        let within = outcomes.iter().filter(|one| (from..to).contains(&one.sent));
        within.filter(|one| one.backend == "b2").count()
    };
    assert!(of_new(Duration::ZERO, slow) > 0);
    assert!(of_new(slow, back) > 0);
    assert_eq!(of_new(back, Duration::MAX), 0);
}
