//! Traffic that is taken back by itself, between the disk and the kernel.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    bench::{Bench, CONFIG},
    shares,
    shifts::v2,
};
use crate::{
    controller::*,
    datapath::fake::FakeKernel,
    domain::{kernel::Census, shift::ShiftOrder},
};

/// A return that was lost with the agent would be undone by the next one.
#[tokio::test]
async fn a_return_is_on_disk_before_anybody_sees_it() {
    let place = "consul = { service = \"echo\" }\n";
    let gate = "gate = { window = \"1s\", fail = 1, healthy = 80 }\n";
    let config = CONFIG.replace(place, &format!("{place}{gate}"));
    let kernel = FakeKernel::default();
    let bench = Bench::configured(&config, kernel, PersistedState::default()).await;
    let all = [(1, "v1"), (2, "v2"), (3, "v1"), (4, "v2")];
    bench.list(&all).await;
    let handle = &bench.handle;
    let split = shares(&["v1=100", "v2=0"]);
    handle.split_set("echo", split).await.unwrap();
    let order = ShiftOrder {
        subset: "v2".into(),
        to: 50,
        step: 50,
        every: Duration::from_secs(60),
    };
    handle.shift("echo", order).await.unwrap();
    bench.probe(2, false).await;
    assert_eq!(v2(&bench), 50);
    // The window ends with a count of connections.
    bench.census.send_replace(Arc::new(Census {
        pass: 1,
        ..Census::default()
    }));
    let begun = Instant::now();
    let to_save = || bench.state.borrow().shifts["echo"].clone();
    while !to_save().is_latched() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", to_save());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let shown = || handle.snapshot().services["echo"].shift.clone().unwrap();
    assert!(!shown().shift.is_latched());
    assert_eq!(v2(&bench), 50);
    bench
        .disk
        .send_replace([("echo".to_owned(), to_save())].into());
    bench.settle().await;
    assert!(shown().shift.is_latched());
    assert_eq!(v2(&bench), 0);
}
