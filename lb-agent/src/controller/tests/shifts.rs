//! Shifts and what ends them, tables.

use std::{sync::Arc, time::Duration};

use super::{
    super::*,
    bench::{self, Bench},
    shares,
};
use crate::domain::{
    dtab,
    gate::Timed,
    kernel::Census,
    shift::{Phase, Shift, ShiftOrder},
    signal::Signal,
    split::SplitSource,
};

fn order(subset: &str, to: u32) -> ShiftOrder {
    ShiftOrder {
        subset: subset.into(),
        to,
        step: 10,
        every: Duration::from_secs(3600),
    }
}

/// A controller with two backends of each subset, split as given.
async fn split(words: &[&str]) -> Bench {
    let bench = Bench::new().await;
    bench
        .list(&[(1, "v1"), (2, "v2"), (3, "v1"), (4, "v2")])
        .await;
    bench.handle.split_set("echo", shares(words)).await.unwrap();
    bench
}

/// Percent of the weight that v2 has in the kernel.
pub(super) fn v2(bench: &Bench) -> u32 {
    let weights = bench.echo();
    let sum = |even: bool| -> u64 {
        let of = |address: &str| address.as_bytes()[7].is_multiple_of(2);
        let own = weights.iter().filter(|(address, _)| of(address) == even);
        own.map(|(_, weight)| u64::from(*weight)).sum()
    };
    u32::try_from(sum(true) * 100 / (sum(true) + sum(false))).unwrap()
}

