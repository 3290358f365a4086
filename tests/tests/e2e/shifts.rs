//! Traffic that goes over to a new subset: step by step, back by itself when the subset turns bad,
//! over restarts of the agent, and by curl as namerd's users do it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use lb_tests::{process::wait_for, stats::binomial_bounds};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene, VIP, address, reply, sample};

/// Both subsets at first, so that it is known that all backends answer.
const SUBSETS: &str = "subsets = { v1 = { tag = \"v1\" }, v2 = { tag = \"v2\" } }\n\
                       split = { v1 = 50, v2 = 50 }\n";

/// One backend of each subset, all traffic to the old one.
fn scene(lines: &str, tables: &str) -> Scene {
    let scene = Scene::listed(&["v1", "v2"], &format!("{SUBSETS}{lines}"), tables);
    let old = ["split", "set", "echo", "v1=100", "v2=0"];
    scene.agent.command(&old).unwrap();
    scene
}

/// What `split show` says of the service.
fn shown(scene: &Scene) -> Value {
    reply(&scene.agent, &["split", "show", "echo"])["services"][0].clone()
}

/// Percent of the traffic that v2 is to have.
fn percent(scene: &Scene) -> u32 {
    let shown = shown(scene);
    let v2 = shown["subsets"].as_array().unwrap();
    let v2 = v2.iter().find(|subset| subset["subset"] == "v2").unwrap();
    v2["share_percent"].as_f64().unwrap().round() as u32
}

/// Requests really follow the share.
fn check_share(scene: &Scene, percent: u32) {
    const REQUESTS: usize = 2000;
    let (low, high) = binomial_bounds(REQUESTS, f64::from(percent) / 100.0);
    // Three deviations, twice over: chance does not do that.
    let slack = (high - low) / 2;
    let spread = scene.client().spread(address(VIP), REQUESTS, 8);
    assert_eq!(spread.failed(), 0, "{:?}", spread.failures);
    let v2 = spread.of("b2");
    eprintln!("{REQUESTS} requests at {percent} %: {v2} to the new subset");
    assert!(
        (low.saturating_sub(slack)..=high + slack).contains(&v2),
        "{v2} of {REQUESTS} at {percent} %"
    );
}

fn log(scene: &Scene) -> String {
    fs::read_to_string(scene.topology.directory().join("lb-agent.log")).unwrap()
}

#[test]
fn a_shift_goes_step_by_step_and_over_a_restart() {
    let mut scene = scene(
        "gate = { window = \"1s\", cooldown = \"1s\" }\n\
         health = { kind = \"tcp\", interval = \"500ms\", timeout = \"500ms\" }",
        "",
    );
    let load = scene.load(100.0);
    let shift = [
        "split", "shift", "echo", "v2", "--to", "50", "--step", "20", "--every", "4s",
    ];
    let text = scene.agent.command(&shift).unwrap();
    assert!(
        text.starts_with("echo is split v1=80 v2=20 (set by cli)\n"),
        "{text}"
    );
    assert!(
        text.contains("on its way to 50 %, 20 % more every 4s"),
        "{text}"
    );
    check_share(&scene, 20);
    let begun = Instant::now();
    let mut seen = Vec::new();
    let mut wait_until = |scene: &Scene, goal: u32| {
        wait_for(&format!("a share of {goal} %"), PATIENCE, || {
            let now = percent(scene);
            if seen.last() != Some(&now) {
                seen.push(now);
                eprintln!("{now} % after {:?}", begun.elapsed());
            }
            Ok((now == goal).then_some(()))
        })
        .unwrap();
    };
    wait_until(&scene, 40);
    check_share(&scene, 40);

    // Killed in the middle: the share stays as it was, a whole interval long, and then goes on.
    scene.agent.kill9().unwrap();
    check_share(&scene, 40);
    scene.agent.restart().unwrap();
    let restarted = Instant::now();
    let shift = shown(&scene)["shift"].clone();
    assert_eq!(shift["phase"], "stepping", "{shift}");
    assert_eq!(shift["base_shares"], json!({"v1": 100, "v2": 0}));
    assert_eq!(percent(&scene), 40);
    wait_until(&scene, 50);
    let waited = restarted.elapsed();
    assert!(waited > Duration::from_secs(3), "{waited:?}");
    check_share(&scene, 50);
    assert_eq!(seen, [20, 40, 50]);
    assert_eq!(shown(&scene)["shift"]["phase"], "arrived");

    // Whose word is in force, and what lies beneath it.
    let show = scene.agent.command(&["service", "show", "echo"]).unwrap();
    assert!(
        show.contains("v1=50 v2=50 (set by cli: shift to v2, arrived)"),
        "{show}"
    );
    assert!(show.contains("v1=100 v2=0 by cli (split set)"), "{show}");
    let file = format!(
        "v1=50 v2=50 by file ({}:",
        scene.agent.config_file().display()
    );
    assert!(show.contains(&file), "{show}");

    scene.agent.command(&["split", "promote", "echo"]).unwrap();
    check_share(&scene, 100);
    let text = scene.agent.command(&["split", "rollback", "echo"]).unwrap();
    assert_eq!(text, "echo is split v1=100 v2=0 (set by cli)\n");
    check_share(&scene, 0);
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
}

