//! A kernel that somebody else has changed is found out and mended.

use super::*;
use crate::domain::{
    author::Author,
    explain::Subject,
    kernel::{Attempts, KernelBackend},
};

/// What stands in the kernel, and how often something was mended there.
async fn mended(bench: &Bench) -> BTreeMap<&'static str, u64> {
    // Asked for again too soon, it would not be looked at.
    tokio::time::sleep(Duration::from_millis(250)).await;
    bench.handle.status().await.unwrap().drift.repairs
}

#[tokio::test]
async fn what_differs_is_put_right_and_counted() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    let before = bench.kernel.inside().view.clone();
    assert!(mended(&bench).await.is_empty());

    let vip = *before.vips.keys().next().unwrap();
    let (id, service) = {
        let mut inside = bench.kernel.inside();
        let view = &mut inside.view;
        view.vips.remove(&vip);
        let (id, backend) = view.backends.iter_mut().next().unwrap();
        backend.address = "192.0.2.99:1".parse().unwrap();
        let found = (*id, backend.service);
        view.tables.remove(&found.1);
        let stranger = KernelBackend {
            service: 7,
            address: "192.0.2.98:1".parse().unwrap(),
            active: true,
        };
        view.backends.insert(99, stranger);
        inside.detached = true;
        inside.steps.clear();
        found
    };
    let counted = mended(&bench).await;
    assert_eq!(
        counted,
        BTreeMap::from([
            ("backend", 2),
            ("maglev", 1),
            ("program", 1),
            ("service", 1)
        ])
    );
    let inside = bench.kernel.inside();
    assert_eq!(inside.view, before);
    let kinds: Vec<&str> = inside
        .steps
        .iter()
        .map(|step| match step {
            Step::PutBackend(..) => "backend",
            Step::PutTable(..) => "table",
            Step::PutVip(..) => "vip",
            Step::FreeBackend(_) => "free",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["backend", "table", "vip", "free"]);
    assert!(matches!(&inside.steps[0], Step::PutBackend(one, _) if *one == id));
    assert!(matches!(&inside.steps[1], Step::PutTable(one, _) if *one == service));
}

/// What cannot be mended is a problem, until it can.
#[tokio::test]
async fn what_cannot_be_mended_is_told() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1")]).await;
    {
        let mut inside = bench.kernel.inside();
        inside.view.backends.clear();
        inside.failing = Some("no memory".into());
    }
    assert!(mended(&bench).await.is_empty());
    let problems = bench.handle.status().await.unwrap().problems;
    let told =
        |problem: &String| problem.contains("could not be mended") && problem.contains("no memory");
    assert!(problems.iter().any(told), "{problems:?}");
    bench.kernel.inside().failing = None;
    assert!(!mended(&bench).await.is_empty());
    assert!(bench.handle.status().await.unwrap().problems.is_empty());
}

/// The last who changed it, for as long as it is in force; others' orders leave no trace.
#[tokio::test]
async fn orders_have_authors() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    let by = |user: &str| {
        bench.handle.by(Author {
            user: user.into(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        })
    };
    let who = || {
        let state = bench.state.borrow();
        let users = |author: &Author| author.user.clone();
        let drains = state.drains.get("echo");
        (
            state.authors.splits.get("echo").map(users),
            drains
                .and_then(|all| all.values().next())
                .and_then(|drain| drain.by.clone()),
        )
    };
    by("alice")
        .split_set("echo", shares(&["v1=9", "v2=1"]))
        .await
        .unwrap();
    by("bob").drain("echo", "node/echo-1").await.unwrap();
    bench.settle().await;
    assert_eq!(who(), (Some("alice".into()), Some("bob".into())));
    // Refused, or the same again: nobody has changed anything.
    by("carol")
        .split_set("echo", shares(&["v9=1"]))
        .await
        .unwrap_err();
    by("carol").drain("echo", "node/echo-1").await.unwrap();
    bench.settle().await;
    assert_eq!(who(), (Some("alice".into()), Some("bob".into())));
    let explained = bench
        .handle
        .explain(Subject::Service("echo".into()))
        .await
        .unwrap();
    let factors = &explained[0].backends[0].factors;
    let sources: Vec<String> = factors.iter().map(|one| one.source.to_string()).collect();
    assert_eq!(sources[1], "command line, alice");
    assert_eq!(sources[4], "command line, bob");
    assert_eq!(explained[0].backends.len(), 2);
    by("carol").undrain("echo", "node/echo-1").await.unwrap();
    by("carol").split_reset("echo").await.unwrap();
    bench.settle().await;
    assert_eq!(who(), (None, None));
}

/// The product of the factors is what the weights are proportional to.
#[tokio::test]
async fn factors_multiply_to_the_weight() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2"), (3, "v1")]).await;
    let proportional = || async {
        let explained = bench
            .handle
            .explain(Subject::Service("echo".into()))
            .await
            .unwrap();
        let snapshot = bench.handle.snapshot();
        let state = &snapshot.services["echo"];
        let products: Vec<f64> = explained[0]
            .backends
            .iter()
            .map(|one| one.factors.iter().map(|factor| factor.value).product())
            .collect();
        let sum: f64 = products.iter().sum();
        let weights: f64 = state.backends.iter().map(|one| f64::from(one.weight)).sum();
        for (backend, product) in state.backends.iter().zip(products) {
            let (part, expected) = (product / sum, f64::from(backend.weight) / weights);
            assert!(
                (part - expected).abs() < 1e-4,
                "{backend:?}: {part} {expected}"
            );
        }
    };
    proportional().await;
    bench
        .handle
        .split_set("echo", shares(&["v1=90", "v2=10"]))
        .await
        .unwrap();
    proportional().await;
    bench.handle.drain("echo", "node/echo-3").await.unwrap();
    proportional().await;
    // A fourth one comes, and starts slowly.
    bench
        .list(&[(1, "v1"), (2, "v2"), (3, "v1"), (4, "v1")])
        .await;
    let starts = bench.handle.snapshot().services["echo"].backends[3].ramp;
    assert!(starts.is_some());
    proportional().await;
    // Connections to the first one are refused.
    let refused = Attempts {
        refused: 5,
        ..Attempts::default()
    };
    let accepted = Attempts {
        accepted: 9,
        ..Attempts::default()
    };
    let found = [(1, refused), (2, accepted), (4, accepted)];
    bench.census(&found).await;
    let first = bench.handle.snapshot().services["echo"].backends[0].clone();
    assert!(first.ejection.is_some());
    proportional().await;
    bench.probe(2, false).await;
    proportional().await;
    // Nobody is left that is healthy: all but the drained one are used.
    bench.probe(1, false).await;
    proportional().await;
}