pub(super) async fn refusal<T: std::fmt::Debug>(
    answer: impl Future<Output = Result<T, OperatorError>>,
) -> String {
    answer.await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_shift_begins_and_ends_by_hand() {
    let bench = split(&["v1=100", "v2=0"]).await;
    let handle = &bench.handle;
    let state = handle.shift("echo", order("v2", 50)).await.unwrap();
    assert!(matches!(
        state.shift.phase,
        Phase::Stepping {
            to: 50,
            step: 10,
            ..
        }
    ));
    assert_eq!(v2(&bench), 10);
    assert_eq!(bench.state.borrow().shifts["echo"], state.shift);
    assert!(
        refusal(handle.shift("echo", order("v1", 50)))
            .await
            .contains("being shifted to v2")
    );

    // Another goal is another step; nothing is lost of where it came from.
    handle.shift("echo", order("v2", 20)).await.unwrap();
    assert_eq!(v2(&bench), 20);
    let split = handle.roll_back("echo").await.unwrap().unwrap();
    assert_eq!(split.shares, shares(&["v1=100", "v2=0"]));
    assert!(bench.state.borrow().shifts.is_empty());
    assert!(
        refusal(handle.roll_back("echo"))
            .await
            .contains("no traffic")
    );

    handle.shift("echo", order("v2", 50)).await.unwrap();
    handle.promote("echo").await.unwrap();
    assert_eq!(v2(&bench), 100);
    // Promoted, it can still be rolled back; or the next one begins from there.
    handle.shift("echo", order("v1", 10)).await.unwrap();
    assert_eq!(v2(&bench), 90);
    let split = handle.roll_back("echo").await.unwrap().unwrap();
    assert_eq!(split.shares, shares(&["v1=0", "v2=100"]));

    // A person who sets shares ends whatever is under way.
    handle.shift("echo", order("v1", 50)).await.unwrap();
    handle
        .split_set("echo", shares(&["v1=1", "v2=3"]))
        .await
        .unwrap();
    assert_eq!(v2(&bench), 75);
    assert!(bench.state.borrow().shifts.is_empty());
}

#[tokio::test]
async fn what_cannot_be_shifted_says_so() {
    let bench = split(&["v1=50", "v2=50"]).await;
    let handle = &bench.handle;
    let rows = [
        ("nope", order("v2", 60), "there is no service `nope`"),
        ("echo", order("v3", 60), "no subset `v3`; it has v1, v2"),
        ("echo", order("v2", 0), "must be from 1 to 100"),
        ("echo", order("v2", 50), "v2 has 50.0 % already"),
    ];
    for (service, order, words) in rows {
        let error = refusal(handle.shift(service, order)).await;
        assert!(error.contains(words), "{error}");
    }
    handle.split_reset("echo").await.unwrap();
    let error = refusal(handle.shift("echo", order("v2", 50))).await;
    assert!(
        error.contains("`lb-agent split set echo OLD=100 v2=0`"),
        "{error}"
    );
    assert!(
        refusal(handle.promote("echo"))
            .await
            .contains("split shift echo")
    );
    assert!(
        refusal(handle.acknowledge("echo"))
            .await
            .contains("nothing to acknowledge")
    );
    assert!(
        refusal(handle.acknowledge("nope"))
            .await
            .contains("no service")
    );
}

/// Requests that the proxy sees fail count like connections, and what it waits for answers counts
/// as well: a canary is given up for either.
#[tokio::test]
async fn failing_and_slow_requests_give_the_traffic_back() {
    // One bad window of a second is enough; ejection, which also goes by failures, stays out of it.
    let gate = "gate = { window = \"1s\", fail = 1, errors = 10, latency = \"50ms\" }";
    let health = "health = { kind = \"tcp\", panic = 0, passive = false }";
    let config = bench::CONFIG.replace(
        "health = { kind = \"tcp\", panic = 0 }",
        &format!("{health}\n{gate}"),
    );
    for (failed, ms, returned) in [(0, 1, false), (5, 1, true), (0, 60, true)] {
        let kernel = crate::datapath::fake::FakeKernel::default();
        let bench = Bench::configured(&config, kernel, PersistedState::default()).await;
        bench.list(&[(1, "v1"), (2, "v2")]).await;
        let base = shares(&["v1=100", "v2=0"]);
        bench.handle.split_set("echo", base).await.unwrap();
        bench.handle.shift("echo", order("v2", 50)).await.unwrap();
        let is_back = async {
            let mut pass = 0;
            loop {
                let signal = |host: u8, failed, ms: u64| {
                    let backend = ([10, 1, 0, host], 8080).into();
                    let counts = (20 - failed, failed);
                    let timed = Timed {
                        count: 20,
                        took_us: 20 * ms * 1000,
                    };
                    Signal::of_requests("echo".into(), backend, counts, "status 500", timed)
                };
                let signals = vec![signal(1, 0, 1), signal(2, failed, ms)];
                bench.handle.report(signals).await.unwrap();
                // The shifts on the disk, which this is.
                bench.disk.send_replace(bench.state.borrow().shifts.clone());
                pass += 1;
                let census = Census {
                    pass,
                    ..Census::default()
                };
                bench.census.send_replace(Arc::new(census));
                bench.settle().await;
                if v2(&bench) == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let patience = Duration::from_secs(4);
        let outcome = tokio::time::timeout(patience, is_back).await;
        assert_eq!(outcome.is_ok(), returned, "{failed} of 20 failed, {ms} ms");
    }
}

/// What a former agent took back stays so, is told, and lets nobody but `ack` by.
#[tokio::test]
async fn a_return_is_latched_over_restarts() {
    let base = shares(&["v1=90", "v2=10"]);
    let mut saved = PersistedState::default();
    let now = SystemTime::now();
    let returned = Shift {
        subset: "v2".into(),
        base: base.clone(),
        shares: base.clone(),
        began: now,
        phase: Phase::Returned {
            at: now,
            reason: "2 windows failed".into(),
        },
    };
    saved.shifts.insert("echo".into(), returned);
    let bench = Bench::start(crate::datapath::fake::FakeKernel::default(), saved).await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    assert_eq!(v2(&bench), 10);
    // The fleet's split lies beneath.
    bench.keys(5, &[("split/echo", "v2=1")]).await;
    assert_eq!(v2(&bench), 10);
    let handle = &bench.handle;
    let problems = handle.status().await.unwrap().problems;
    let told = "service echo: traffic was taken back from v2, to the last good shares v1=90 v2=10: 2 windows failed; they stay until `lb-agent split ack echo`";
    assert!(problems.contains(&told.to_owned()), "{problems:?}");
    let table = dtab::parse("/svc/echo => /#/v1").unwrap();
    let refusals = [
        refusal(handle.split_set("echo", shares(&["v1=1"]))).await,
        refusal(handle.split_reset("echo")).await,
        refusal(handle.shift("echo", order("v2", 50))).await,
        refusal(handle.promote("echo")).await,
        refusal(handle.roll_back("echo")).await,
        refusal(handle.put_dtab(table, None)).await,
        refusal(handle.split_check("echo", shares(&["v1=1"]))).await,
    ];
    for refusal in refusals {
        assert!(refusal.contains("`lb-agent split ack echo`"), "{refusal}");
    }
    assert_eq!(v2(&bench), 10);

    // What lies beneath has changed, so the good shares become the person's own.
    let split = handle.acknowledge("echo").await.unwrap().unwrap();
    assert_eq!((split.shares, split.source), (base, SplitSource::Cli));
    assert_eq!(v2(&bench), 10);
    handle.split_reset("echo").await.unwrap();
    assert_eq!(v2(&bench), 100);
}

#[tokio::test]
async fn tables_set_splits_and_are_watched() {
    let bench = split(&["v1=1", "v2=0"]).await;
    let handle = &bench.handle;
    let version = || dtab::version(&dtab::table(&handle.snapshot()));
    let put = |text: &str, version| handle.put_dtab(dtab::parse(text).unwrap(), version);
    let first = version();
    put(
        "/svc/echo => 9 * /#/x/v1 & 1 * /#/x/v2",
        Some(first.clone()),
    )
    .await
    .unwrap();
    assert_eq!(v2(&bench), 10);
    let shift = || bench.state.borrow().shifts.get("echo").cloned();
    let found = shift().unwrap();
    assert_eq!(
        (found.subset.as_str(), &found.phase),
        ("v2", &Phase::Arrived)
    );
    assert_eq!(found.base, shares(&["v1=1", "v2=0"]));
    let stale = refusal(put("/svc/echo => /#/x/v1", Some(first))).await;
    assert!(stale.contains("has changed meanwhile"), "{stale}");

    // More of the same goes on from the same good shares.
    put("/svc/echo => 1 * /#/x/v1 & 1 * /#/x/v2", None)
        .await
        .unwrap();
    assert_eq!(v2(&bench), 50);
    assert_eq!(shift().unwrap().base, shares(&["v1=1", "v2=0"]));
    // The same once more changes nothing.
    let before = version();
    put(
        "/svc/echo => 1 * /#/y/v1 & 1 * /#/y/v2",
        Some(before.clone()),
    )
    .await
    .unwrap();
    assert_eq!(version(), before);

    // Less, but more than before, is watched still; all the way back is the end of it.
    put("/svc/echo => 3 * /#/x/v1 & 1 * /#/x/v2", None)
        .await
        .unwrap();
    assert_eq!(shift().unwrap().base, shares(&["v1=1", "v2=0"]));
    put("/svc/echo => 1 * /#/x/v1", None).await.unwrap();
    assert_eq!((v2(&bench), shift()), (0, None));
    put("/svc/echo => 1 * /#/x/v1 & 1 * /#/x/v2", None)
        .await
        .unwrap();

    // One unknown subset, and nothing of the table is carried out.
    let unknown = refusal(put("/svc/echo => /#/x/v2 | /#/x/v7", None)).await;
    assert!(unknown.contains("no subset `v7`"), "{unknown}");
    assert_eq!(v2(&bench), 50);

    // A fallback takes over while the subset is dead.
    put("/svc/echo => /#/x/v2 | /#/x/v1", None).await.unwrap();
    assert_eq!(v2(&bench), 100);
    bench.probe(2, false).await;
    bench.probe(4, false).await;
    assert_eq!(v2(&bench), 0);
    bench.probe(2, true).await;
    assert_eq!(v2(&bench), 100);

    // What is in the table no longer is set by it no longer.
    put("", None).await.unwrap();
    assert!(bench.state.borrow().splits.is_empty());
    assert!(shift().is_none());
    assert!(bench.state.borrow().fallbacks.is_empty());
}