#[test]
fn a_new_subset_that_falls_ill_is_given_up_until_acknowledged() {
    let mut scene = scene(
        "gate = { window = \"1s\" }\n\
         health = { kind = \"http\", path = \"/health\", interval = \"300ms\", timeout = \"300ms\", rise = 2, fall = 2 }",
        "",
    );
    let load = scene.load(100.0);
    let shift = ["split", "shift", "echo", "v2", "--to", "50", "--step", "50"];
    scene.agent.command(&shift).unwrap();
    check_share(&scene, 50);
    scene.backends[1].set_failing(true).unwrap();
    let ill = Instant::now();
    // Its share goes to the living as soon as the probes have found out; the shares stay.
    wait_for("the dead subset's share to go", PATIENCE, || {
        Ok((percent(&scene) == 0).then_some(()))
    })
    .unwrap();
    assert_eq!(
        shown(&scene)["split"]["shares"],
        json!({"v1": 50, "v2": 50})
    );
    scene.wait_for_problem(
        "service echo: traffic was taken back from v2, to the last good shares v1=100 v2=0",
    );
    eprintln!("given up {:?} after it fell ill", ill.elapsed());

    let told = |scene: &Scene| {
        let shown = shown(scene);
        assert_eq!(shown["split"]["shares"], json!({"v1": 100, "v2": 0}));
        assert_eq!(shown["shift"]["phase"], "returned");
        let reason = shown["shift"]["reason"].as_str().unwrap();
        assert!(reason.contains("% of its weight was healthy"), "{reason}");
        let scrape = scene.scrape();
        let labels = ["service=\"echo\"", "subset=\"v2\"", "phase=\"returned\""];
        assert_eq!(
            sample(&scrape, "lb_service_shift_phase", &labels),
            Some(1.0)
        );
    };
    told(&scene);
    let returns = |scene: &Scene| sample(&scene.scrape(), "lb_service_split_returns_total", &[]);
    assert_eq!(returns(&scene), Some(1.0));
    let log = log(&scene);
    assert!(
        log.contains("traffic taken back, to the last good shares"),
        "{log}"
    );

    // Latched: for those who try again, over a restart, and when the subset is well again.
    for words in [
        &["split", "set", "echo", "v2=1"][..],
        &["split", "reset", "echo"],
        &shift,
    ] {
        let output = scene.agent.cli(words).unwrap();
        assert_eq!(output.code, 1, "{words:?}");
        assert!(
            output.stderr.contains("`lb-agent split ack echo`"),
            "{}",
            output.stderr
        );
    }
    scene.agent.kill9().unwrap();
    scene.agent.restart().unwrap();
    told(&scene);
    scene.backends[1].set_failing(false).unwrap();
    wait_for("the probes to find b2 well", PATIENCE, || {
        let list = reply(&scene.agent, &["backend", "list", "echo"]);
        let all = list["backends"].as_array().unwrap();
        let well = all.iter().all(|backend| backend["observed"] == "healthy");
        Ok(well.then_some(()))
    })
    .unwrap();
    told(&scene);
    check_share(&scene, 0);

    let text = scene.agent.command(&["split", "ack", "echo"]).unwrap();
    assert_eq!(text, "echo is split v1=100 v2=0 (set by cli)\n");
    scene.wait_until_healthy();
    check_share(&scene, 0);
    scene.agent.command(&shift).unwrap();
    check_share(&scene, 50);
    // Only /health failed, so nobody who came as a client saw anything of it.
    let all = load.stop().all();
    assert_eq!(all.failed(), 0, "{:?}", all.failures);
}

#[test]
fn a_canary_that_refuses_connections_is_back_within_three_windows() {
    a_canary_is_back_within_three_windows(|scene| scene.backends[1].process().kill().unwrap());
}

#[test]
fn a_canary_that_is_silent_is_back_within_three_windows() {
    a_canary_is_back_within_three_windows(|scene| {
        let host = &scene.topology.backends()[1];
        let words = "add table inet silence; \
                     add chain inet silence input { type filter hook input priority 0; }; \
                     add rule inet silence input tcp dport 8080 drop";
        host.tool("nft", &[words]).unwrap();
    });
}

