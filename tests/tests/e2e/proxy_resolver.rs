//! Who answers requests, and how long connections may take, as resolver and splitter in a real Consul
//! say.

use std::time::Instant;

use lb_tests::{process::wait_for, stats::bounds};
use serde_json::{Value, json};

use crate::{
    proxy_entries::{FIRST, Site, by},
    proxy_scene::SHARED,
    scene::PATIENCE,
};

/// How many of so many requests for `web` each of two backends answers; no others do.
fn spread(site: &Site, count: usize, names: [&str; 2]) -> [usize; 2] {
    let mut answers = [0; 2];
    for _ in 0..count {
        let got = site.ask(SHARED, "web", "/", &[]);
        let place = names.iter().position(|name| *name == by(&got));
        answers[place.unwrap_or_else(|| panic!("{got:?}"))] += 1;
    }
    answers
}

#[test]
fn resolver_and_splitter_say_who_answers_requests() {
    let site = Site::new(4, "");
    site.speak_http(&["web", "spare", "other"]);
    site.register("web", 1, "1", &[]);
    site.register("web", 2, "2", &[]);
    site.register("spare", 3, "1", &[]);
    site.register("other", 4, "1", &[]);
    let resolver = json!({"DefaultSubset": "v1", "Failover": {"*": {"Service": "spare"}},
        "Subsets": {
            "v1": {"Filter": "Service.Meta.version == 1"},
            "v2": {"Filter": "\"v9\" not in Service.Tags and Service.Meta.version == \"2\""}}});
    site.put("service-resolver", "web", resolver);
    site.until("web", "/", &[], 200, "b1");
    assert_eq!(spread(&site, 40, ["b1", "b2"]), [40, 0]);
    site.assert_told(
        &["service", "show", "web"],
        &["service-resolver", "v1", "v2"],
    );

    let split = |one: &str, other: Value| {
        let mut second = json!({"Weight": 25});
        second[one] = other;
        json!({"Splits": [{"Weight": 75, "ServiceSubset": "v1"}, second]})
    };
    for (one, other, backend) in [("ServiceSubset", "v2", "b2"), ("Service", "other", "b4")] {
        site.put("service-splitter", "web", split(one, json!(other)));
        site.until("web", "/", &[], 200, backend);
        let [first, second] = spread(&site, 400, ["b1", backend]);
        eprintln!("75:25 between v1 and {other}: {first}:{second}");
        let (low, high) = bounds(400, 0.25, 5.0);
        assert!((low..=high).contains(&second), "{first} and {second}");
    }
    site.assert_told(
        &["explain", "web"],
        &["other=2500 v1=7500", "Consul service-splitter web"],
    );
    site.consul.delete_entry("service-splitter", "web").unwrap();
    site.until("web", "/", &[], 200, "b1");

    // The last of the subset goes down: another service takes over, and gives back.
    site.consul.set_check("b1", "critical").unwrap();
    site.until("web", "/", &[], 200, "b3");
    assert_eq!(spread(&site, 40, ["b2", "b3"]), [0, 40]);
    site.assert_told(&["service", "show", "web"], &["spare takes over"]);
    site.consul.set_check("b1", "passing").unwrap();
    site.until("web", "/", &[], 200, "b1");

    site.put(
        "service-resolver",
        "web",
        json!({"Redirect": {"Service": "other"}}),
    );
    site.until("web", "/", &[], 200, "b4");
    assert_eq!(spread(&site, 40, ["b1", "b4"]), [0, 40]);
    site.assert_told(&["service", "show", "web"], &["redirects it to other"]);
    site.consul.delete_entry("service-resolver", "web").unwrap();
    site.until("web", "/", &[], 200, "b2");
}

#[test]
fn who_cannot_be_connected_to_is_given_up_in_the_time_of_the_resolver() {
    let site = Site::new(2, "");
    site.speak_http(&["web"]);
    // Packets for it vanish.
    let dark = &site.topology.backends()[0];
    dark.tool("nft", &["add", "table", "inet", "dark"]).unwrap();
    let chain = "{ type filter hook input priority 0; policy accept; tcp dport 8080 drop; }";
    dark.tool("nft", &["add", "chain", "inet", "dark", "input", chain])
        .unwrap();
    site.weighted("web", 1, "1", &[], FIRST);
    site.register("web", 2, "2", &[]);
    let resolver = |timeout: &str| {
        json!({"ConnectTimeout": timeout,
               "Subsets": {"dark": {"Filter": "Service.Meta.version == 1"}}})
    };
    site.put("service-resolver", "web", resolver("300ms"));
    site.put(
        "service-router",
        "web",
        json!({"Routes": [
        {"Match": {"HTTP": {"PathPrefix": "/dark"}}, "Destination": {"ServiceSubset": "dark"}}]}),
    );
    site.until("web", "/dark", &[], 504, "");
    for (timeout, milliseconds) in [("300ms", 300), ("700ms", 700)] {
        site.put("service-resolver", "web", resolver(timeout));
        wait_for("the agent to follow", PATIENCE, || {
            let told = site.agent.command(&["explain", "web", "/dark"])?;
            let mut lines = told.lines();
            let line = lines.find(|line| line.starts_with("connect timeout "));
            let words = line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            let followed = format!("connect timeout {timeout} service-resolver in Consul");
            Ok((words.as_deref() == Some(&followed)).then_some(()))
        })
        .unwrap();
        // Alone, and before another, whose own time is 200 ms.
        for (path, own, status, backend) in [("/dark", 0, 504, ""), ("/delay/200", 200, 200, "b2")]
        {
            let mut times = Vec::new();
            for _ in 0..5 {
                let begun = Instant::now();
                let got = site.ask(SHARED, "web", path, &[]);
                times.push(begun.elapsed().as_millis() as u64);
                assert_eq!((got.status, by(&got)), (status, backend), "{path}: {got:?}");
            }
            eprintln!("a ConnectTimeout of {timeout}: {path} took {times:?} ms");
            let given_up = times.iter().map(|took| took.saturating_sub(own));
            let best = given_up.min().unwrap();
            assert!(
                (milliseconds..milliseconds + 300).contains(&best),
                "{times:?}"
            );
        }
    }
}
