//! Splits by precedence, and each source in turn as the ground that a shift begins on and goes back
//! to.

use std::{collections::BTreeMap, time::Duration};

use super::{
    bench::{Bench, CONFIG},
    shares,
    shifts::{refusal, v2},
};
use crate::{
    controller::*,
    datapath::fake::FakeKernel,
    domain::{
        config_entry::{ConfigEntry, EntryKind, Leg, Resolver},
        shift::{Phase, ShiftOrder},
        split::SplitSource,
    },
};

fn splitter(legs: &[(&str, u32)]) -> Option<ConfigEntry> {
    let legs = legs.iter().map(|(subset, percent)| Leg {
        share: percent * 100,
        service: None,
        subset: Some((*subset).to_owned()),
        ignored: Vec::new(),
    });
    Some(ConfigEntry::Splitter(legs.collect()))
}

fn default_subset(name: &str) -> Option<ConfigEntry> {
    Some(ConfigEntry::Resolver(Resolver {
        default_subset: Some(name.to_owned()),
        ..Resolver::default()
    }))
}

/// The sources that say something, the strongest first.
fn sources(bench: &Bench) -> Vec<&'static str> {
    let service = bench.handle.snapshot().services["echo"].clone();
    let layers = service.splits.layers().iter();
    layers.map(|layer| layer.split.source.name()).collect()
}

/// A configuration whose `echo` has a split.
fn with_split() -> String {
    let place = "consul = { service = \"echo\" }\n";
    CONFIG.replace(place, &format!("{place}split = {{ v1 = 90, v2 = 10 }}\n"))
}

#[tokio::test]
async fn sources_by_precedence() {
    let kernel = FakeKernel::default();
    let bench = Bench::configured(&with_split(), kernel, PersistedState::default()).await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    assert_eq!(v2(&bench), 10);
    bench
        .entry(EntryKind::Resolver, 5, default_subset("v2"))
        .await;
    assert_eq!(v2(&bench), 10, "the file goes before a default subset");
    let legs = splitter(&[("v1", 80), ("v2", 20)]);
    bench.entry(EntryKind::Splitter, 5, legs).await;
    assert_eq!(v2(&bench), 20);
    bench.keys(5, &[("split/echo", "v1=70 v2=30")]).await;
    assert_eq!(v2(&bench), 30);
    let set = bench.handle.split_set("echo", shares(&["v1=60", "v2=40"]));
    set.await.unwrap();
    assert_eq!(v2(&bench), 40);
    let all = [
        "cli",
        "consul-kv",
        "service-splitter",
        "file",
        "service-resolver",
    ];
    assert_eq!(sources(&bench), all);

    // One that names an unknown subset leaves the place to the next, and it is told.
    bench.keys(6, &[("split/echo", "v9=1")]).await;
    bench.handle.split_reset("echo").await.unwrap();
    assert_eq!(v2(&bench), 20);
    assert_eq!(sources(&bench), all[1..]);
    let problems = bench.handle.status().await.unwrap().problems;
    let told = "service echo: the split v9=1 of consul-kv (key lb/split/echo) is not in force, for there is no subset v9";
    assert!(problems.contains(&told.to_owned()), "{problems:?}");
    bench.keys(7, &[]).await;
    bench.entry(EntryKind::Splitter, 6, None).await;
    assert_eq!(v2(&bench), 10);
    assert_eq!(sources(&bench), all[3..]);
}

