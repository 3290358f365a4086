//! Hedges, and limits that answer at once.

use std::{collections::BTreeMap, time::Duration};

use lb_tests::{
    crowd::{Ask, Crowd},
    pace::at_this_pace,
    process::wait_for,
};

use crate::{
    proxy_load::{ask, mixed},
    proxy_stage::{SHARED, Stage},
    scene::{PATIENCE, VIP},
};

/// A second try beside a slow first answers for it; what may not be repeated has none.
#[test]
fn hedges() {
    let service = "protocol = \"http\"\nhedge = { after = \"100ms\" }\n\
                   health = { kind = \"tcp\", passive = false }\n";
    let stage = Stage::served(2, service, "");
    stage.always(1, "/delay/1500");
    let mut posts = Vec::new();
    let won = || stage.metric("lb_proxy_hedges_won_total", &[]);
    // Once a request has waited for it, the slow one is hardly asked any more.
    let mut asked = 0;
    while won() == 0.0 {
        asked += 1;
        assert!(asked < 100, "the slow one is never asked first");
        let (answer, took) = ask(&stage, &format!("{VIP}/"), &[]);
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        assert!(took < at_this_pace(Duration::from_millis(1000)), "{took:?}");
    }
    for number in 0..10 {
        let id = format!("x-id: post-{number}");
        let words = ["-X", "POST", "-d", "x", "-H", &id];
        let (answer, took) = ask(&stage, &format!("{SHARED}/"), &words);
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        posts.push(took);
    }
    let hedges = stage.metric("lb_proxy_hedges_total", &[]);
    assert!(won() <= hedges, "{} of {hedges}", won());
    let mut all = BTreeMap::<String, u64>::new();
    for number in 1..=2 {
        for (id, count) in stage.seen(number).by_id {
            *all.entry(id).or_default() += count;
        }
    }
    for number in 0..posts.len() {
        assert_eq!(all[&format!("post-{number}")], 1, "{posts:?}");
    }
}

/// Beyond each limit there is an answer at once rather than a queue.
#[test]
fn limits_fail_fast() {
    // (limits, hanging requests) → what the next one is told
    for (limits, hanging, says) in [
        ("requests = 3", 3, "too many requests under way"),
        (
            "connections = 2, pending = 1",
            3,
            "too many requests wait for a connection",
        ),
    ] {
        let service = format!("protocol = \"http\"\nlimits = {{ {limits} }}\n");
        let stage = Stage::served(1, &service, "");
        let crowd = Crowd::start(
            stage.client().entry(),
            hanging,
            Duration::ZERO,
            |client, number| Ask {
                path: "/delay/2500".into(),
                ..mixed(client, number)
            },
        );
        wait_for("the requests to hang", PATIENCE, || {
            let active = stage.metric("lb_proxy_active_requests", &["service=\"web\""]);
            Ok((active >= hanging as f64).then_some(()))
        })
        .unwrap();
        let (answer, took) = ask(&stage, &format!("{VIP}/"), &[]);
        assert!(answer.starts_with("http/1.1 503 "), "{limits}: {answer}");
        assert!(answer.contains("\r\nretry-after: "), "{answer}");
        assert!(answer.contains(says), "{limits}: {answer}");
        assert!(
            took < at_this_pace(Duration::from_millis(500)),
            "{limits}: {took:?}"
        );
        for outcome in crowd.stop() {
            assert_eq!(outcome.status, Ok(200), "{limits}: {outcome:?}");
        }
    }
}
