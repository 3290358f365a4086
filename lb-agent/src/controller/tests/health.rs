//! Ejection by what traffic tells, slow start, and what is remembered of it all.

use std::collections::BTreeSet;

use super::{addresses, bench::Bench};
use crate::{
    controller::{Counters, OperatorError},
    domain::{gate::Timed, history::Change, kernel::Attempts, signal::Signal},
};

fn attempts(accepted: u64, refused: u64, unanswered: u64) -> Attempts {
    Attempts {
        accepted,
        refused,
        unanswered,
        reset: 0,
    }
}

/// From, to and source of each change.
fn words(changes: &[Change]) -> Vec<String> {
    let word = |change: &Change| format!("{}>{} {}", change.from, change.to, change.source.name());
    changes.iter().map(word).collect()
}

/// What the flow tables tell ejects a backend, at most half of a service, and never the only one.
#[tokio::test]
async fn refused_connections_eject() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench
        .census(&[(1, attempts(9, 0, 0)), (2, attempts(0, 3, 1))])
        .await;
    assert_eq!(bench.echo().len(), 2);
    bench.census(&[(2, attempts(0, 1, 0))]).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);

    let state = bench.handle.snapshot().services["echo"].clone();
    assert_eq!(
        &*state.backends[1].reason,
        "ejected for a while: 5 connections in a row failed: refused"
    );
    assert!(!state.panic, "half is enough");
    // The last one stays, whatever traffic says: nobody does better.
    bench.census(&[(1, attempts(0, 50, 50))]).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);

    let counters = bench.handle.counters().await.unwrap();
    assert_eq!(counters.ejections["echo"], 1);
    let alone = bench.handle.counters_of("echo").await.unwrap();
    // The fake's packets grow with each look.
    // Of a service alone, what is among all.
    let of_echo = |counters: &Counters| {
        let backends = counters.backends.keys().filter(|key| key.0 == "echo");
        let services = counters.services.keys().filter(|name| *name == "echo");
        let backends: BTreeSet<_> = backends.cloned().collect();
        (backends, services.count())
    };
    assert_eq!(of_echo(&alone), of_echo(&counters));
    assert_eq!((alone.services.len(), alone.backends.len()), (1, 2));
    assert!(counters.services.len() > 1);
    let nobody = bench.handle.counters_of("nobody").await.unwrap();
    assert!(nobody.backends.is_empty() && nobody.services.is_empty());
    let two = counters
        .backends
        .iter()
        .find(|((_, id, _), _)| &*id.0 == "node/echo-2");
    assert_eq!(two.unwrap().1.attempts, attempts(0, 4, 1));
    let history = bench.handle.history(Some("10.1.0.2:8080")).await.unwrap();
    assert_eq!(words(&history), ["in>ejected flows"]);
    assert_eq!(
        history[0].reason,
        "5 connections in a row failed: refused; out for 30s"
    );
}

/// The proxy's word counts like the flow tables'.
#[tokio::test]
async fn what_the_proxy_will_tell() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let signal = |host: u8, succeeded, failed| {
        let backend = ([10, 1, 0, host], 8080).into();
        let counts = (succeeded, failed);
        Signal::of_requests(
            "echo".into(),
            backend,
            counts,
            "status 502",
            Timed::default(),
        )
    };
    let unknown = Signal {
        service: "nope".into(),
        ..signal(1, 0, 9)
    };
    let signals = vec![signal(1, 9, 0), signal(2, 0, 5), signal(77, 0, 9), unknown];
    bench.handle.report(signals).await.unwrap();
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);
    let history = bench.handle.history(Some("node/echo-2")).await.unwrap();
    assert_eq!(words(&history), ["in>ejected proxy"]);
    assert!(
        history[0]
            .reason
            .starts_with("5 requests in a row failed: status 502"),
        "{history:?}"
    );
}

/// A backend that comes back starts slowly; what a service begins with does not.
#[tokio::test]
async fn slow_start() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let weights = |bench: &Bench| -> Vec<u32> { bench.echo().iter().map(|(_, w)| *w).collect() };
    assert_eq!(weights(&bench), [1, 1]);
    bench.probe(2, false).await;
    bench.probe(2, true).await;
    assert_eq!(weights(&bench), [10, 1], "a tenth of its share");
    bench.list(&[(1, ""), (2, ""), (3, "")]).await;
    assert_eq!(weights(&bench), [10, 1, 1]);
    // By hand: at once.
    bench.handle.drain("echo", "node/echo-1").await.unwrap();
    bench.handle.undrain("echo", "node/echo-1").await.unwrap();
    assert_eq!(weights(&bench), [10, 1, 1]);
}

/// Everything that happens is remembered once, with who said so; what a service begins with is
/// no change.
#[tokio::test]
async fn history() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let all = async |of| bench.handle.history(of).await.unwrap();
    assert_eq!(all(None).await, []);
    bench.probe(1, false).await;
    bench.probe(1, false).await;
    bench.handle.drain("echo", "node/echo-1").await.unwrap();
    bench.handle.drain("fixed", "10.2.0.1:80").await.unwrap();
    bench.handle.undrain("echo", "node/echo-1").await.unwrap();
    bench.list(&[(1, ""), (2, ""), (3, "")]).await;
    bench.list(&[(1, ""), (2, "")]).await;
    let expected = [
        "unknown>unhealthy probe",
        "enabled>draining operator",
        "draining>enabled operator",
        "absent>listed catalog",
        "listed>absent catalog",
    ];
    assert_eq!(words(&all(Some("echo")).await), expected);
    assert_eq!(
        words(&all(Some("fixed")).await),
        ["enabled>draining operator"]
    );
    assert_eq!(all(None).await.len(), 6);
    let gone = all(Some("10.1.0.3:8080")).await;
    assert_eq!(gone.len(), 2, "also of what is gone");
    let error = bench.handle.history(Some("nope")).await.unwrap_err();
    assert!(matches!(error, OperatorError::UnknownSubject(_)), "{error}");
    assert_eq!(
        all(Some("10.2.0.2:80")).await,
        [],
        "known, and nothing happened"
    );
}
