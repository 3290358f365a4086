//! From what is wanted to what the kernel does: the only writer of both.
//!
//! One task owns everything. Whatever happens (a new catalog, a probe's verdict, a command, a
//! deadline) becomes a new [`Snapshot`](crate::domain::snapshot::Snapshot), the snapshot a plan,
//! the plan steps in the kernel. A full start and a single change take the same way.
//!
//! - [`handle`]: how everybody else (API, metrics, tests) asks and commands.
//! - `desired`: the facts, and the snapshot made of them.
//! - `drains`: what a person takes out, and when that ends.
//! - `drift`: the kernel compared with what was written there. `explain`: why a weight is what it is.
//! - `author`: who gave an order.
//! - `due`: what comes by itself when its time has come.
//! - `reconcile`: the kernel's side: mirror, plan, steps, counters.
//! - `shifts`: splits that are shifted, watched and given back.
//! - `blocks`: the block list. `fleet`: what counts on every node. `report`: answers to questions.
//! - `reload`: the configuration, read again.

mod author;
mod blocks;
mod desired;
mod drains;
mod drift;
mod due;
mod explain;
mod fleet;
pub mod handle;
mod reconcile;
mod reload;
mod report;
mod setup;
mod shifts;
mod steady;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use tracing::info;

pub use self::{
    blocks::{BlockOrder, Blocked, Blocks},
    drains::DrainView,
    handle::{
        BackendCounters, BlockEntry, Command, Counters, FlowTableUse, Handle, InterfaceStatus,
        LocalClientsStatus, Names, OperatorError, Reply, Status,
    },
    setup::{Channels, Setup},
};
use self::{desired::Desired, reconcile::Reconciler};
use crate::{
    domain::kernel::{Kernel, KernelError},
    probe::HealthEvent,
    state::{PersistedState, Unlisted},
};

/// How often the kernel is compared with what is wanted without a reason.
const TICK: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Controller<K> {
    kernel: Reconciler<K>,
    desired: Desired,
    blocks: Blocks,
    setup: Setup,
    channels: Channels,
    started: SystemTime,
    /// A reload that failed, until one succeeds.
    reload_problem: Option<String>,
    /// VIPs are announced, where they are to be.
    announcing: bool,
    comparison: drift::Comparison,
}

impl<K: Kernel> Controller<K> {
    /// Takes over what the kernel holds and brings it to the last known good state.
    ///
    /// # Errors
    ///
    /// The kernel cannot be read.
    pub async fn start(kernel: K, setup: Setup, channels: Channels) -> Result<Self, KernelError> {
        let mut kernel = Reconciler::adopt(kernel)?;
        let now = SystemTime::now();
        let blocks = Blocks::restore(&mut kernel.kernel, &setup.state, &setup.config.allow, now)?;
        let mut desired = Desired::new(&setup.config, &setup.state);
        desired.distrust_emptiness(|spec| kernel.serves(spec));
        let mut controller = Self {
            kernel,
            desired,
            blocks,
            setup,
            channels,
            started: now,
            reload_problem: None,
            announcing: true,
            comparison: drift::Comparison::default(),
        };
        let catalog = controller.channels.catalog.borrow_and_update().clone();
        controller.desired.set_catalog(catalog);
        // Before the first VIP is written: a drained node stays silent.
        controller.announce_or_not(now)?;
        controller.reconcile().await;
        Ok(controller)
    }

