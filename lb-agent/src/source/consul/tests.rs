//! The source against a server that does what a real one does only on bad days.

use std::time::Instant;

use tokio::{sync::oneshot, time::timeout};

use super::*;
use crate::domain::sync::WatchStatus;
use fake::{Fake, Question, Reply, instance, ok};

mod fake;

/// Short where the real ones are long, so that nothing here waits for seconds.
const QUICK: Limits = Limits {
    watches: 4,
    polls: 1,
    poll_period: Duration::from_millis(50),
    glance_period: Duration::from_millis(50),
    tellers: false,
    flush: Duration::from_millis(20),
    slack: Duration::from_millis(100),
};

/// A running source and the server it asks.
struct Rig {
    fake: Fake,
    state: watch::Receiver<Arc<CatalogState>>,
    services: watch::Sender<BTreeSet<Topic>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), InvalidOptions>>,
}

impl Rig {
    async fn start(services: &[&str], limits: Limits) -> Self {
        Self::with(services, limits, |_| {}).await
    }

    async fn with(
        services: &[&str],
        limits: Limits,
        adjust: impl FnOnce(&mut ConsulOptions),
    ) -> Self {
        let fake = Fake::start().await;
        let mut options = ConsulOptions {
            address: format!("http://{}", fake.address),
            wait: Duration::from_secs(1),
            ..Default::default()
        };
        adjust(&mut options);
        let (services, names) = watch::channel(set(services));
        let (out, state) = watch::channel(Arc::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(run_with(
            options,
            names,
            out,
            async { drop(stopped.await) },
            limits,
        ));
        Self {
            fake,
            state,
            services,
            stop,
            task,
        }
    }

    /// The state as soon as it is as described.
    async fn until(&mut self, described: impl Fn(&CatalogState) -> bool) -> Arc<CatalogState> {
        let found = timeout(
            Duration::from_secs(5),
            self.state.wait_for(|state| described(state)),
        )
        .await
        .map(|state| state.unwrap().clone());
        found.unwrap_or_else(|_| panic!("still {:#?}", self.state.borrow()))
    }

    /// The state as soon as `echo` has one instance at this port.
    async fn until_port(&mut self, port: u16) -> Arc<CatalogState> {
        self.until(|state| ports(state) == Some(vec![port])).await
    }

    /// Lets the source know an instance at port 1 and an index of 7.
    async fn settle(&mut self) {
        self.fake.question().await;
        self.fake.answer(ok(7, &instance(1)));
        self.until_port(1).await;
        assert_eq!(self.fake.question().await.query, HELD_7);
    }
}

const HELD_7: &str = "index=7&wait=1000ms";

fn set(names: &[&str]) -> BTreeSet<Topic> {
    names
        .iter()
        .map(|name| Topic::instances(name, None))
        .collect()
}

/// Ports of the instances of `echo`.
fn ports(state: &CatalogState) -> Option<Vec<u16>> {
    let instances = state.services.get("echo")?;
    Some(instances.iter().map(|one| one.address.port()).collect())
}

fn status(state: &CatalogState) -> WatchStatus {
    state
        .watches
        .get("health/echo")
        .cloned()
        .unwrap_or_default()
}

#[tokio::test]
async fn an_index_that_goes_backward_starts_anew() {
    let mut rig = Rig::start(&["echo"], QUICK).await;
    assert_eq!(rig.fake.question().await.query, "");
    rig.fake.answer(ok(9, &instance(1)));
    rig.until_port(1).await;
    assert_eq!(rig.fake.question().await.query, "index=9&wait=1000ms");
    rig.fake.answer(ok(5, &instance(2)));
    let state = rig.until_port(2).await;
    assert_eq!(status(&state).index, 5);
    assert_eq!(rig.fake.question().await.query, "");
    rig.fake.answer(ok(5, &instance(3)));
    rig.until_port(3).await;
    assert_eq!(rig.fake.question().await.query, "index=5&wait=1000ms");
}

#[tokio::test]
async fn an_index_of_nothing_is_asked_for_as_one() {
    let mut rig = Rig::start(&["echo"], QUICK).await;
    rig.fake.question().await;
    rig.fake.answer(ok(0, "[]"));
    let state = rig.until(|state| state.services.contains_key("echo")).await;
    // What is empty is passed on as empty; it is for others to judge.
    assert_eq!(ports(&state), Some(vec![]));
    assert_eq!(rig.fake.question().await.query, "index=1&wait=1000ms");
}

#[tokio::test]
async fn answers_that_are_not_believed_leave_the_instances_alone() {
    let refused = |status, body: &str| Reply {
        status,
        ..ok(1, body)
    };
    let rows = [
        (
            refused(500, "No cluster leader"),
            "500 Internal Server Error (No cluster leader)",
        ),
        (
            refused(403, "ACL not found"),
            "permission denied (ACL not found); the token lacks",
        ),
        (refused(404, ""), "there is nothing at this path"),
        (refused(301, ""), "status 301"),
        (ok(8, "<html>"), "not the JSON that Consul documents"),
        (
            ok(8, "[]").with("X-Consul-KnownLeader", "false"),
            "have no leader",
        ),
        (
            ok(8, "[]").with("X-Consul-LastContact", "20000"),
            "for 20000 ms",
        ),
        (
            ok(8, "[]").with("X-Consul-Index", "none"),
            "no X-Consul-Index",
        ),
    ];
    for (reply, part) in rows {
        let mut rig = Rig::start(&["echo"], QUICK).await;
        rig.settle().await;
        rig.fake.answer(reply);
        let state = rig.until(|state| status(state).error.is_some()).await;
        let known = status(&state);
        let text = known.error.unwrap();
        assert!(text.contains(part), "{text}");
        let place = format!(
            "GET /v1/health/service/echo from http://{}",
            rig.fake.address
        );
        assert!(text.starts_with(&place), "{text}");
        assert_eq!((known.index, known.errors), (7, 1), "{part}");
        assert_eq!(ports(&state), Some(vec![1]), "{part}");

        // The index of such an answer is not asked with, and a good one mends everything.
        assert_eq!(rig.fake.question().await.query, "", "{part}");
        rig.fake.answer(ok(3, &instance(2)));
        let state = rig.until_port(2).await;
        let known = status(&state);
        assert_eq!((known.error, known.errors, known.index), (None, 1, 3));
        assert_eq!(known.last_change, known.last_success);
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_and_asked_anew() {
    let mut rig = Rig::start(&["echo"], QUICK).await;
    rig.settle().await;
    let state = rig.until(|state| status(state).error.is_some()).await;
    let text = status(&state).error.unwrap();
    assert!(text.contains("no answer within 1 s"), "{text}");
    assert_eq!(ports(&state), Some(vec![1]));
    assert_eq!(rig.fake.question().await.query, "");
    rig.fake.answer(ok(8, &instance(2)));
    let state = rig.until_port(2).await;
    assert_eq!(status(&state).error, None);
}

#[tokio::test]
async fn a_server_that_is_gone_is_counted_and_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut rig = Rig::with(&["echo"], QUICK, |options| {
        options.address = format!("http://{address}");
    })
    .await;
    let state = rig.until(|state| status(state).errors >= 3).await;
    let text = status(&state).error.unwrap();
    assert!(
        text.contains("connection refused; check that Consul runs"),
        "{text}"
    );
    assert_eq!(ports(&state), None);
    assert_eq!(status(&state).last_success, None);
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_named() {
    // Too long for DNS, so that nobody is asked for it.
    let host = "x".repeat(64);
    let mut rig = Rig::with(&["echo"], QUICK, |options| {
        options.address = format!("http://{host}:8500");
    })
    .await;
    let state = rig.until(|state| status(state).error.is_some()).await;
    let text = status(&state).error.unwrap();
    assert!(
        text.contains(&format!("the host `{host}` cannot be resolved")),
        "{text}"
    );
}

#[tokio::test]
async fn an_answer_without_change_is_none_but_counts_as_success() {
    let mut rig = Rig::start(&["echo"], QUICK).await;
    rig.settle().await;
    let before = status(&rig.state.borrow());
    rig.fake.answer(ok(8, &instance(1)));
    let state = rig.until(|state| status(state).index == 8).await;
    let after = status(&state);
    assert_eq!(after.last_change, before.last_change);
    assert!(after.last_success > before.last_success);
}

#[tokio::test]
async fn a_bad_instance_is_reported_and_the_good_ones_are_used() {
    let mut rig = Rig::start(&["echo"], QUICK).await;
    rig.fake.question().await;
    let good = instance(1);
    let bad = instance(0);
    let body = format!("{},{}", good.trim_end_matches(']'), &bad[1..]);
    rig.fake.answer(ok(7, &body));
    let state = rig.until_port(1).await;
    let known = status(&state);
    assert_eq!(
        known.error.as_deref(),
        Some(
            "/v1/health/service/echo: one instance is left out: \
             port 0 of n/s is not one from 1 to 65535"
        )
    );
    assert!(known.last_success.is_some());
    assert_eq!(known.errors, 0);
}

#[tokio::test]
async fn a_server_that_never_holds_an_answer_is_not_asked_in_a_loop() {
    let mut rig = Rig::start(&["echo"], QUICK).await;
    rig.fake.always(ok(7, &instance(1)));
    let start = Instant::now();
    // The free questions, then three that each had to wait.
    for _ in 0..12 {
        rig.fake.question().await;
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");

    let changed = Instant::now();
    rig.fake.always(ok(8, &instance(2)));
    rig.until_port(2).await;
    let took = changed.elapsed();
    assert!(took < Duration::from_millis(600), "{took:?}");
}

#[tokio::test]
async fn a_refused_token_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "old\n").unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut rig = Rig::with(&["echo"], QUICK, |options| {
        options.token_file = Some(path.clone());
        options.datacenter = Some("dc 1".into());
    })
    .await;
    let Question { token, query, .. } = rig.fake.question().await;
    assert_eq!((&*token, &*query), ("old", "dc=dc+1"));
    // Looks as before, as after a change within the file system's idea of a moment.
    std::fs::write(&path, "new\n").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(written).unwrap();
    rig.fake.answer(Reply {
        status: 403,
        ..ok(1, "Permission denied")
    });
    let state = rig.until(|state| status(state).error.is_some()).await;
    let text = status(&state).error.unwrap();
    assert!(!text.contains("old"), "{text}");
    assert_eq!(rig.fake.question().await.token, "new");
}

#[tokio::test]
async fn services_beyond_the_watches_are_polled_in_turn() {
    let limits = Limits {
        watches: 2,
        ..QUICK
    };
    let names = ["a", "b", "c", "d", "e"];
    let mut rig = Rig::start(&names, limits).await;
    rig.fake.always(ok(7, &instance(1)));
    rig.until(|state| names.iter().all(|name| state.services.contains_key(*name)))
        .await;
    let mut polls = BTreeMap::new();
    while polls.values().sum::<u32>() < 30 {
        let Question { service, query, .. } = rig.fake.question().await;
        if ["a", "b"].contains(&&*service) {
            continue;
        }
        assert_eq!(query, "", "{service}");
        *polls.entry(service).or_default() += 1;
    }
    assert!(
        polls.values().all(|count| (9..=11).contains(count)),
        "{polls:?}"
    );
    assert!(rig.fake.peak() <= 3, "{} at once", rig.fake.peak());
}

#[tokio::test]
async fn names_come_and_go() {
    let mut rig = Rig::start(&["echo", "other"], QUICK).await;
    let first = rig.fake.question().await.service;
    let second = rig.fake.question().await.service;
    assert_eq!(set(&[&first, &second]), set(&["echo", "other"]));
    rig.fake.answer(ok(7, &instance(1)));
    rig.fake.answer(ok(7, &instance(1)));
    rig.until(|state| state.services.len() == 2).await;
    rig.fake.question().await;
    rig.fake.question().await;

    rig.services.send_replace(set(&["echo", "third"]));
    let state = rig
        .until(|state| !state.services.contains_key("other"))
        .await;
    assert_eq!(state.watches.keys().collect::<Vec<_>>(), ["health/echo"]);
    assert_eq!(rig.fake.question().await.service, "third");
    // The question about the name withdrawn is taken back, not left to hang at the server.
    while rig.fake.hanging() != 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_ends_when_told_to_and_leaves_nothing_behind() {
    let mut rig = Rig::start(&["echo"], QUICK).await;
    rig.settle().await;
    rig.stop.send(()).unwrap();
    rig.task.await.unwrap().unwrap();
    assert!(rig.state.changed().await.is_err(), "nobody publishes");
    while rig.fake.hanging() != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn options_that_cannot_be_used_are_refused_at_once() {
    let rig = Rig::with(&["echo"], QUICK, |options| {
        options.address = "consul".into()
    })
    .await;
    let error = rig.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("`consul`"), "{error}");
}
