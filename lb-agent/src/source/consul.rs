//! Follows topics (services, configuration entries, keys) in Consul: one watch each, all into one
//! [`CatalogState`].
//!
//! Watches hold a question open at Consul and cost a connection each. Consul resets what goes
//! beyond its limit per client, so only so many topics have a watch; the others are asked in
//! turn, and at once where a question that Consul holds tells that they have changed. Nothing here judges what an answer means: an empty list is passed on as an empty list.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use super::consul_client::{Client, SLACK};
pub use super::consul_options::{ConsulOptions, InvalidOptions};
use crate::domain::sync::{CatalogState, Topic};
use follow::{Event, Follower, Mode};
use news::News;
use seats::{Move, Seats};
use teller::{Question, Teller, Told};

mod follow;
mod news;
mod record;
mod seats;
mod teller;

/// The numbers that shape the traffic to Consul.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Topics with a watch. Consul allows 200 connections per client address; the rest is left
    /// to polls, to other watches and to whoever else runs on this node.
    watches: usize,
    /// Questions of polls under way at once.
    polls: usize,
    /// From one poll of a topic to the next.
    poll_period: Duration,
    /// The same of what is only glanced at.
    glance_period: Duration,
    /// Whether it is asked what tells of changes of those polled.
    tellers: bool,
    /// For how long what changes nothing (times, counts), and the log, may be kept back.
    flush: Duration,
    /// By how much an answer that Consul holds may be late.
    slack: Duration,
}

const LIMITS: Limits = Limits {
    watches: 128,
    polls: 8,
    poll_period: Duration::from_secs(5),
    glance_period: Duration::from_secs(10),
    tellers: true,
    flush: Duration::from_secs(1),
    slack: SLACK,
};

/// Follows `topics` (which may change at any time) until `shutdown`, and
/// publishes what Consul lists of them in `out`: at once where values or errors change, within
/// a second where only times and counts do.
///
/// A topic that is withdrawn loses what is known of it. One that Consul cannot be asked about
/// keeps its last answer; its [`WatchStatus`](crate::domain::sync::WatchStatus) says what is wrong. Failures are retried for ever.
///
/// # Errors
///
/// The options are unusable, before anything was asked.
pub async fn run(
    options: ConsulOptions,
    topics: watch::Receiver<BTreeSet<Topic>>,
    out: watch::Sender<Arc<CatalogState>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), InvalidOptions> {
    run_with(options, topics, out, shutdown, LIMITS).await
}

async fn run_with(
    options: ConsulOptions,
    mut topics: watch::Receiver<BTreeSet<Topic>>,
    out: watch::Sender<Arc<CatalogState>>,
    shutdown: impl Future<Output = ()>,
    limits: Limits,
) -> Result<(), InvalidOptions> {
    let (events_in, mut events) = mpsc::channel(EVENTS);
    let (telling, mut tidings) = mpsc::channel(8);
    let mut source = Source {
        client: Client::new(&options, limits.slack)?,
        limits,
        polls: Arc::new(Semaphore::new(limits.polls)),
        seats: Seats::new(limits.watches),
        followers: BTreeMap::new(),
        tellers: BTreeMap::new(),
        told: Arc::default(),
        telling,
        events: events_in,
        news: News::default(),
        state: Arc::default(),
        out,
    };
    let mut flush = interval(limits.flush);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unpublished = false;
    let mut batch = Vec::with_capacity(EVENTS);
    let mut shutdown = pin!(shutdown);

    let wanted = topics.borrow_and_update().clone();
    source.arrange(&wanted);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            // An error means that nobody can change the names any more; those known stay.
            Ok(()) = topics.changed() => {
                let wanted = topics.borrow_and_update().clone();
                source.arrange(&wanted);
            }
            _ = events.recv_many(&mut batch, EVENTS) => {
                let mut urgent = false;
                for event in batch.drain(..) {
                    urgent |= source.take(event);
                }
                if urgent {
                    source.publish();
                }
                unpublished = !urgent;
            }
            Some((question, told)) = tidings.recv() => source.hear(question, told),
            _ = flush.tick(), if unpublished || source.news.any() => {
                if std::mem::take(&mut unpublished) {
                    source.publish();
                }
                source.tell();
            }
        }
    }
}

/// Answers that may wait to be recorded, and the most that are published together.
const EVENTS: usize = 256;

/// Everything that is known and everyone who asks.
struct Source {
    client: Client,
    limits: Limits,
    polls: Arc<Semaphore>,
    seats: Seats,
    followers: BTreeMap<Topic, Following>,
    /// Each with whether it is answered.
    tellers: BTreeMap<Question, (Task, bool)>,
    /// All tellers are answered.
    told: Arc<AtomicBool>,
    telling: mpsc::Sender<(Question, Told)>,
    events: mpsc::Sender<Event>,
    news: News,
    /// Shared with `out` between two changes.
    state: Arc<CatalogState>,
    out: watch::Sender<Arc<CatalogState>>,
}