/// A controller whose split comes from this source, and its configuration.
async fn ground(source: SplitSource) -> (Bench, String) {
    let config = match source {
        SplitSource::File => with_split(),
        _ => CONFIG.to_owned(),
    };
    let bench = Bench::configured(&config, FakeKernel::default(), PersistedState::default()).await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    match source {
        SplitSource::File => {}
        SplitSource::Cli => {
            let split = shares(&["v1=90", "v2=10"]);
            bench.handle.split_set("echo", split).await.unwrap();
        }
        SplitSource::ConsulKv => bench.keys(5, &[("split/echo", "v1=90 v2=10")]).await,
        SplitSource::ServiceSplitter => {
            let legs = splitter(&[("v1", 90), ("v2", 10)]);
            bench.entry(EntryKind::Splitter, 5, legs).await;
        }
        SplitSource::ServiceResolver => {
            bench
                .entry(EntryKind::Resolver, 5, default_subset("v1"))
                .await;
        }
    }
    (bench, config)
}

#[tokio::test]
async fn shifts_begin_on_every_source_and_go_back_to_it() {
    let order = ShiftOrder {
        subset: "v2".into(),
        to: 50,
        step: 20,
        every: Duration::from_secs(3600),
    };
    let all = [
        SplitSource::ServiceResolver,
        SplitSource::File,
        SplitSource::ServiceSplitter,
        SplitSource::ConsulKv,
        SplitSource::Cli,
    ];
    for source in all {
        let name = source.name();
        let (bench, config) = ground(source).await;
        let handle = &bench.handle;
        let split = || handle.snapshot().services["echo"].split.clone().unwrap();
        let before = split();
        let percent = v2(&bench);
        assert_eq!(before.source, source);

        let state = handle.shift("echo", order.clone()).await.unwrap();
        assert_eq!(state.shift.base, before.shares, "{name}");
        assert_eq!(v2(&bench), percent + 20, "{name}");
        assert_eq!(sources(&bench), ["cli", name], "{name}");
        let back = handle.roll_back("echo").await.unwrap().unwrap();
        assert_eq!((&back, v2(&bench)), (&before, percent), "{name}");

        handle.shift("echo", order.clone()).await.unwrap();
        handle.promote("echo").await.unwrap();
        assert_eq!(v2(&bench), 100, "{name}");
        handle.roll_back("echo").await.unwrap();
        assert_eq!((&split(), v2(&bench)), (&before, percent), "{name}");

        // What was taken back stays so in the next agent, before it has heard anything.
        handle.shift("echo", order.clone()).await.unwrap();
        let mut saved = bench.state.borrow().clone();
        let shift = saved.shifts.get_mut("echo").unwrap();
        shift.shares = shift.base.clone();
        shift.phase = Phase::Returned {
            at: SystemTime::now(),
            reason: "2 windows failed".into(),
        };
        let bench = Bench::configured(&config, FakeKernel::default(), saved).await;
        assert_eq!(v2(&bench), percent, "{name}");
        let set = bench.handle.split_set("echo", shares(&["v2=1"]));
        assert!(refusal(set).await.contains("split ack echo"), "{name}");
        let split = bench.handle.acknowledge("echo").await.unwrap().unwrap();
        assert_eq!((&split, v2(&bench)), (&before, percent), "{name}");
    }
}

/// A shift goes on while what lies beneath it changes, and its good shares are kept by hand then.
#[tokio::test]
async fn what_changes_beneath_a_shift_does_not_move_it() {
    let (bench, _) = ground(SplitSource::ConsulKv).await;
    let order = ShiftOrder {
        subset: "v2".into(),
        to: 30,
        step: 20,
        every: Duration::from_secs(3600),
    };
    bench.handle.shift("echo", order).await.unwrap();
    bench.keys(6, &[("split/echo", "v1=1 v2=3")]).await;
    assert_eq!(v2(&bench), 30);
    let back = bench.handle.roll_back("echo").await.unwrap().unwrap();
    assert_eq!(back.source, SplitSource::Cli);
    let words: BTreeMap<String, u32> = back.shares.into();
    assert_eq!(words, [("v1".to_owned(), 90), ("v2".to_owned(), 10)].into());
    assert_eq!(v2(&bench), 10);
    bench.handle.split_reset("echo").await.unwrap();
    assert_eq!(v2(&bench), 75);
}
