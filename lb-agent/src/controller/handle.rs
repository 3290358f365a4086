//! The controller as others see it: a handle with questions and commands.

mod answer;
mod drains;
mod explain;
mod splits;

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use lb_common::entry::Counter;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::answer::{
    BackendCounters, BlockEntry, Counters, FlowTableUse, InterfaceStatus, LocalClientsStatus,
    Names, Status,
};
use super::{
    blocks::{BlockOrder, Blocked},
    drains::DrainView,
    fleet::FleetQuestion,
};
use crate::domain::{
    author::Author,
    backend::InstanceId,
    block::Exception,
    drain::{DrainOrder, NodeDrain},
    dtab::Dentry,
    explain::{Explained, Subject},
    history::Change,
    shift::{InvalidShift, ShiftOrder, ShiftState},
    signal::Signal,
    snapshot::Snapshot,
    split::{ActiveSplit, Shares},
};

/// Why a command was not carried out. The text is a sentence for the person who gave it.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// There is no such service.
    #[error("there is no service `{name}`; {}", known_services(.known))]
    UnknownService {
        /// As given.
        name: String,
        /// The services there are.
        known: Vec<String>,
    },
    /// The service has no such backend.
    #[error(
        "service `{service}` has no backend `{name}`; `lb-agent backend list {service}` shows them"
    )]
    UnknownBackend {
        /// The service.
        service: String,
        /// As given.
        name: String,
    },
    /// The service has no such subset.
    #[error("service `{service}` has no subset `{name}`; it has {}", list_or_none(.known))]
    UnknownSubset {
        /// The service.
        service: String,
        /// As given.
        name: String,
        /// The subsets there are.
        known: Vec<String>,
    },
    /// Neither a service nor a backend.
    #[error(
        "there is no service and no backend `{0}`, and none is remembered; `lb-agent backend list` \
         shows them"
    )]
    UnknownSubject(String),
    /// Nothing to explain.
    #[error("{0}")]
    NothingThere(String),
    /// No such rule on the block list.
    #[error("{0} is not on the block list; `lb-agent block list` shows what is")]
    NotBlocked(IpNet),
    /// No such exception on the allow list.
    #[error("{0} is not on the allow list; `lb-agent block allow list` shows what is")]
    NotAllowed(IpNet),
    /// A shift that cannot be.
    #[error(transparent)]
    Shift(#[from] InvalidShift),
    /// Somebody else was faster.
    #[error("the table has changed meanwhile: its version is {0} now; read it again")]
    Changed(String),
    /// Carrying it out would hurt the node itself.
    #[error("{0}")]
    Refused(String),
    /// The kernel or the disk refused.
    #[error("{0}")]
    Failed(String),
    /// The agent is on its way out.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

fn known_services(known: &[String]) -> String {
    format!("configured are {}", list_or_none(known))
}

fn list_or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// What can be asked of the controller. Each carries the way back for its answer.
#[derive(Debug)]
pub enum Command {
    /// Set the split of a service.
    SplitSet(String, Shares, Reply<ActiveSplit>),
    /// Forget the split set on the command line.
    SplitReset(String, Reply<Option<ActiveSplit>>),
    /// Shift traffic of a service to a subset, step by step.
    Shift(String, ShiftOrder, Reply<ShiftState>),
    /// Give the subset of a shift everything, for good.
    Promote(String, Reply<ShiftState>),
    /// End a shift: the last good shares count again.
    Rollback(String, Reply<Option<ActiveSplit>>),
    /// End a shift that was given back.
    Acknowledge(String, Reply<Option<ActiveSplit>>),
    /// Split services by a delegation table, if the present one has this version.
    PutDtab(Vec<Dentry>, Option<String>, Reply<()>),
    /// Take a backend (by id or address) out without cutting its connections.
    Drain(String, String, DrainOrder, Reply<InstanceId>),
    /// The reverse.
    Undrain(String, String, Reply<InstanceId>),
    /// Tell whoever sends traffic that the node is going away, with this grace until VIPs are no
    /// longer announced.
    DrainNode(DrainOrder, Duration, Reply<NodeDrain>),
    /// The reverse.
    UndrainNode(Reply<()>),
    /// How far a drained backend is.
    DrainView(String, String, Reply<DrainView>),
    /// How the node is drained, if it is.
    NodeDrain(Reply<Option<NodeDrain>>),
    /// About what counts for the whole fleet.
    Fleet(FleetQuestion),
    /// Add rules.
    BlockAdd(Vec<IpNet>, BlockOrder, Reply<Blocked>),
    /// Add the rules of a list, or (true) put them in the place of all imported ones.
    BlockImport(Vec<IpNet>, BlockOrder, bool, Reply<Blocked>),
    /// Remove rules.
    BlockDel(Vec<IpNet>, Reply<usize>),
    /// List so many rules, from behind this prefix on.
    BlockList(Option<IpNet>, usize, Reply<Vec<BlockEntry>>),
    /// The so many rules that dropped most.
    BlockTop(usize, Reply<Vec<(IpNet, Counter)>>),
    /// List so many rules, those that dropped most first.
    BlockLeaders(usize, Reply<Vec<BlockEntry>>),
    /// Except prefixes from the block list; the answer says what that overrides.
    Allow(Vec<IpNet>, Reply<Vec<String>>),
    /// Take exceptions back.
    Disallow(Vec<IpNet>, Reply<usize>),
    /// List exceptions.
    AllowList(Reply<Vec<Exception>>),
    /// Another command, by this person.
    By(Author, Box<Command>),
    /// Why backends have their weights, and what the kernel holds.
    Explain(Subject, Reply<Vec<Explained>>),
    /// The agent at this moment.
    Status(Reply<Status>),
    /// Counters by service name, backend id and address.
    Counters(Reply<Counters>),
    /// The same of one service only.
    CountersOf(String, Reply<Counters>),
    /// What the kernel's ids stand for.
    Names(Reply<Names>),
    /// Read the configuration again.
    Reload(Reply<()>),
    /// Take in what has become of requests to backends.
    Signals(Vec<Signal>, Reply<()>),
    /// Answer, which shows that commands are still carried out.
    Alive(Reply<()>),
    /// Tell what has happened to backends.
    History(Option<String>, Reply<Vec<Change>>),
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, OperatorError>>;

/// Asks and commands the controller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    author: Option<Author>,
}

impl Handle {
    /// A handle to whoever receives from the other end of `commands`.
    pub fn new(commands: mpsc::Sender<Command>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self {
            commands,
            snapshots,
            author: None,
        }
    }

    /// The desired state at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A receiver that sees every later snapshot (or the latest of several).
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, OperatorError> {
        let (reply, answer) = oneshot::channel();
        let command = match &self.author {
            Some(author) => Command::By(author.clone(), Box::new(command(reply))),
            None => command(reply),
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| OperatorError::ShuttingDown)?;
        answer.await.map_err(|_| OperatorError::ShuttingDown)?
    }

    /// Adds rules to the block list; answers when the kernel drops by them.
    pub async fn block_add(
        &self,
        prefixes: Vec<IpNet>,
        order: BlockOrder,
    ) -> Result<Blocked, OperatorError> {
        self.ask(|reply| Command::BlockAdd(prefixes, order, reply))
            .await
    }

    /// Adds the rules of a list, or puts them in the place of all imported ones; answers when the
    /// kernel drops by them.
    pub async fn block_import(
        &self,
        prefixes: Vec<IpNet>,
        order: BlockOrder,
        replace: bool,
    ) -> Result<Blocked, OperatorError> {
        self.ask(|reply| Command::BlockImport(prefixes, order, replace, reply))
            .await
    }

    /// Removes rules; answers with their number. All or none.
    pub async fn block_del(&self, prefixes: Vec<IpNet>) -> Result<usize, OperatorError> {
        self.ask(|reply| Command::BlockDel(prefixes, reply)).await
    }

    /// The `most` rules that follow `after` (or the first ones) with their counters.
    pub async fn block_list(
        &self,
        after: Option<IpNet>,
        most: usize,
    ) -> Result<Vec<BlockEntry>, OperatorError> {
        self.ask(|reply| Command::BlockList(after, most, reply))
            .await
    }

    /// The `most` rules that dropped most.
    pub async fn block_top(&self, most: usize) -> Result<Vec<(IpNet, Counter)>, OperatorError> {
        self.ask(|reply| Command::BlockTop(most, reply)).await
    }

    /// `most` rules with their counters, those that dropped most first.
    pub async fn block_leaders(&self, most: usize) -> Result<Vec<BlockEntry>, OperatorError> {
        self.ask(|reply| Command::BlockLeaders(most, reply)).await
    }

    /// Excepts prefixes from the block list; answers with what that overrides.
    pub async fn allow(&self, prefixes: Vec<IpNet>) -> Result<Vec<String>, OperatorError> {
        self.ask(|reply| Command::Allow(prefixes, reply)).await
    }

    /// Takes exceptions back; answers with their number. All or none.
    pub async fn disallow(&self, prefixes: Vec<IpNet>) -> Result<usize, OperatorError> {
        self.ask(|reply| Command::Disallow(prefixes, reply)).await
    }

    /// All exceptions from the block list.
    pub async fn allow_list(&self) -> Result<Vec<Exception>, OperatorError> {
        self.ask(Command::AllowList).await
    }

    /// The agent at this moment.
    pub async fn status(&self) -> Result<Status, OperatorError> {
        self.ask(Command::Status).await
    }

    /// Tells what has become of requests to backends, by which they are ejected. To be called every
    /// few seconds rather than for each request.
    pub async fn report(&self, signals: Vec<Signal>) -> Result<(), OperatorError> {
        self.ask(|reply| Command::Signals(signals, reply)).await
    }

    /// Answers when the controller has come round to it, with all that was asked before.
    pub async fn alive(&self) -> Result<(), OperatorError> {
        self.ask(Command::Alive).await
    }

    /// What has happened to the backends, oldest first: of a service, of one backend by its id or
    /// address, or of all.
    pub async fn history(&self, of: Option<&str>) -> Result<Vec<Change>, OperatorError> {
        let of = of.map(str::to_owned);
        self.ask(|reply| Command::History(of, reply)).await
    }

    /// Counters at this moment.
    pub async fn counters(&self) -> Result<Counters, OperatorError> {
        self.ask(Command::Counters).await
    }

    /// Counters of one service and its backends at this moment; none if there is no such service.
    pub async fn counters_of(&self, service: &str) -> Result<Counters, OperatorError> {
        let service = service.to_owned();
        self.ask(|reply| Command::CountersOf(service, reply)).await
    }

    /// What the kernel's ids stand for at this moment.
    pub async fn names(&self) -> Result<Names, OperatorError> {
        self.ask(Command::Names).await
    }

    /// Reads the configuration again; an invalid one changes nothing.
    pub async fn reload(&self) -> Result<(), OperatorError> {
        self.ask(Command::Reload).await
    }
}
