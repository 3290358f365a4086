//! Whose local clients' sockets are closed.

use super::*;

/// What has been closed since the last look.
fn closed(bench: &Bench) -> Vec<String> {
    let closed = std::mem::take(&mut bench.kernel.inside().closed);
    closed.iter().map(ToString::to_string).collect()
}

/// Dead and removed backends lose them, once; draining ones do not, whatever their probes say;
/// and none as long as it takes connections.
#[tokio::test]
async fn sockets_of_lost_backends_are_closed() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, ""), (3, "")]).await;
    assert!(closed(&bench).is_empty());
    bench.probe(1, false).await;
    assert_eq!(closed(&bench), ["10.1.0.1:8080"]);
    bench.handle.drain("echo", "10.1.0.2:8080").await.unwrap();
    bench.probe(2, false).await;
    assert!(
        closed(&bench).is_empty(),
        "draining, and the first only once"
    );
    bench.handle.undrain("echo", "10.1.0.2:8080").await.unwrap();
    assert_eq!(closed(&bench), ["10.1.0.2:8080"]);

    // With nobody left all are used; the first comes back and dies anew.
    bench.probe(3, false).await;
    assert!(closed(&bench).is_empty());
    bench.probe(3, true).await;
    let mut lost = closed(&bench);
    lost.sort();
    assert_eq!(lost, ["10.1.0.1:8080", "10.1.0.2:8080"]);

    bench.list(&[(2, ""), (3, "")]).await;
    assert!(closed(&bench).is_empty(), "what was dead is removed");
    bench.probe(2, true).await;
    bench.list(&[(3, "")]).await;
    assert_eq!(closed(&bench), ["10.1.0.2:8080"]);
}

/// What the kernel refuses is tried again; a service that is not known yet loses nothing.
#[tokio::test]
async fn refusals_and_unknown_services() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    bench.probe(1, false).await;
    assert_eq!(closed(&bench), ["10.1.0.1:8080"]);
    let kernel = bench.kernel.clone();
    bench.task.abort();

    // The next agent finds the backend taken out, and Consul has not answered yet.
    let bench = Bench::start(kernel, PersistedState::default()).await;
    assert!(closed(&bench).is_empty());
    bench.list(&[(1, ""), (2, "")]).await;
    assert!(closed(&bench).is_empty(), "taken in again");
    bench.kernel.inside().refuse_closing = true;
    bench.probe(1, false).await;
    assert!(closed(&bench).is_empty());
    bench.kernel.inside().refuse_closing = false;
    bench.handle.reload().await.unwrap_err();
    bench.probe(2, true).await;
    assert_eq!(closed(&bench), ["10.1.0.1:8080"]);
}
