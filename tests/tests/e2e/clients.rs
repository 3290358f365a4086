//! Services that are for some clients only, and clients that stay with one backend.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use lb_tests::process::wait_for;

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, reply, sample};

/// How long a client that may be refused waits for an answer.
const SHORT: Duration = Duration::from_millis(700);
const EVERYBODY: &str = "allow = [\"10.77.0.0/24\", \"fd77::/64\"]";
const ONE: &str = "allow = [\"10.77.0.3\", \"fd77::3\"]";

/// A client outside the ranges is refused from the moment of the reload on, its download ends, and
/// the others notice nothing.
#[test]
fn a_narrower_range_cuts_who_is_outside_at_once() {
    let scene = Scene::listed(&["v1", "v1"], EVERYBODY, "");
    let [outside, inside] = scene.topology.client_addresses();
    let [outside6, inside6] = scene.topology.client_addresses6();
    for (vip, outside, inside) in [(VIP, outside, inside), (VIP6, outside6, inside6)] {
        let vip = address(vip);
        let (received, others) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let cut = scope.spawn(|| {
                let client = scene.client().from(outside).patience(SHORT);
                client.download(vip, 100_000_000_000, Some(20_000_000), &received)
            });
            let kept = scope.spawn(|| {
                let client = scene.client().from(inside);
                client.download(vip, 6_000_000, Some(2_000_000), &others)
            });
            wait_for("both downloads", PATIENCE, || {
                let run = [&received, &others]
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) > 500_000);
                Ok(run.then_some(()))
            })
            .unwrap();
            scene.reconfigure(EVERYBODY, ONE);
            assert!(cut.join().unwrap().is_err(), "the download went on");
            let refused = scene.client().from(outside).patience(SHORT);
            assert_eq!(refused.spread(vip, 6, 6).answered(), 0);
            let admitted = scene.client().from(inside);
            assert_eq!(admitted.spread(vip, 20, 4).failed(), 0);
            kept.join().unwrap().unwrap();
        });
        scene.reconfigure(ONE, EVERYBODY);
        let again = scene.client().from(outside);
        assert_eq!(again.spread(vip, 20, 4).failed(), 0);
    }
    let label = "reason=\"source_not_allowed\"";
    let dropped = sample(&scene.scrape(), "lb_packets_total", &[label]);
    assert!(dropped.unwrap() > 0.0, "{dropped:?}");
    let shown = reply(&scene.agent, &["service", "show", "echo"]);
    let allow = &shown["service"]["allow"];
    assert_eq!(*allow, serde_json::json!(["10.77.0.0/24", "fd77::/64"]));
}

/// A client's requests, each on a connection of its own, all meet one backend; without affinity
/// they meet all.
#[test]
fn a_client_meets_one_backend() {
    let by_client = "affinity = \"client\"";
    let by_connection = "affinity = \"connection\"";
    let scene = Scene::listed(&["v1", "v1", "v1", "v1"], by_connection, "");
    scene.reconfigure(by_connection, by_client);
    let v4 = scene.topology.client_addresses();
    let v6 = scene.topology.client_addresses6();
    for (vip, sources) in [(VIP, v4), (VIP6, v6)] {
        for source in sources {
            let spread = scene.client().from(source).spread(address(vip), 60, 4);
            assert_eq!(spread.failed(), 0, "{spread:?}");
            assert_eq!(spread.backends.len(), 1, "{source}: {spread:?}");
        }
    }
    let shown = reply(&scene.agent, &["service", "show", "echo"]);
    assert_eq!(shown["service"]["affinity"], "client");
    scene.reconfigure(by_client, by_connection);
    scene.wait_until_served(&[VIP, VIP6]);
}
