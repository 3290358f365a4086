//! The controller on a kernel in memory: commands, catalogs, health, restarts.

mod bench;
mod blocks;
mod drains;
mod drift;
mod fleet;
mod health;
mod layers;
mod local;
mod returned;
mod shifts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use self::bench::Bench;
use super::*;
use crate::{
    datapath::fake::FakeKernel,
    domain::{
        kernel::{Census, Step},
        registration::RegistrarStatus,
        shift::Shift,
        split::Shares,
        sync::CatalogState,
    },
};

fn shares(words: &[&str]) -> Shares {
    Shares::parse(words).unwrap()
}

fn addresses(weights: &[(String, u32)]) -> Vec<&str> {
    weights
        .iter()
        .map(|(address, _)| address.as_str())
        .collect()
}

#[tokio::test]
async fn file_and_consul_reach_the_kernel() {
    let bench = Bench::new().await;
    assert_eq!(bench.kernel.weights()["10.2.0.2:80"], 3);
    assert!(bench.echo().is_empty());
    let problems = bench.handle.status().await.unwrap().problems;
    assert!(
        problems.iter().any(|problem| problem.contains("echo")),
        "{problems:?}"
    );

    bench.list(&[(1, "v1"), (2, "v2")]).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    assert!(bench.handle.status().await.unwrap().problems.is_empty());
}

#[tokio::test]
async fn splits_are_checked_applied_saved_and_forgotten() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    let active = bench
        .handle
        .split_set("echo", shares(&["v1=90", "v2=10"]))
        .await
        .unwrap();
    assert_eq!(active.shares.to_string(), "v1=90 v2=10");
    let weights = bench.echo();
    assert_eq!(weights[0].1, weights[1].1 * 9);
    assert_eq!(
        bench.state.borrow().splits["echo"].to_string(),
        "v1=90 v2=10"
    );

    let error = bench
        .handle
        .split_set("nope", shares(&["v1=1"]))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no service `nope`; configured are echo, fixed"
    );
    let error = bench
        .handle
        .split_set("echo", shares(&["v3=1"]))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "service `echo` has no subset `v3`; it has v1, v2"
    );

    assert_eq!(bench.handle.split_reset("echo").await.unwrap(), None);
    assert!(bench.state.borrow().splits.is_empty());
    assert_eq!(bench.echo()[0].1, bench.echo()[1].1);
}

#[tokio::test]
async fn probes_take_out_and_bring_back() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.probe(1, false).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);
    // Nobody left: everybody is used, and it is said.
    bench.probe(2, false).await;
    assert_eq!(bench.echo().len(), 2);
    let problems = bench.handle.status().await.unwrap().problems;
    assert!(
        problems[0].contains("too few backends are healthy"),
        "{problems:?}"
    );
    bench.probe(2, true).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);
}

#[tokio::test]
async fn sudden_emptiness_is_not_believed() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, ""), (3, "")]).await;
    bench.list(&[]).await;
    assert_eq!(bench.echo().len(), 3);
    let problems = bench.handle.status().await.unwrap().problems;
    assert!(problems[0].contains("3 backends vanished"), "{problems:?}");
    // Our own probes confirm one of them.
    bench.probe(2, false).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080", "10.1.0.3:8080"]);
    // One of three that leaves alone is believed at once.
    bench.list(&[(1, ""), (2, ""), (3, "")]).await;
    bench.probe(2, true).await;
    bench.list(&[(1, ""), (2, "")]).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080", "10.1.0.2:8080"]);
}

#[tokio::test]
async fn drain_by_id_or_address() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.handle.drain("echo", "10.1.0.1:8080").await.unwrap();
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);
    let error = bench
        .handle
        .undrain("echo", "10.1.0.2:8080")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is not drained"), "{error}");
    let error = bench.handle.drain("echo", "10.9.9.9:1").await.unwrap_err();
    assert!(matches!(error, OperatorError::UnknownBackend { .. }));
    bench.handle.undrain("echo", "node/echo-1").await.unwrap();
    assert_eq!(bench.echo().len(), 2);
}

fn order(reason: &str, ttl: Option<Duration>, force: bool) -> BlockOrder {
    BlockOrder {
        ttl,
        reason: reason.into(),
        force,
    }
}

/// A batch that the kernel refuses half way leaves nothing behind.
#[tokio::test]
async fn failures_are_told_and_mended() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    bench.kernel.inside().failing = Some("no space left".into());
    let error = bench
        .handle
        .split_set("echo", shares(&["v1=1"]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    let problems = bench.handle.status().await.unwrap().problems;
    assert!(
        problems[0].contains("the kernel does not follow"),
        "{problems:?}"
    );
    let blocked = vec!["203.0.113.0/24".parse().unwrap()];
    assert!(
        bench
            .handle
            .block_add(blocked, order("", None, false))
            .await
            .is_err()
    );
    assert!(bench.handle.block_list(None, 100).await.unwrap().is_empty());
    // Healed, the next occasion brings the kernel to what was asked.
    bench.kernel.inside().failing = None;
    bench.probe(2, true).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);
    assert!(bench.handle.status().await.unwrap().problems.is_empty());
}

