//! The scheduler over scripted probes and paused time, and once over real sockets.

mod thresholds;

use std::{collections::BTreeMap, future::pending, sync::Mutex};

use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{super::attempt, *};
use crate::domain::service::{ProbeKind, ProbeSpec};

const SECOND: Duration = Duration::from_secs(1);

fn target(index: usize, interval: Duration) -> Target {
    Target {
        service: "echo".into(),
        id: InstanceId(format!("node/echo-{index}").into()),
        address: format!("192.0.2.1:{}", 1000 + index).parse().unwrap(),
        spec: ProbeSpec {
            interval,
            ..ProbeSpec::default()
        },
    }
}

/// A scheduler at work on a probe given as a function of (backend's port, nth probe of it, time
/// since the start).
struct Rig {
    targets: watch::Sender<Arc<Vec<Target>>>,
    events: mpsc::Receiver<HealthEvent>,
    stats: Arc<ProbeStats>,
    /// When each probe began, by port.
    began: Arc<Mutex<BTreeMap<u16, Vec<Duration>>>>,
    task: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
}

impl Rig {
    fn start<F>(
        targets: Vec<Target>,
        script: impl Fn(u16, usize) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), ProbeFailure>> + Send + 'static,
    {
        let (targets, listed) = watch::channel(Arc::new(targets));
        let (sender, events) = mpsc::channel(16);
        let (shutdown, stopped) = oneshot::channel::<()>();
        let stats = Arc::new(ProbeStats::default());
        let began: Arc<Mutex<BTreeMap<u16, Vec<Duration>>>> = Arc::default();
        let (log, start) = (Arc::clone(&began), Instant::now());
        let probe = move |target: Arc<Target>| {
            let port = target.address.port();
            let mut log = log.lock().unwrap();
            let times = log.entry(port).or_default();
            times.push(start.elapsed());
            script(port, times.len())
        };
        let counted = Arc::clone(&stats);
        let task = tokio::spawn(async move {
            run(listed, sender, counted, probe, async {
                stopped.await.ok();
            })
            .await;
        });
        Self {
            targets,
            events,
            stats,
            began,
            task,
            shutdown,
        }
    }

    fn began(&self, index: usize) -> Vec<Duration> {
        let port = 1000 + index as u16;
        let log = self.began.lock().unwrap();
        log.get(&port).cloned().unwrap_or_default()
    }

    fn count(&self, result: &str) -> u64 {
        let found = self.stats.results().find(|(name, _)| *name == result);
        found.unwrap().1
    }

