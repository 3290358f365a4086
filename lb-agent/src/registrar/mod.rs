//! Registers the containers of the node's Docker engine in Consul, and keeps them registered.
//!
//! Nothing is done by what an event says, but that a container is told to stop, which nothing else
//! tells: it is put in maintenance then, so that it gets nothing new while it ends. All others only
//! say that it is time to look. What the engine
//! lists is translated into what is wanted, what Consul's agent holds is compared with that, and the
//! difference is carried out. So a start, a stop, a missed event, an engine that was restarted, a
//! Consul that was emptied and an agent that was away all take the same way.
//!
//! While the engine cannot be asked, what it said last counts: containers may outlive it. Before it
//! has said anything, nothing is changed. When the agent ends, everything stays registered.
//!
//! - `container`: what the engine says of a container. `event`: of what happens
//!   to one. `engine`: asks it.
//! - `metadata`, `check`, `translate`: labels and variables, and what they mean.
//! - `signal`: what ends a container.
//! - `registration`: what is registered. `diff`: what is to be done for that.
//! - `keep`: does it.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use self::{
    engine::{Engine, EngineError, Events},
    event::Event,
    keep::Keeper,
    translate::Rules,
};
use crate::{
    config::DockerConfig,
    domain::{backoff::full_jitter, registration::RegistrarStatus},
    source::consul_agent::AgentRegistry,
};

mod check;
mod container;
mod diff;
mod engine;
mod event;
mod keep;
mod metadata;
mod registration;
mod signal;
mod translate;

/// How long events are gathered before the engine is looked at: a container's start is several.
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks at Consul without a reason. Its agent is on the same node, as a rule.
const AUDIT: Duration = Duration::from_secs(5);

/// Which engine answers.
#[derive(Debug)]
pub struct EngineVersion {
    /// Of the program.
    pub engine: String,
    /// The newest of its API, as in `1.41`.
    pub api: String,
}

/// Why none does, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// Asks the engine behind a socket which it is.
///
/// # Errors
///
/// It cannot be asked.
pub async fn engine_version(socket: PathBuf) -> Result<EngineVersion, Unreachable> {
    let answer = Engine::new(socket).version().await;
    let (engine, api) = answer.map_err(|error| Unreachable(error.to_string()))?;
    Ok(EngineVersion { engine, api })
}

/// Follows the engine until `shutdown`, with ids that begin with `prefix`.
pub async fn run(
    config: DockerConfig,
    prefix: String,
    registry: AgentRegistry,
    status: watch::Sender<RegistrarStatus>,
    shutdown: impl Future<Output = ()>,
) {
    info!(
        socket = %config.socket.display(),
        prefix,
        "containers are registered in Consul"
    );
    let engine = Engine::new(config.socket);
    let rules = Rules {
        addresses: config.addresses,
        prefix,
        tags: config.tags,
        explicit: config.explicit,
    };
    let registrar = Registrar {
        keeper: Keeper::new(engine.clone(), registry, rules, status),
        engine,
        resync: config.resync,
        events: None,
        changed: BTreeSet::new(),
        look_at: Instant::now(),
        last_full: None,
        engine_failures: 0,
        audit_at: Instant::now() + AUDIT,
        consul_failures: 0,
    };
    tokio::select! {
        () = shutdown => {}
        () = registrar.follow() => {}
    }
}

/// When to look where.
struct Registrar {
    keeper: Keeper,
    engine: Engine,
    resync: Duration,
    /// `None`: not connected.
    events: Option<Events>,
    /// Containers that something has happened to.
    changed: BTreeSet<String>,
    /// When to look at the engine next.
    look_at: Instant,
    /// When everything was asked for last, over the present connection.
    last_full: Option<Instant>,
    engine_failures: u32,
    /// When to look at Consul next.
    audit_at: Instant,
    consul_failures: u32,
}

impl Registrar {
    async fn follow(mut self) {
        loop {
            tokio::select! {
                event = next(&mut self.events) => match event {
                    Ok(Event { container, signal }) => {
                        debug!(container, signal, "event");
                        if let Some(signal) = signal {
                            self.keeper.note_signal(&container, signal);
                        }
                        self.changed.insert(container);
                        self.look_at = self.look_at.min(Instant::now() + GATHER);
                    }
                    Err(error) => self.lose_engine(&error),
                },
                () = sleep_until(self.look_at) => {
                    if let Err(error) = self.look().await {
                        self.lose_engine(&error);
                    }
                }
                () = sleep_until(self.audit_at) => self.audit().await,
            }
        }
    }

    /// Looks at the engine, and has Consul follow.
    async fn look(&mut self) -> Result<(), EngineError> {
        if self.events.is_none() {
            // First the events, then the list, so that nothing happens in between unseen.
            self.events = Some(self.engine.events().await?);
            self.last_full = None;
        }
        let now = Instant::now();
        let full =
            self.changed.is_empty() || self.last_full.is_none_or(|last| now - last >= self.resync);
        let changed = std::mem::take(&mut self.changed);
        self.keeper.look((!full).then_some(&changed)).await?;
        if full {
            self.last_full = Some(now);
        }
        if self.engine_failures > 0 {
            info!("the Docker engine answers again");
            self.engine_failures = 0;
        }
        self.look_at = self.last_full.unwrap_or(now) + self.resync;
        self.audit_at = Instant::now();
        Ok(())
    }

    /// The engine stops, restarts or hangs: it is asked again after a while.
    fn lose_engine(&mut self, error: &EngineError) {
        if self.engine_failures == 0 {
            warn!("{error}");
        }
        self.engine_failures += 1;
        self.events = None;
        self.keeper.note_engine_error(error);
        self.look_at = Instant::now() + full_jitter(self.engine_failures, &mut rand::rng());
    }

    async fn audit(&mut self) {
        let agreed = self.keeper.repair().await;
        let wait = if agreed {
            self.consul_failures = 0;
            AUDIT
        } else {
            self.consul_failures += 1;
            full_jitter(self.consul_failures, &mut rand::rng())
        };
        self.audit_at = Instant::now() + wait;
    }
}

/// The next event; never, while there is no connection.
async fn next(events: &mut Option<Events>) -> Result<Event, EngineError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
