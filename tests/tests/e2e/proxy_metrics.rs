//! Gauges and histograms of the proxy in situations of which it is known what they have to show.

use std::time::Duration;

use hyper::Method;
use lb_tests::{
    crowd::{Ask, Crowd},
    process::wait_for,
};

use crate::{
    proxy_load::ask,
    proxy_stage::{Stage, start_web},
    scene::{PATIENCE, VIP, address},
};

const WEB: &str = "service=\"web\"";

/// Waits until the metrics are these, and nothing else before the end of the patience.
fn becomes(stage: &Stage, wanted: &[(&str, f64)]) {
    let mut seen = Vec::new();
    wait_for("the metrics", PATIENCE, || {
        let each = wanted.iter().map(|(name, _)| stage.metric(name, &[WEB]));
        seen = each.collect();
        let is_so = wanted.iter().zip(&seen).all(|((_, want), is)| want == is);
        Ok(is_so.then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {seen:?} instead of {wanted:?}"));
}

/// So many clients that ask for what takes its time, again and again.
fn crowd(stage: &Stage, clients: usize) -> Crowd {
    Crowd::start(stage.client().entry(), clients, Duration::ZERO, |_, _| {
        Ask {
            to: address(VIP),
            method: Method::GET,
            path: "/delay/1500".into(),
            body: "".into(),
        }
    })
}

/// A retry takes one of the budget, which it gets back when ten seconds have passed.
#[test]
fn the_budget_of_retries() {
    const LEFT: &str = "lb_proxy_retry_budget_left";
    const RETRIES: &str = "lb_proxy_retries_total";
    const REFUSED: &str = "lb_proxy_retries_refused_total";
    let service = "protocol = \"http\"\nretry = { retries = 1, budget = 0, floor = 2 }\n\
                   health = { kind = \"tcp\", passive = false }\n";
    let stage = Stage::served(2, service, "");
    becomes(&stage, &[(LEFT, 20.0), (RETRIES, 0.0)]);
    for number in 1..=2 {
        stage.always(number, "/status/503");
    }
    let fail = |times| {
        for _ in 0..times {
            let (answer, _) = ask(&stage, &format!("{VIP}/"), &[]);
            assert!(answer.starts_with("http/1.1 503 "), "{answer}");
        }
    };
    fail(5);
    becomes(&stage, &[(LEFT, 15.0), (RETRIES, 5.0), (REFUSED, 0.0)]);
    fail(20);
    becomes(&stage, &[(LEFT, 0.0)]);
    assert!(stage.metric(REFUSED, &[WEB]) > 0.0);
    becomes(&stage, &[(LEFT, 20.0)]);
}

/// As many connections as requests at once, within the limit; the rest waits. They stay for later, and
/// go with the backend.
#[test]
fn connections_and_who_waits_for_one() {
    const OPEN: &str = "lb_proxy_pool_connections";
    const PENDING: &str = "lb_proxy_pool_pending";
    const ACTIVE: &str = "lb_proxy_active_requests";
    const CONNECTS: &str = "lb_proxy_pool_connects_total";
    // (limit) → clients, open, pending
    for (limit, clients, open, pending) in [("", 5, 5.0, 0.0), ("connections = 2", 5, 2.0, 3.0)] {
        let service = format!(
            "protocol = \"http\"\nlimits = {{ {limit} }}\nupstream = {{ warm = 0 }}\n\
             timeouts = {{ connect = \"1s\", total = \"30s\" }}\n\
             health = {{ kind = \"tcp\", passive = false, interval = \"1h\" }}\n"
        );
        let mut stage = Stage::served(1, &service, "threads = 1\n");
        becomes(&stage, &[(OPEN, 1.0), (PENDING, 0.0), (ACTIVE, 0.0)]);
        let crowd = crowd(&stage, clients);
        let busy = [(OPEN, open), (PENDING, pending), (ACTIVE, clients as f64)];
        becomes(&stage, &busy);
        for outcome in crowd.stop() {
            assert_eq!(outcome.status, Ok(200), "{outcome:?}");
        }
        becomes(&stage, &[(OPEN, open), (PENDING, 0.0), (ACTIVE, 0.0)]);
        let connects = |result: &str| {
            let result = format!("result=\"{result}\"");
            stage.metric(CONNECTS, &[WEB, &result])
        };
        assert_eq!((connects("opened"), connects("failed")), (open, 0.0));

        stage.webs[0].kill().unwrap();
        becomes(&stage, &[(OPEN, 0.0)]);
        let (answer, _) = ask(&stage, &format!("{VIP}/"), &[]);
        assert!(answer.starts_with("http/1.1 503 "), "{answer}");
        assert!(connects("failed") >= 1.0);
        assert_eq!(connects("opened"), open);
        let again = start_web(&stage.topology, 1);
        stage.webs[0] = again;
        let (answer, _) = ask(&stage, &format!("{VIP}/"), &[]);
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        let opened = stage.metric(CONNECTS, &[WEB, "result=\"opened\""]);
        assert_eq!(opened, open + 1.0);
    }
}

/// The first byte is that of the head, however long the body takes.
#[test]
fn first_bytes() {
    const FIRST: &str = "lb_proxy_first_byte_seconds";
    const WHOLE: &str = "lb_proxy_request_duration_seconds";
    let stage = Stage::served(1, "protocol = \"http\"\n", "");
    let read = |name: &str| {
        let value = |end: &str, labels: &[&str]| stage.metric(&format!("{name}{end}"), labels);
        let quick = value("_bucket", &[WEB, "le=\"0.25\""]);
        [value("_count", &[WEB]), quick, value("_sum", &[WEB])]
    };
    // (path) → first bytes at least, from them to the ends at least, all together
    for (path, least, then) in [("/delay/400", 1.2, 0.0), ("/grpc.Repeat/5/200", 0.0, 2.4)] {
        let before = [read(FIRST), read(WHOLE)];
        for _ in 0..3 {
            let (answer, _) = ask(&stage, &format!("{VIP}{path}"), &["-d", "x"]);
            assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        }
        let [first, total] = wait_for("the requests to be counted", PATIENCE, || {
            let now = [read(FIRST), read(WHOLE)];
            let come = [0, 1].map(|which| {
                let both = now[which].iter().zip(before[which]);
                both.map(|(now, before)| now - before).collect::<Vec<_>>()
            });
            Ok((come[0][0] >= 3.0 && come[1][0] >= 3.0).then_some(come))
        })
        .unwrap();
        assert_eq!((first[0], total[0]), (3.0, 3.0), "{path}");
        assert!(first[2] >= least, "{path}: {first:?}");
        // By the backend's pauses; what is late at first is less late then.
        let rest = total[2] - first[2];
        assert!(rest >= then * 0.9, "{path}: {first:?} {total:?}");
        assert!(then > 0.0 || first[1] == 0.0, "{path}: {first:?}");
        assert_eq!(total[1], 0.0, "{path}: {total:?}");
    }
}
