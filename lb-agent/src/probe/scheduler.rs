//! Which probe begins when: one task that holds a heap of due times and the probes under way.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{HealthEvent, ProbeStats, Target, failure::ProbeFailure};
use crate::domain::{
    backend::InstanceId,
    health::{HealthMachine, Observed, ProbeOutcome},
    schedule::Schedule,
};

/// Probes under way at once. Bounds the descriptors, of which a process commonly has 1024; where
/// thousands of backends hang at once, probes begin late instead, and are counted as such.
const MAX_UNDER_WAY: usize = 512;
/// From which delay on a probe counts as late.
const LATE: Duration = Duration::from_secs(1);
/// How often at most the log repeats that the agent cannot probe.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Runs until `shutdown` completes or a channel is closed. See [`super::run`].
///
/// `probe` makes one attempt; it must end by itself.
pub(super) async fn run<F>(
    mut targets: watch::Receiver<Arc<Vec<Target>>>,
    events: mpsc::Sender<HealthEvent>,
    stats: Arc<ProbeStats>,
    probe: impl Fn(Arc<Target>) -> F,
    shutdown: impl Future<Output = ()>,
) where
    F: Future<Output = Result<(), ProbeFailure>> + Send + 'static,
{
    let mut scheduler = Scheduler {
        probe,
        stats,
        rng: StdRng::from_os_rng(),
        backends: HashMap::new(),
        incarnations: HashMap::new(),
        next_incarnation: 0,
        due: BinaryHeap::new(),
        under_way: JoinSet::new(),
        probed_by: HashMap::new(),
        complained: None,
    };
    targets.mark_changed();
    tokio::select! {
        () = scheduler.drive(&mut targets, &events) => {}
        () = shutdown => {}
    }
    scheduler.under_way.shutdown().await;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    service: String,
    id: InstanceId,
    address: SocketAddr,
}

impl Key {
    fn of(target: &Target) -> Self {
        Self {
            service: target.service.clone(),
            id: target.id.clone(),
            address: target.address,
        }
    }
}

/// A backend under one spec. Due times and probes that name an incarnation which is gone are
/// leftovers and mean nothing.
type Incarnation = u64;

struct Backend {
    target: Arc<Target>,
    machine: HealthMachine,
    schedule: Schedule,
    /// When the last probe began, or when the backend appeared.
    began: Instant,
    under_way: Option<AbortHandle>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(probe) = &self.under_way {
            probe.abort();
        }
    }
}

struct Attempt {
    result: Result<(), ProbeFailure>,
    took: Duration,
}

struct Scheduler<P> {
    probe: P,
    stats: Arc<ProbeStats>,
    rng: StdRng,
    backends: HashMap<Incarnation, Backend>,
    incarnations: HashMap<Key, Incarnation>,
    next_incarnation: Incarnation,
    /// Earliest first. A backend stands here exactly once, or is under way.
    due: BinaryHeap<Reverse<(Instant, Incarnation)>>,
    under_way: JoinSet<Attempt>,
    probed_by: HashMap<Id, Incarnation>,
    /// When the log last said that probing does not work.
    complained: Option<Instant>,
}

