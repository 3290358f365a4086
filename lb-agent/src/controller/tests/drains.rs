//! What a person takes out: the last one, deadlines, restarts, the node.

use std::time::Duration;

use super::*;
use crate::domain::drain::DrainOrder;

fn order(deadline_ms: Option<u64>, force: bool) -> DrainOrder {
    DrainOrder {
        deadline: deadline_ms.map(Duration::from_millis),
        by: Some("root".into()),
        force,
    }
}

/// Who would leave the VIP without a backend must say so.
#[tokio::test]
async fn the_last_backend_needs_force() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.handle.drain("echo", "10.1.0.1:8080").await.unwrap();
    let error = bench.handle.drain("echo", "10.1.0.2:8080").await;
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "not drained: node/echo-2 is the last backend of service `echo` that takes new IPv4 \
         connections, so the VIP would refuse them; --force drains it all the same"
    );
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);
    // What is out already is no last one.
    bench.handle.drain("echo", "10.1.0.1:8080").await.unwrap();
    let forced = order(None, true);
    let drained = bench.handle.drain_by("echo", "10.1.0.2:8080", forced).await;
    assert_eq!(&*drained.unwrap().0, "node/echo-2");
    assert!(bench.echo().is_empty());
}

/// Where others take over from the last one, nobody has to insist; they hand back when it returns.
#[tokio::test]
async fn the_last_backend_of_a_subset_with_a_fallback_needs_no_force() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    let put = |text: &str| {
        let table = crate::domain::dtab::parse(text).unwrap();
        let handle = bench.handle.clone();
        async move { handle.put_dtab(table, None).await }
    };
    put("/svc/echo => /#/x/v2").await.unwrap();
    let error = bench.handle.drain("echo", "10.1.0.2:8080").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is the last backend"), "{error}");
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);

    put("/svc/echo => /#/x/v2 | /#/x/v1").await.unwrap();
    bench.handle.drain("echo", "10.1.0.2:8080").await.unwrap();
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);
    // Now it is the fallback's last one.
    let error = bench.handle.drain("echo", "10.1.0.1:8080").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is the last backend"), "{error}");
    bench.handle.undrain("echo", "10.1.0.2:8080").await.unwrap();
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);

    // A dead fallback takes over nothing.
    bench.probe(1, false).await;
    let error = bench.handle.drain("echo", "10.1.0.2:8080").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is the last backend"), "{error}");
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);
}

/// Dead backends that would be used for want of others are no reason to take the living one.
#[tokio::test]
async fn the_last_living_backend_needs_force() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.probe(1, false).await;
    let error = bench.handle.drain("echo", "10.1.0.2:8080").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is the last backend"), "{error}");
    // Where all are dead, none is better than another.
    bench.probe(2, false).await;
    bench.handle.drain("echo", "10.1.0.2:8080").await.unwrap();
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);
}

/// What is left at the deadline is cut, once, and remembered; another deadline begins anew.
#[tokio::test]
async fn a_deadline_cuts_what_is_left() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let handle = &bench.handle;
    let drained = handle.drain_by("echo", "10.1.0.1:8080", order(Some(60_000), false));
    drained.await.unwrap();
    let view = handle.drain_view("echo", "10.1.0.1:8080").await.unwrap();
    assert_eq!(
        (view.drain.by.as_deref(), view.drain.cut),
        (Some("root"), None)
    );
    assert_eq!(view.kernel_ids.len(), 1);
    assert!(bench.kernel.inside().cut_backends.is_empty());
    let first = view.drain.clone();

    // Again without a deadline: nothing changes.
    let again = handle.drain_by("echo", "10.1.0.1:8080", order(None, false));
    again.await.unwrap();
    let view = handle.drain_view("echo", "10.1.0.1:8080").await.unwrap();
    assert_eq!(view.drain, first);

    let sooner = handle.drain_by("echo", "10.1.0.1:8080", order(Some(50), false));
    sooner.await.unwrap();
    let cut = async {
        loop {
            let view = handle.drain_view("echo", "10.1.0.1:8080").await.unwrap();
            if view.drain.cut.is_some() {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let view = tokio::time::timeout(Duration::from_secs(5), cut)
        .await
        .unwrap();
    let ids: Vec<u32> = view.kernel_ids.iter().copied().collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.kernel.inside().cut_backends, ids);
    assert_eq!(
        bench.kernel.inside().closed,
        ["10.1.0.1:8080".parse().unwrap()]
    );
    let saved = bench.state.borrow().drains["echo"].clone();
    assert_eq!(saved.values().next().unwrap().cut, Some(1));
    assert_eq!((view.drain.since, view.drain.cut), (first.since, Some(1)));
}

/// Maintenance in Consul is followed as a drain is, until it ends or has nothing left.
#[tokio::test]
async fn maintenance_is_a_drain_that_consul_ends() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let view = || bench.handle.drain_view("echo", "10.1.0.2:8080");
    assert!(view().await.is_err());
    bench.list(&[(1, ""), (2, "maintenance")]).await;
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);
    let first = view().await.unwrap();
    assert_eq!(first.drain.by.as_deref(), Some("Consul"));
    assert_eq!((first.kernel_ids.len(), first.drain.deadline), (1, None));
    let drains = bench.handle.status().await.unwrap().drains;
    assert_eq!(drains, std::slice::from_ref(&first));
    let refused = bench.handle.undrain("echo", "10.1.0.2:8080").await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("`consul maint -disable`"), "{refused}");

    // A restart does not begin it anew.
    let (kernel, saved) = (bench.kernel.clone(), bench.state.borrow().clone());
    bench.task.abort();
    let bench = Bench::start(kernel, saved).await;
    let view = || bench.handle.drain_view("echo", "10.1.0.2:8080");
    bench.list(&[(1, ""), (2, "maintenance")]).await;
    assert_eq!(view().await.unwrap().drain, first.drain);
    // A person's goes before, and leaves it when it ends.
    let handle = &bench.handle;
    let drained = handle.drain_by("echo", "10.1.0.2:8080", order(None, false));
    drained.await.unwrap();
    assert_eq!(view().await.unwrap().drain.by.as_deref(), Some("root"));
    assert_eq!(handle.status().await.unwrap().drains.len(), 1);
    handle.undrain("echo", "10.1.0.2:8080").await.unwrap();
    assert_eq!(view().await.unwrap().drain, first.drain);

    bench.list(&[(1, ""), (2, "")]).await;
    assert!(view().await.is_err());
    assert!(handle.status().await.unwrap().drains.is_empty());
    assert_eq!(bench.echo().len(), 2);
}