/// A follower, and how to have it ask at once if it polls.
struct Following {
    _task: Task,
    news: Option<Arc<Notify>>,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Source {
    /// Starts and stops followers until they are those wanted.
    fn arrange(&mut self, wanted: &BTreeSet<Topic>) {
        let mut dropped = false;
        for step in self.seats.arrange(wanted) {
            match step {
                Move::Stop(topic) => {
                    self.followers.remove(&topic);
                    record::forget(Arc::make_mut(&mut self.state), &topic);
                    dropped = true;
                }
                Move::Watch(topic) => self.follow(topic, Mode::Watch),
                Move::Poll(topic) => {
                    // What happens elsewhere is not told here.
                    let elsewhere = matches!(
                        &topic,
                        Topic::Instances {
                            datacenter: Some(_),
                            ..
                        }
                    );
                    let mode = Mode::Poll {
                        turns: self.polls.clone(),
                        news: Arc::default(),
                        told: match elsewhere {
                            true => Arc::default(),
                            false => self.told.clone(),
                        },
                        period: match topic {
                            Topic::Glance(_) => self.limits.glance_period,
                            _ => self.limits.poll_period,
                        },
                    };
                    self.follow(topic, mode);
                }
            }
        }
        self.arrange_tellers();
        if dropped {
            self.publish();
        }
    }

    /// Has changes told as long as anything is polled.
    fn arrange_tellers(&mut self) {
        let polls = self.followers.values().any(|one| one.news.is_some());
        if !polls || !self.limits.tellers {
            self.tellers.clear();
            self.told.store(false, Ordering::Relaxed);
            return;
        }
        for question in Question::ALL {
            let (client, out) = (self.client.clone(), self.telling.clone());
            self.tellers.entry(question).or_insert_with(|| {
                let teller = Teller {
                    client,
                    question,
                    out,
                };
                (Task(tokio::spawn(teller.run())), false)
            });
        }
    }

    /// Has those polled ask at once of which something is told.
    fn hear(&mut self, question: Question, told: Told) {
        let Some((_, answered)) = self.tellers.get_mut(&question) else {
            return;
        };
        *answered = told != Told::Silence;
        let all = self.tellers.values().all(|(_, answered)| *answered);
        self.told.store(all, Ordering::Relaxed);
        let concerned = |topic: &Topic| match (&told, topic) {
            (Told::Nothing, _) => false,
            (Told::Services(names), Topic::Instances { service, .. } | Topic::Glance(service)) => {
                names.contains(service)
            }
            (Told::Services(_), _) => false,
            // Whoever is silent now may have been so for a while.
            (Told::Anything | Told::Silence, _) => true,
        };
        for (topic, following) in &self.followers {
            if let Some(news) = following.news.as_ref().filter(|_| concerned(topic)) {
                news.notify_one();
            }
        }
    }

    /// Follows a topic in this mode, no longer in another.
    fn follow(&mut self, topic: Topic, mode: Mode) {
        let news = match &mode {
            Mode::Watch => None,
            Mode::Poll { news, .. } => Some(news.clone()),
        };
        let follower = Follower {
            client: self.client.clone(),
            topic: topic.clone(),
            mode,
            events: self.events.clone(),
        };
        let task = Task(tokio::spawn(follower.run()));
        self.followers
            .insert(topic, Following { _task: task, news });
    }

    /// Records what a follower found out; `true` if others need to know at once.
    fn take(&mut self, event: Event) -> bool {
        let Event { topic, outcome } = event;
        // It may have been on its way when its follower was stopped.
        if !self.followers.contains_key(&topic) {
            return false;
        }
        let change = record::record(
            Arc::make_mut(&mut self.state),
            &topic,
            outcome,
            SystemTime::now(),
        );
        if let Some(error) = &change.error {
            debug!(%topic, error, "watch");
            self.news.note(&topic.to_string(), error.as_deref());
        }
        if let Some(values) = change.values {
            debug!(%topic, values, "what Consul lists has changed");
        }
        change.error.is_some() || change.values.is_some()
    }

    /// Logs which watches began to fail, and which work again.
    fn tell(&mut self) {
        let (failed, recovered) = self.news.take();
        if let Some(failed) = failed {
            warn!("{failed}");
        }
        if let Some(recovered) = recovered {
            info!("{recovered}");
        }
    }

    fn publish(&self) {
        self.out.send_replace(self.state.clone());
    }
}

#[cfg(test)]
mod tests;