/// A split that nobody would be left under is refused; one that a changed configuration has
/// robbed of its subset is not followed into the void.
#[tokio::test]
async fn a_split_never_leaves_a_service_without_backends() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v1")]).await;
    let error = bench.handle.split_set("echo", shares(&["v2=100"])).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no backend of service `echo`"), "{error}");
    assert_eq!(bench.echo().len(), 2);
    let ahead = shares(&["v1=90", "v2=10"]);
    bench.handle.split_set("echo", ahead).await.unwrap();
    assert_eq!(bench.echo().len(), 2);

    let (kernel, mut saved) = (bench.kernel.clone(), bench.state.borrow().clone());
    bench.task.abort();
    saved.splits.insert("echo".into(), shares(&["blue=100"]));
    let again = Bench::start(kernel, saved).await;
    assert_eq!(again.echo().len(), 2);
    let problems = again.handle.status().await.unwrap().problems;
    assert!(problems[0].contains("no subset blue"), "{problems:?}");
    assert_eq!(again.handle.split_reset("echo").await.unwrap(), None);
    assert!(again.handle.status().await.unwrap().problems.is_empty());
}

/// What the kernel has no room for in one service holds up no other.
#[tokio::test]
async fn a_service_that_is_stuck_holds_up_no_other() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.kernel.inside().refused = Some("10.1.0.3:8080".parse().unwrap());
    bench.list(&[(1, ""), (2, ""), (3, "")]).await;
    let error = bench.handle.drain("fixed", "10.2.0.1:80").await;
    assert!(error.unwrap_err().to_string().contains("10.1.0.3:8080"));
    assert!(!bench.kernel.weights().contains_key("10.2.0.1:80"));
    assert_eq!(bench.echo().len(), 2, "as it was");
    bench.kernel.inside().refused = None;
    bench.handle.undrain("fixed", "10.2.0.1:80").await.unwrap();
    assert_eq!(bench.echo().len(), 3);
}

/// A backend that was down before a restart gets nothing until a probe succeeds.
#[tokio::test]
async fn restart_remembers_who_is_down() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.probe(1, false).await;
    let (kernel, saved) = (bench.kernel.clone(), bench.state.borrow().clone());
    bench.task.abort();
    let again = Bench::start(kernel, saved).await;
    assert_eq!(addresses(&again.echo()), ["10.1.0.2:8080"]);
    again.probe(1, true).await;
    assert_eq!(again.echo().len(), 2);
    assert!(again.state.borrow().down.is_empty());
}

#[tokio::test]
async fn a_lost_interface_is_a_problem() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1")]).await;
    assert!(bench.handle.status().await.unwrap().problems.is_empty());
    bench.kernel.inside().lost_interfaces = vec!["eth7".into()];
    let problems = bench.handle.status().await.unwrap().problems;
    assert!(
        problems[0].starts_with("interface eth7 is gone"),
        "{problems:?}"
    );
}

/// What a person set and what Consul last said outlives the agent, while Consul is silent.
#[tokio::test]
async fn restart_with_consul_away() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    bench
        .handle
        .split_set("echo", shares(&["v1=3", "v2=1"]))
        .await
        .unwrap();
    bench.handle.drain("fixed", "10.2.0.2:80").await.unwrap();
    let prefix = vec!["203.0.113.0/24".parse().unwrap()];
    bench
        .handle
        .block_add(prefix, order("abuse", None, false))
        .await
        .unwrap();
    let (kernel, saved) = (bench.kernel.clone(), bench.state.borrow().clone());
    bench.task.abort();
    let before = kernel.weights();

    kernel.inside().steps.clear();
    let again = Bench::start(kernel.clone(), saved).await;
    assert_eq!(kernel.weights(), before);
    let steps = kernel.inside().steps.clone();
    assert!(
        steps.iter().all(|step| matches!(step, Step::PutTable(..))),
        "{steps:?}"
    );
    assert_eq!(
        again.handle.block_list(None, 100).await.unwrap()[0]
            .rule
            .reason,
        "abuse"
    );

    // With the state lost as well, what the kernel holds of Consul's services stays.
    again.task.abort();
    let third = Bench::start(kernel.clone(), PersistedState::default()).await;
    let active = kernel
        .inside()
        .view
        .backends
        .values()
        .filter(|backend| backend.active)
        .count();
    assert_eq!(active, 4);
    assert_eq!(kernel.inside().blocked.len(), 1);
    let kept = &third.handle.block_list(None, 100).await.unwrap()[0].rule;
    assert_eq!(kept.prefix.to_string(), "203.0.113.0/24");
    assert!(kept.reason.contains("found in the kernel"), "{kept:?}");
    assert_eq!(third.state.borrow().blocks.len(), 1, "and saved again");
    // Not even when Consul has lost its memory too and lists nothing.
    third.list(&[]).await;
    let active = |kernel: &FakeKernel| {
        let inside = kernel.inside();
        let backends = inside.view.backends.values();
        backends.filter(|backend| backend.active).count()
    };
    assert_eq!(active(&kernel), 4);
    let problems = third.handle.status().await.unwrap().problems;
    assert!(problems[0].contains("not known yet"), "{problems:?}");
    third.list(&[(1, "v1"), (2, "v2")]).await;
    assert_eq!(third.echo().len(), 2);
    assert!(third.handle.status().await.unwrap().problems.is_empty());
}
