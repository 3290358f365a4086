//! Watchers come, get what they want, and go; the kernel's switch follows.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use lb_common::verdict::Verdict;

use super::*;
use crate::domain::trace::{VerdictSet, tests::event};

/// What the fake kernel holds.
#[derive(Default)]
struct Inside {
    filters: [Option<PacketFilter>; MOST_WATCHERS],
    on: bool,
    renewals: u32,
    ring: VecDeque<PacketEvent>,
    lost: [u64; MOST_WATCHERS],
    failing: bool,
}

#[derive(Clone, Default)]
struct FakeTap(Arc<Mutex<Inside>>);

impl FakeTap {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// A packet that the kernel tells of if it is on.
    fn packet(&self, verdict: Verdict, src: &str) {
        let mut inside = self.inside();
        let mut event = event(verdict, src, "198.51.100.10:80");
        event.bytes = vec![7; 60];
        if inside.on && inside.filters.iter().flatten().any(|f| f.wants(&event)) {
            inside.ring.push_back(event);
        }
    }
}

impl Tap for FakeTap {
    fn set(&mut self, slot: usize, filter: Option<&PacketFilter>) -> Result<(), KernelError> {
        self.inside().filters[slot] = filter.cloned();
        Ok(())
    }

    fn switch(&mut self, on: bool) -> Result<(), KernelError> {
        let mut inside = self.inside();
        if on && inside.failing {
            return Err(KernelError::new("switching the trace", "no"));
        }
        inside.on = on;
        inside.renewals += u32::from(on);
        Ok(())
    }

    fn drain(&mut self, most: usize, see: &mut dyn FnMut(PacketEvent)) -> usize {
        let mut inside = self.inside();
        let most = most.min(inside.ring.len());
        inside.ring.drain(..most).for_each(see);
        most
    }

    fn counts(&self) -> Result<Vec<SlotCounts>, KernelError> {
        let lost = self.inside().lost;
        Ok(lost.map(|lost| SlotCounts { events: 0, lost }).into())
    }
}

struct Rig {
    tap: FakeTap,
    handle: WatchHandle,
    stats: Arc<WatchStats>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start() -> Self {
        let tap = FakeTap::default();
        let stats = Arc::new(WatchStats::default());
        let (handle, watch) = channel(tap.clone(), stats.clone());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(watch.run(async {
            stopped.await.ok();
        }));
        Self {
            tap,
            handle,
            stats,
            stop,
            task,
        }
    }
}

fn only(verdict: &str) -> PacketFilter {
    PacketFilter {
        verdicts: VerdictSet::named([verdict]).unwrap(),
        ..PacketFilter::everything(1)
    }
}

#[tokio::test(start_paused = true)]
async fn each_gets_its_own_and_the_last_one_switches_off() {
    let rig = Rig::start();
    assert!(!rig.tap.inside().on);
    let mut drops = rig.handle.watch(only("drop")).await.unwrap();
    let mut all = rig
        .handle
        .watch(PacketFilter {
            snap: 20,
            ..PacketFilter::everything(1)
        })
        .await
        .unwrap();
    assert!(rig.tap.inside().on);
    assert_eq!(rig.stats.watchers(), 2);
    rig.tap.packet(Verdict::DropBlocked, "10.0.0.1:1");
    rig.tap.packet(Verdict::PassForeign, "10.0.0.2:1");
    let got = drops.next(10).await;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].verdict, Verdict::DropBlocked);
    assert!(got[0].bytes.is_empty(), "the other one asked for bytes");
    let got = all.next(10).await;
    assert_eq!(got.len(), 2);
    assert_eq!(got[1].bytes.len(), 20);
    assert_eq!((rig.stats.events(), rig.stats.lost()), (3, 0));

    drop(all);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.tap.inside().on);
    assert_eq!(rig.tap.inside().filters.iter().flatten().count(), 1);
    drop(drops);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!rig.tap.inside().on);
    assert_eq!(rig.tap.inside().filters.iter().flatten().count(), 0);
    assert_eq!(rig.stats.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_switch_is_renewed_as_long_as_somebody_watches() {
    let rig = Rig::start();
    let watcher = rig.handle.watch(only("drop")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let renewals = rig.tap.inside().renewals;
    assert!((9..=12).contains(&renewals), "{renewals}");
    drop(watcher);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_counted_wherever_it_is_lost() {
    let rig = Rig::start();
    rig.tap.inside().lost[0] = 100;
    let mut watcher = rig.handle.watch(only("drop")).await.unwrap();
    rig.tap.inside().lost[0] += 5;
    for _ in 0..BACKLOG + 3 {
        rig.tap.packet(Verdict::DropBlocked, "10.0.0.1:1");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(watcher.lost(), 8, "5 in the kernel, 3 here, none of before");
    assert_eq!(rig.stats.lost(), 8);
    let mut got = 0;
    while got < BACKLOG {
        got += watcher.next(1000).await.len();
    }
    assert_eq!(got, BACKLOG);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_there_is_room_for_and_refusals_leave_nothing() {
    let rig = Rig::start();
    rig.tap.inside().failing = true;
    let refused = rig.handle.watch(only("drop")).await.unwrap_err();
    assert!(matches!(refused, WatchError::Kernel(_)), "{refused}");
    assert_eq!(rig.tap.inside().filters.iter().flatten().count(), 0);
    rig.tap.inside().failing = false;
    let mut watchers = Vec::new();
    for _ in 0..MOST_WATCHERS {
        watchers.push(rig.handle.watch(only("drop")).await.unwrap());
    }
    let refused = rig.handle.watch(only("drop")).await.unwrap_err();
    assert!(matches!(refused, WatchError::Busy), "{refused}");
    watchers.pop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.handle.watch(only("drop")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_the_agent_everybody_comes_to_an_end() {
    let rig = Rig::start();
    let mut watcher = rig.handle.watch(only("drop")).await.unwrap();
    rig.stop.send(()).unwrap();
    rig.task.await.unwrap();
    assert!(watcher.next(1).await.is_empty());
    assert!(!rig.tap.inside().on);
    let refused = rig.handle.watch(only("drop")).await.unwrap_err();
    assert!(matches!(refused, WatchError::ShuttingDown), "{refused}");
}