    /// Works until `shutdown` completes or nobody is left to command. Leaves the kernel as it
    /// is: traffic goes on.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let part = self.setup.config.node.drift_check / drift::PARTS;
        let mut compare = tokio::time::interval_at(tokio::time::Instant::now() + part, part);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.sleep_until_deadline();
            tokio::select! {
                () = &mut shutdown => break,
                command = self.channels.commands.recv() => match command {
                    Some(command) => self.carry_out_by(command).await,
                    None => break,
                },
                Ok(()) = self.channels.catalog.changed() => {
                    let catalog = self.channels.catalog.borrow_and_update().clone();
                    if self.desired.set_catalog(catalog) {
                        self.follow().await;
                    }
                }
                Ok(()) = self.channels.proxy.changed() => {
                    let report = self.channels.proxy.borrow_and_update().clone();
                    self.desired.set_proxy(report);
                    self.follow().await;
                }
                Some(event) = self.channels.health.recv() => {
                    self.note_health(event);
                    while let Ok(event) = self.channels.health.try_recv() {
                        self.note_health(event);
                    }
                    self.follow().await;
                }
                Ok(()) = self.channels.census.changed() => {
                    let census = self.channels.census.borrow_and_update().clone();
                    self.kernel.set_census(census);
                    let failed = self.desired.note_signals(&self.kernel.signals(), steady::now());
                    let gated = self.desired.gated();
                    self.kernel.note_outcomes(&gated);
                    if failed || !gated.is_empty() {
                        self.follow().await;
                    }
                }
                () = deadline => self.expire().await,
                _ = compare.tick() => self.compare_next(),
                _ = tick.tick() => {
                    // Under a stream of commands the deadline never comes.
                    self.expire().await;
                    self.kernel.refresh_sources();
                    self.forget_maintained();
                    self.follow().await;
                }
            }
        }
        info!("the controller stops; the programs stay and traffic goes on");
    }

    fn note_health(&mut self, event: HealthEvent) {
        self.desired.note_probe(event, steady::now());
    }

    /// Makes a snapshot of the facts and brings the kernel there.
    async fn reconcile(&mut self) {
        self.desired.touch_all();
        self.follow().await;
    }

    /// The same where nothing has changed but what the facts have noted themselves: listings, and
    /// verdicts of probes.
    async fn follow(&mut self) {
        let now = steady::now();
        let mut changed = self.desired.rebuild(now);
        let returns = self.desired.returns.clone();
        // A step changes what is seen, and opens a window of its own.
        while self.steer(now) {
            changed |= self.desired.rebuild(now);
        }
        if let Some(topics) = self.desired.new_topics() {
            self.channels.topics.send_if_modified(|known| {
                let changed = *known != topics;
                *known = topics;
                changed
            });
        }
        if changed {
            if self.desired.returns != returns {
                self.save();
                self.wait_for_disk().await;
            }
            let snapshot = self.desired.snapshot();
            self.channels.snapshots.send_replace(snapshot);
        }
        let snapshot = self.desired.snapshot();
        self.follow_fleet();
        self.kernel.bring_to(&snapshot).await;
        if changed {
            // Clients first.
            self.save();
        }
        self.kernel.close_gone(&snapshot);
    }

    fn save(&mut self) {
        let state = PersistedState {
            splits: self.desired.splits.clone(),
            fallbacks: self.desired.fallbacks.clone(),
            shifts: self.desired.shifts_to_save(),
            drains: self.desired.drains.clone(),
            maintenance: self.desired.maintenance.clone(),
            node_drain: self.desired.node_drain.clone(),
            blocks: self.blocks.rules().operator().cloned().collect(),
            imported: self.blocks.rules().imported().clone(),
            unlisted: Unlisted {
                list: self.blocks.rules().imported().id,
                prefixes: self.blocks.rules().unlisted().collect(),
            },
            allowed: self.blocks.allowed().clone(),
            catalog: self.desired.admitted(),
            down: self.desired.down(),
            entries: self.desired.entries.clone(),
            keys: self.desired.keys.clone(),
            authors: self.desired.authors.clone(),
        };
        self.channels.state.send_if_modified(|saved| {
            let changed = *saved != state;
            if changed {
                *saved = state;
            }
            changed
        });
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::SplitSet(service, shares, reply) => {
                let answer = self.set_split(&service, shares).await;
                respond(reply, answer.and_then(|split| split.ok_or_else(vanished)));
            }
            Command::SplitReset(service, reply) => {
                respond(reply, self.reset_split(&service).await);
            }
            Command::Shift(service, order, reply) => {
                respond(reply, self.shift(&service, &order).await);
            }
            Command::Promote(service, reply) => respond(reply, self.promote(&service).await),
            Command::Rollback(service, reply) => respond(reply, self.roll_back(&service).await),
            Command::Acknowledge(service, reply) => {
                respond(reply, self.acknowledge(&service).await);
            }
            Command::PutDtab(dentries, version, reply) => {
                respond(reply, self.put_dtab(dentries, version).await);
            }
            Command::Drain(service, backend, order, reply) => {
                let answer = self.drain(&service, &backend, order).await;
                respond(reply, answer);
            }
            Command::Undrain(service, backend, reply) => {
                respond(reply, self.undrain(&service, &backend).await);
            }
            Command::DrainNode(order, grace, reply) => {
                respond(reply, Ok(self.drain_node(order, grace)));
            }
            Command::UndrainNode(reply) => respond(reply, self.undrain_node()),
            Command::DrainView(service, backend, reply) => {
                respond(reply, self.drain_view(&service, &backend));
            }
            Command::NodeDrain(reply) => respond(reply, Ok(self.desired.node_drain.clone())),
            Command::BlockAdd(prefixes, order, reply) => {
                let (vital, now) = (self.vital(), SystemTime::now());
                let kernel = &mut self.kernel.kernel;
                let answer = self.blocks.add(kernel, &prefixes, &order, &vital, now);
                self.save();
                respond(reply, answer);
            }
            Command::BlockImport(prefixes, order, replace, reply) => {
                let (vital, now) = (self.vital(), SystemTime::now());
                let kernel = &mut self.kernel.kernel;
                let blocks = &mut self.blocks;
                let answer = blocks.import(kernel, &prefixes, &order, replace, &vital, now);
                self.save();
                respond(reply, answer);
            }
            Command::Allow(prefixes, reply) => {
                let kernel = &mut self.kernel.kernel;
                let answer = self.blocks.allow(kernel, &prefixes, SystemTime::now());
                self.save();
                respond(reply, answer);
            }
            Command::Disallow(prefixes, reply) => {
                let answer = self.blocks.disallow(&mut self.kernel.kernel, &prefixes);
                self.save();
                respond(reply, answer);
            }
            Command::AllowList(reply) => respond(reply, Ok(self.blocks.exceptions())),
            Command::BlockDel(prefixes, reply) => {
                let answer = self.blocks.remove(&mut self.kernel.kernel, &prefixes);
                self.save();
                respond(reply, answer);
            }
            Command::BlockList(after, most, reply) => {
                respond(reply, self.blocks.list(&self.kernel.kernel, after, most));
            }
            Command::BlockTop(most, reply) => {
                respond(reply, self.blocks.top(&self.kernel.kernel, most));
            }
            Command::BlockLeaders(most, reply) => {
                respond(reply, self.blocks.leaders(&self.kernel.kernel, most));
            }
            Command::Fleet(question) => self.answer(question),
            // Who gave it was noted before; nobody gives a command by two persons.
            Command::By(_, command) => drop(command),
            Command::Explain(subject, reply) => {
                let answer = self.explain(&subject);
                respond(reply, answer);
            }
            Command::Status(reply) => {
                self.compare_all();
                let status = self.status();
                respond(reply, status);
            }
            Command::Counters(reply) => {
                let counters = self.counters(None);
                respond(reply, counters);
            }
            Command::CountersOf(service, reply) => {
                let counters = self.counters(Some(&service));
                respond(reply, counters);
            }
            Command::Names(reply) => respond(reply, Ok(self.kernel.names())),
            Command::Signals(signals, reply) => {
                let news = self.desired.note_signals(&signals, steady::now());
                if news {
                    self.follow().await;
                }
                respond(reply, Ok(()));
            }
            Command::Alive(reply) => respond(reply, Ok(())),
            Command::History(of, reply) => {
                respond(reply, self.desired.history(of.as_deref()));
            }
            Command::Reload(reply) => {
                let answer = self.reload().await;
                respond(reply, answer);
            }
        }
    }

    /// Reconciles, and answers only when the kernel follows.
    async fn after_change<T>(
        &mut self,
        service: &str,
        read: impl FnOnce(&Desired, &str) -> T,
    ) -> Result<T, OperatorError> {
        self.reconcile().await;
        match self.kernel.last_error() {
            Some(error) => Err(OperatorError::Failed(format!(
                "it is noted, but the kernel does not follow yet: {error}"
            ))),
            None => Ok(read(&self.desired, service)),
        }
    }
}

fn vanished() -> OperatorError {
    OperatorError::Failed("the service vanished meanwhile".into())
}

/// Answers; whoever asked may have gone away, which is no error of ours.
fn respond<T>(reply: Reply<T>, answer: Result<T, OperatorError>) {
    let _ = reply.send(answer);
}