impl<P, F> Scheduler<P>
where
    P: Fn(Arc<Target>) -> F,
    F: Future<Output = Result<(), ProbeFailure>> + Send + 'static,
{
    /// Goes on until a channel is closed.
    async fn drive(
        &mut self,
        targets: &mut watch::Receiver<Arc<Vec<Target>>>,
        events: &mpsc::Sender<HealthEvent>,
    ) {
        loop {
            self.begin_due(Instant::now());
            let deadline = self.next_deadline();
            tokio::select! {
                changed = targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let latest = targets.borrow_and_update().clone();
                    self.retarget(&latest, Instant::now());
                }
                Some(ended) = self.under_way.join_next_with_id() => {
                    if let Some(event) = self.on_end(ended, Instant::now())
                        && events.send(event).await.is_err()
                    {
                        return;
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
    }

    /// Makes the list the one that is probed.
    fn retarget(&mut self, targets: &[Target], now: Instant) {
        let mut wanted = HashSet::with_capacity(targets.len());
        for target in targets {
            let key = Key::of(target);
            if !wanted.insert(key.clone()) {
                continue;
            }
            let mut observed = Observed::Unknown;
            if let Some(incarnation) = self.incarnations.get(&key) {
                let known = &self.backends[incarnation];
                if known.target.spec == target.spec {
                    continue;
                }
                observed = known.machine.observed().clone();
                self.backends.remove(incarnation);
            }
            self.add(key, target, observed, now);
        }
        self.incarnations.retain(|key, incarnation| {
            let keep = wanted.contains(key);
            if !keep {
                self.backends.remove(incarnation);
            }
            keep
        });
        self.stats.keep_answers_of(targets);
    }

    fn add(&mut self, key: Key, target: &Target, observed: Observed, now: Instant) {
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        let backend = Backend {
            target: Arc::new(target.clone()),
            machine: HealthMachine::new(&target.spec, observed),
            schedule: Schedule::new(&key, target.spec.interval),
            began: now,
            under_way: None,
        };
        self.backends.insert(incarnation, backend);
        self.incarnations.insert(key, incarnation);
        self.plan_next(incarnation, now);
    }

    /// Enters when the backend's next probe is due.
    fn plan_next(&mut self, incarnation: Incarnation, now: Instant) {
        if let Some(backend) = self.backends.get_mut(&incarnation) {
            let at = backend.began + backend.schedule.next_wait(&mut self.rng);
            self.due.push(Reverse((at.max(now), incarnation)));
        }
    }

    /// When there is something to begin; `None` while nothing can be.
    fn next_deadline(&self) -> Option<Instant> {
        let Reverse((at, _)) = self.due.peek()?;
        (self.under_way.len() < MAX_UNDER_WAY).then_some(*at)
    }

    /// Begins all probes that are due, as far as there is room.
    fn begin_due(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let Some(Reverse((at, incarnation))) = self.due.pop() else {
                return;
            };
            let Some(backend) = self.backends.get_mut(&incarnation) else {
                continue;
            };
            if now - at > LATE {
                self.stats.count_late();
            }
            backend.began = now;
            let attempt = (self.probe)(Arc::clone(&backend.target));
            let handle = self.under_way.spawn(async move {
                let began = Instant::now();
                let result = attempt.await;
                Attempt {
                    result,
                    took: began.elapsed(),
                }
            });
            self.probed_by.insert(handle.id(), incarnation);
            backend.under_way = Some(handle);
        }
    }

    /// Takes in the end of a probe; answers with the change it made.
    fn on_end(
        &mut self,
        ended: Result<(Id, Attempt), JoinError>,
        now: Instant,
    ) -> Option<HealthEvent> {
        let (id, attempt) = match ended {
            Ok((id, attempt)) => (id, attempt),
            Err(error) => (
                error.id(),
                Attempt {
                    took: Duration::ZERO,
                    result: Err(ProbeFailure::Aborted(error)),
                },
            ),
        };
        let incarnation = self.probed_by.remove(&id)?;
        // Of a backend that is gone, the result counts for nothing.
        let backend = self.backends.get_mut(&incarnation)?;
        backend.under_way = None;
        self.plan_next(incarnation, now);
        self.stats.count(&attempt.result);
        self.judge(incarnation, attempt, now)
    }

    fn judge(
        &mut self,
        incarnation: Incarnation,
        attempt: Attempt,
        now: Instant,
    ) -> Option<HealthEvent> {
        let backend = self.backends.get_mut(&incarnation)?;
        let target = &backend.target;
        if let Err(failure) = &attempt.result
            && !failure.blames_backend()
        {
            let quiet = self
                .complained
                .is_some_and(|last| now - last < COMPLAIN_EVERY);
            if !quiet {
                self.complained = Some(now);
                tracing::warn!(
                    service = target.service, backend = %target.address,
                    "cannot probe, so that the backend's health stays as it was: {failure}",
                );
            }
            return None;
        }
        if attempt.result.is_ok() {
            self.stats.note_answer(target, attempt.took);
        }
        let outcome = ProbeOutcome {
            result: attempt.result.map_err(|failure| failure.to_string()),
            took: attempt.took,
        };
        let change = backend.machine.on_outcome(&outcome, SystemTime::now())?;
        tracing::info!(
            service = target.service, backend = %target.address, id = %target.id,
            from = change.from.name(), to = change.to.name(), "health changed: {}", change.reason,
        );
        Some(HealthEvent {
            service: target.service.clone(),
            id: target.id.clone(),
            address: target.address,
            observed: change.to,
            previous: change.from,
            took: outcome.took,
        })
    }
}

#[cfg(test)]
mod tests;