/// Without a deadline of the configuration's nothing is cut; with one, at it.
#[tokio::test]
async fn maintenance_may_have_a_deadline() {
    let config = bench::CONFIG.replace("[consul]", "[consul]\nmaintenance_deadline = \"1s\"");
    let bench = Bench::configured(&config, FakeKernel::default(), Default::default()).await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.list(&[(1, ""), (2, "maintenance")]).await;
    assert!(bench.kernel.inside().cut_backends.is_empty());
    let view = || bench.handle.drain_view("echo", "10.1.0.2:8080");
    let cut = async {
        while view().await.unwrap().drain.cut.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), cut)
        .await
        .unwrap();
    assert_eq!(bench.kernel.inside().cut_backends.len(), 1);
    assert_eq!(addresses(&bench.echo()), ["10.1.0.1:8080"]);
}

/// What the kernel refuses is tried again, and not taken for done.
#[tokio::test]
async fn a_cut_that_fails_is_tried_again() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let drained = order(Some(30), false);
    bench
        .handle
        .drain_by("echo", "10.1.0.1:8080", drained)
        .await
        .unwrap();
    bench.kernel.inside().failing = Some("not today".into());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let view = bench
        .handle
        .drain_view("echo", "10.1.0.1:8080")
        .await
        .unwrap();
    assert_eq!(view.drain.cut, None);
    bench.kernel.inside().failing = None;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let view = bench
        .handle
        .drain_view("echo", "10.1.0.1:8080")
        .await
        .unwrap();
    assert_eq!(view.drain.cut, Some(1));
}

/// A drain and its deadline outlive the agent; one that passed meanwhile is kept then.
#[tokio::test]
async fn a_deadline_outlives_the_agent() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let drained = order(Some(200), false);
    bench
        .handle
        .drain_by("echo", "10.1.0.1:8080", drained)
        .await
        .unwrap();
    let (kernel, saved) = (bench.kernel.clone(), bench.state.borrow().clone());
    bench.task.abort();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(kernel.inside().cut_backends.is_empty());
    let bench = Bench::start(kernel, saved).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.kernel.inside().cut_backends.len(), 1);
    assert_eq!(addresses(&bench.echo()), ["10.1.0.2:8080"]);
}

/// The node goes on to announce its VIPs for the grace, and is silent until it is put back, also
/// over a restart of the agent. Its backends stay.
#[tokio::test]
async fn the_node_is_drained() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let grace = Duration::from_millis(150);
    let drain = bench
        .handle
        .drain_node(order(None, false), grace)
        .await
        .unwrap();
    assert_eq!(drain.by.as_deref(), Some("root"));
    assert!(!bench.kernel.inside().silent);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(bench.kernel.inside().silent);
    assert_eq!(bench.echo().len(), 2);
    let status = bench.handle.status().await.unwrap();
    assert_eq!(status.node_drain, Some(drain.clone()));
    assert!(status.problems.is_empty(), "{:?}", status.problems);

    let (kernel, saved) = (bench.kernel.clone(), bench.state.borrow().clone());
    bench.task.abort();
    kernel.inside().silent = false;
    let bench = Bench::start(kernel, saved).await;
    assert!(bench.kernel.inside().silent);
    assert_eq!(bench.handle.node_drain().await.unwrap(), Some(drain));
    bench.handle.undrain_node().await.unwrap();
    assert!(!bench.kernel.inside().silent);
    assert_eq!(bench.state.borrow().node_drain, None);
    let error = bench.handle.undrain_node().await.unwrap_err();
    assert_eq!(error.to_string(), "the node is not drained");
}