/// Nothing but the kernel's connections tells: no probes, and the catalog is content.
fn a_canary_is_back_within_three_windows(turn_bad: impl FnOnce(&Scene)) {
    const WINDOW: Duration = Duration::from_secs(6);
    // Few connections suffice: clients that wait for an answer make no others meanwhile.
    let scene = scene("gate = { window = \"6s\", connections = 3 }", "");
    let load = scene.load(150.0);
    let shift = ["split", "shift", "echo", "v2", "--to", "50", "--step", "50"];
    scene.agent.command(&shift).unwrap();
    // Good windows first.
    wait_for("a good window", PATIENCE, || {
        Ok((shown(&scene)["shift"]["last_window"] == "good").then_some(()))
    })
    .unwrap();
    turn_bad(&scene);
    let dead = load.now();
    wait_for("its traffic to be taken back", PATIENCE, || {
        Ok((shown(&scene)["shift"]["phase"] == "returned").then_some(()))
    })
    .unwrap();
    let back = load.now();
    thread::sleep(Duration::from_secs(1));
    let record = load.stop();
    let (bad, after) = (
        record.between(dead, back),
        record.between(back, Duration::MAX),
    );
    let bad_total = bad.answered() + bad.failed();
    eprintln!(
        "taken back {:?} after its death; {} of {bad_total} requests failed meanwhile, none of {} since",
        back - dead,
        bad.failed(),
        after.answered()
    );
    assert!(back - dead <= 3 * WINDOW, "{:?}", back - dead);
    assert!(bad.failed() > 0);
    // No more than its share, with room for chance.
    let (_, most) = binomial_bounds(bad_total, 0.5);
    assert!(bad.failed() <= most, "{} of {bad_total}", bad.failed());
    let three_windows = (3 * WINDOW).as_secs_f64() / (back - dead).as_secs_f64();
    let share = 0.5 * bad_total as f64 * three_windows;
    assert!((bad.failed() as f64) < share, "{} of {share}", bad.failed());
    assert_eq!(after.failed(), 0, "{:?}", after.failures);
    assert!(after.answered() > 0);
    let reason = shown(&scene)["shift"]["reason"].clone();
    let reason = reason.as_str().unwrap();
    assert!(
        reason.contains("new connections failed (0.0 % elsewhere), of 5 % at most"),
        "{reason}"
    );
}

/// `curl` on the node, with its status in the last line.
fn curl(scene: &Scene, args: &[&str]) -> (u16, String) {
    let mut words = vec!["-s", "-w", "\n%{http_code}"];
    words.extend(args);
    let printed = scene.topology.node().tool("curl", &words).unwrap();
    let (body, status) = printed.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn tables_are_put_by_curl_and_conflicts_are_refused() {
    const TABLE: &str = "http://127.0.0.1:4180/api/1/dtabs/default";
    const TEXT: &str = "content-type: application/dtab";
    let scene = scene("gate = { window = \"1s\" }", "[dtab]\n");
    let (status, body) = curl(&scene, &[TABLE]);
    assert_eq!(status, 200);
    let read: Value = serde_json::from_str(&body).unwrap();
    let old = "100 * /#/lb-agent/echo/v1 & 0 * /#/lb-agent/echo/v2";
    assert_eq!(read, json!([{"prefix": "/svc/echo", "dst": old}]));
    let tag = || {
        let (_, head) = curl(&scene, &["-i", TABLE]);
        let line = head.lines().find_map(|line| line.strip_prefix("etag: "));
        line.unwrap().trim().to_owned()
    };
    let put = |tag: &str, table: &str| {
        let condition = format!("if-match: {tag}");
        curl(
            &scene,
            &[
                "-X", "PUT", "-H", TEXT, "-H", &condition, "-d", table, TABLE,
            ],
        )
    };
    let first = tag();
    let canary = "/svc/echo => 1 * /#/io.l5d.consul/dc1/v2 & 9 * /#/io.l5d.consul/dc1/v1 ;";
    assert_eq!(put(&first, canary), (204, String::new()));
    check_share(&scene, 10);
    // Somebody who still has the former one.
    let (status, reason) = put(&first, "/svc/echo => /#/x/v1");
    assert_eq!(status, 412, "{reason}");
    check_share(&scene, 10);
    assert_eq!(put(&tag(), "/svc/echo => 1 * /#/x/v2 & 1 * /#/x/v1").0, 204);
    check_share(&scene, 50);
    let shift = shown(&scene)["shift"].clone();
    assert_eq!(shift["base_shares"], json!({"v1": 100, "v2": 0}), "{shift}");

    let rows = [
        (
            "/svc/echo => 1 * /#/x/v1 &\n  9 ** /#/x/v2",
            400,
            "line 2, column 6: ",
        ),
        (
            "/svc/echo => /#/x/v3",
            422,
            "service `echo` has no subset `v3`; it has v1, v2",
        ),
        (
            "/svc/echo => /#/x/v2 ; /svc/nope => /#/x/v1",
            422,
            "there is no service `nope`",
        ),
    ];
    for (table, expected, words) in rows {
        let (status, reason) = put("*", table);
        assert_eq!(status, expected, "{table}: {reason}");
        assert!(reason.contains(words), "{table}: {reason}");
    }
    check_share(&scene, 50);

    // With everything on the new one and the old one behind it, the old one takes over.
    assert_eq!(put("*", "/svc/echo => /#/x/v2 | /#/x/v1").0, 204);
    check_share(&scene, 100);
    let drained = scene.topology.backend_address(2).to_string();
    scene.agent.command(&["drain", "echo", &drained]).unwrap();
    check_share(&scene, 0);
    scene.agent.command(&["undrain", "echo", &drained]).unwrap();
    check_share(&scene, 100);

    // It is no more open than it was configured to be.
    let other = scene
        .topology
        .client()
        .tool("curl", &["-s", "--max-time", "2", TABLE]);
    assert!(other.is_err(), "{other:?}");
}