    async fn event(&mut self) -> (u16, &'static str, &'static str) {
        let event = self.events.recv().await.unwrap();
        let from_to = (event.previous.name(), event.observed.name());
        (event.address.port(), from_to.0, from_to.1)
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// A backend that fails by a pattern gives exactly the changes of rise 2 and fall 3.
#[tokio::test(start_paused = true)]
async fn flapping_backend() {
    const PATTERN: &str = "+xx+xxx+x++xx+++xxx";
    let mut rig = Rig::start(vec![target(0, SECOND)], |_, nth| async move {
        match PATTERN.as_bytes().get(nth - 1) {
            Some(b'x') => Err(ProbeFailure::Refused),
            Some(_) => Ok(()),
            None => pending().await,
        }
    });
    for (from, to) in [
        ("unknown", "healthy"),
        ("healthy", "unhealthy"),
        ("unhealthy", "healthy"),
        ("healthy", "unhealthy"),
    ] {
        assert_eq!(rig.event().await, (1000, from, to));
    }
    sleep(100 * SECOND).await;
    assert!(rig.events.try_recv().is_err());
    let failures = PATTERN.matches('x').count() as u64;
    assert_eq!(rig.count("refused"), failures);
    assert_eq!(rig.count("success"), PATTERN.len() as u64 - failures);
    rig.stop().await;
}

/// A backend that is ill and dies, or is up again and still ill: told once each, though its health
/// is the same.
#[tokio::test(start_paused = true)]
async fn whether_it_answers() {
    const PATTERN: &str = "+iiiiixxxxiii";
    let mut rig = Rig::start(vec![target(0, SECOND)], |_, nth| async move {
        match PATTERN.as_bytes().get(nth - 1) {
            Some(b'i') => Err(ProbeFailure::Status(503)),
            Some(b'x') => Err(ProbeFailure::Refused),
            Some(_) => Ok(()),
            None => pending().await,
        }
    });
    for (from, to, answers) in [
        ("unknown", "healthy", true),
        ("healthy", "unhealthy", true),
        ("unhealthy", "unhealthy", false),
        ("unhealthy", "unhealthy", true),
    ] {
        let event = rig.events.recv().await.unwrap();
        let found = (event.previous.name(), event.observed.name(), event.answers);
        assert_eq!(found, (from, to, answers));
    }
    sleep(100 * SECOND).await;
    assert!(rig.events.try_recv().is_err());
    rig.stop().await;
}

/// An event carries all there is to know.
#[tokio::test(start_paused = true)]
async fn what_an_event_says() {
    let wanted = target(7, SECOND);
    let mut rig = Rig::start(vec![wanted.clone()], |_, _| async {
        sleep(SECOND / 4).await;
        Err(ProbeFailure::Status(503))
    });
    let event = rig.events.recv().await.unwrap();
    assert_eq!(
        (event.service, event.id, event.address),
        (wanted.service, wanted.id, wanted.address)
    );
    assert_eq!(event.previous, Observed::Unknown);
    assert!(
        matches!(&event.observed, Observed::Unhealthy { reason, .. } if reason == "HTTP status 503"),
        "{:?}",
        event.observed
    );
    assert!(event.took >= SECOND / 4 && event.took < SECOND / 2);
    assert_eq!(rig.began(7).len(), 3);
    rig.stop().await;
}

/// Ten thousand backends are all probed once in each interval, from the first second on.
#[tokio::test(start_paused = true)]
async fn ten_thousand_backends() {
    let interval = 5 * SECOND;
    let count = 10_000;
    let list = (0..count).map(|index| target(index, interval)).collect();
    let mut rig = Rig::start(list, |_, _| async {
        sleep(SECOND / 100).await;
        Ok(())
    });
    let mut up = std::collections::BTreeSet::new();
    for _ in 0..count {
        let (port, from, to) = rig.event().await;
        assert_eq!((from, to), ("unknown", "healthy"));
        assert!(up.insert(port));
    }
    sleep(6 * interval).await;
    for index in 0..count {
        let began = rig.began(index);
        assert!(began[0] < SECOND + SECOND / 4, "{:?}", began[0]);
        for pair in began[1..].windows(2) {
            let gap = pair[1] - pair[0];
            // The runtime's timer has a resolution of a millisecond.
            assert!(
                gap >= interval * 89 / 100 && gap <= interval * 111 / 100,
                "{gap:?}"
            );
        }
        assert!((6..=9).contains(&began.len()), "{}", began.len());
    }
    assert_eq!(rig.stats.late(), 0);
    assert!(rig.events.try_recv().is_err());
    rig.stop().await;
}

/// Where everything hangs, no more than the limit is under way, every backend gets its turn, and
/// the delay is counted.
#[tokio::test(start_paused = true)]
async fn bounded_when_everything_hangs() {
    let under_way = Arc::new(Mutex::new((0usize, 0usize)));
    let watched = Arc::clone(&under_way);
    let count = 4 * MAX_UNDER_WAY;
    let list = (0..count).map(|index| target(index, SECOND)).collect();
    let mut rig = Rig::start(list, move |_, _| {
        let watched = Arc::clone(&watched);
        async move {
            {
                let mut seen = watched.lock().unwrap();
                seen.0 += 1;
                seen.1 = seen.1.max(seen.0);
            }
            sleep(SECOND).await;
            watched.lock().unwrap().0 -= 1;
            Err(ProbeFailure::Timeout(SECOND))
        }
    });
    for _ in 0..count {
        let (_, from, to) = rig.event().await;
        assert_eq!((from, to), ("unknown", "unhealthy"));
    }
    assert_eq!(under_way.lock().unwrap().1, MAX_UNDER_WAY);
    assert!(rig.stats.late() > 0);
    rig.stop().await;
}

/// The list changes: a vanished backend is left in peace, even in the middle of a probe; a new
/// one is probed soon; the others go on as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn list_changes() {
    let interval = 5 * SECOND;
    let dropped = Arc::new(Mutex::new(Vec::new()));
    struct Guard(u16, Arc<Mutex<Vec<u16>>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let log = Arc::clone(&dropped);
    let mut rig = Rig::start(
        vec![target(0, interval), target(1, interval)],
        move |port, _| {
            let guard = Guard(port, Arc::clone(&log));
            async move {
                // The whole of it moves in, not just the number.
                let guard = guard;
                // The second backend never answers.
                if guard.0 == 1001 {
                    pending::<()>().await;
                }
                Ok(())
            }
        },
    );
    assert_eq!(rig.event().await, (1000, "unknown", "healthy"));
    sleep(3 * interval).await;
    assert_eq!(rig.began(1).len(), 1);
    assert!(!dropped.lock().unwrap().contains(&1001));
    let before = rig.began(0).len();

    rig.targets
        .send_replace(Arc::new(vec![target(0, interval), target(2, interval)]));
    assert_eq!(rig.event().await, (1002, "unknown", "healthy"));
    assert!(dropped.lock().unwrap().contains(&1001), "still under way");
    sleep(10 * interval).await;
    assert_eq!(rig.began(1).len(), 1);
    assert!(rig.began(0).len() >= before + 9);
    assert!(rig.events.try_recv().is_err(), "the others went on");

    // What comes back is new.
    rig.targets.send_replace(Arc::new(Vec::new()));
    sleep(10 * interval).await;
    let before = rig.began(0).len();
    rig.targets
        .send_replace(Arc::new(vec![target(0, interval)]));
    assert_eq!(rig.event().await, (1000, "unknown", "healthy"));
    assert_eq!(rig.began(0).len(), before + 1, "nothing in between");
    rig.stop().await;
}

/// A changed spec keeps the health, forgets the probe under way and asks anew within a second.
#[tokio::test(start_paused = true)]
async fn spec_changes() {
    let mut rig = Rig::start(vec![target(0, 60 * SECOND)], |_, nth| async move {
        match nth {
            1 => Ok(()),
            2 => pending().await,
            _ => Err(ProbeFailure::Refused),
        }
    });
    assert_eq!(rig.event().await, (1000, "unknown", "healthy"));
    sleep(70 * SECOND).await;
    assert_eq!(rig.began(0).len(), 2);
    let changed = target(0, SECOND);
    // Given twice, it counts once.
    rig.targets
        .send_replace(Arc::new(vec![changed.clone(), changed]));
    sleep(SECOND).await;
    assert_eq!(rig.began(0).len(), 3);
    assert_eq!(rig.event().await, (1000, "healthy", "unhealthy"));
    assert_eq!(rig.began(0).len(), 5);
    rig.stop().await;
}

/// Failures that are the agent's own, a panic included, change no health and end no rhythm.
#[tokio::test(start_paused = true)]
async fn own_failures_blame_nobody() {
    let mut rig = Rig::start(vec![target(0, SECOND)], |_, nth| async move {
        match nth {
            1 | 12.. => Ok(()),
            2..=6 => Err(ProbeFailure::Local(std::io::Error::from_raw_os_error(
                libc::EMFILE,
            ))),
            _ => panic!("a defect, on purpose"),
        }
    });
    assert_eq!(rig.event().await, (1000, "unknown", "healthy"));
    sleep(30 * SECOND).await;
    assert!(rig.events.try_recv().is_err());
    assert_eq!((rig.count("local_error"), rig.count("aborted")), (5, 5));
    assert!(rig.count("success") > 10);
    rig.stop().await;
}

/// Either channel's other end going away is an end as well.
#[tokio::test(start_paused = true)]
async fn ends_with_its_channels() {
    let rig = Rig::start(vec![target(0, SECOND)], |_, _| pending());
    drop(rig.targets);
    rig.task.await.unwrap();
    let rig = Rig::start(vec![target(0, SECOND)], |_, _| async { Ok(()) });
    drop(rig.events);
    rig.task.await.unwrap();
}

/// The real thing on loopback: a backend that listens, stops and comes back.
#[tokio::test]
async fn real_backend_goes_and_comes_back() {
    // An address that no other test uses: the port is still free when it is wanted again.
    let listener = TcpListener::bind("127.77.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = Target {
        address,
        spec: ProbeSpec {
            kind: ProbeKind::Tcp,
            interval: Duration::from_millis(20),
            timeout: 10 * SECOND,
            ..ProbeSpec::default()
        },
        ..target(0, SECOND)
    };
    let (_targets, listed) = watch::channel(Arc::new(vec![target]));
    let (sender, mut events) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let stats = Arc::new(ProbeStats::default());
    let probe = |target| attempt::probe(target, Arc::default());
    let task = tokio::spawn(run(listed, sender, stats, probe, async {
        stopped.await.ok();
    }));
    let mut next = async || {
        let event = timeout(30 * SECOND, events.recv()).await;
        event.unwrap().unwrap().observed
    };
    assert_eq!(next().await.name(), "healthy");
    drop(listener);
    let down = next().await;
    assert!(
        matches!(&down, Observed::Unhealthy { reason, .. } if reason == "connection refused"),
        "{down:?}"
    );
    let _listener = TcpListener::bind(address).await.unwrap();
    assert_eq!(next().await.name(), "healthy");
    stop.send(()).unwrap();
    task.await.unwrap();
}
