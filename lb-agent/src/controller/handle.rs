//! The controller as others see it: a handle with questions and commands.

mod splits;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use lb_common::{entry::Counter, socket::SocketStats, verdict::Verdict};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    blocks::{BlockOrder, Blocked},
    fleet::FleetQuestion,
};
use crate::domain::{
    backend::InstanceId,
    block::{BlockRule, Exception},
    dtab::Dentry,
    shift::{InvalidShift, ShiftOrder, ShiftState},
    snapshot::Snapshot,
    split::{ActiveSplit, Shares},
    sync::WatchStatus,
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

/// A rule with what it has caught.
#[derive(Clone, Debug)]
pub struct BlockEntry {
    /// The rule.
    pub rule: BlockRule,
    /// Packets and bytes dropped by it since it was added.
    pub dropped: Counter,
}

/// An interface that the programs run on.
#[derive(Clone, Debug)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// Whether the program was taken over from a former agent.
    pub adopted: bool,
}

/// Local clients: processes whose calls to VIPs are sent to backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalClientsStatus {
    /// Directory of the cgroup that they are in.
    pub cgroup: PathBuf,
    /// Whether the programs were taken over from a former agent.
    pub adopted: bool,
    /// Connections and conversations sent to a backend, and calls refused for want of one.
    pub stats: SocketStats,
}

/// How full a flow table is.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowTableUse {
    /// Slots in the table.
    pub slots: u64,
    /// Slots in use, by the name of [`lb_common::flow::State`]; a flow takes two.
    pub used: [u64; 9],
}

/// Counters of one backend of one service since the agent's maps were created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// From clients.
    pub inbound: Counter,
    /// To clients.
    pub outbound: Counter,
    /// Flows created.
    pub flows: u64,
    /// Flows that exist now.
    pub live_flows: u64,
}

/// The agent at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Version of the desired state.
    pub version: u64,
    /// When the agent started.
    pub started: SystemTime,
    /// The interfaces in use.
    pub interfaces: Vec<InterfaceStatus>,
    /// Where local clients are served, if anywhere.
    pub local_clients: Option<LocalClientsStatus>,
    /// The Consul address, where Consul is configured.
    pub consul: Option<String>,
    /// State of each watch.
    pub watches: BTreeMap<String, WatchStatus>,
    /// IPv4 flow table.
    pub flows4: FlowTableUse,
    /// IPv6 flow table.
    pub flows6: FlowTableUse,
    /// Flows that gave way to newer ones.
    pub evictions: lb_common::entry::EvictionStats,
    /// Packets by verdict, summed over CPUs.
    pub verdicts: Vec<(Verdict, Counter)>,
    /// Rules on the block list.
    pub blocks: usize,
    /// What a person should know: each a sentence. Not empty means unhealthy.
    pub problems: Vec<String>,
    /// Seconds that the last and all rebuilds of Maglev tables took, and their number.
    pub maglev_rebuilds: (Duration, Duration, u64),
    /// Time from a command's or a change's arrival to the kernel's maps, of the last apply.
    pub last_apply: Duration,
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
    Drain(String, String, Reply<InstanceId>),
    /// The reverse.
    Undrain(String, String, Reply<InstanceId>),
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
    /// Except prefixes from the block list; the answer says what that overrides.
    Allow(Vec<IpNet>, Reply<Vec<String>>),
    /// Take exceptions back.
    Disallow(Vec<IpNet>, Reply<usize>),
    /// List exceptions.
    AllowList(Reply<Vec<Exception>>),
    /// The agent at this moment.
    Status(Reply<Status>),
    /// Counters by service name, backend id and address.
    Counters(Reply<Counters>),
    /// What the kernel's ids stand for.
    Names(Reply<Names>),
    /// Read the configuration again.
    Reload(Reply<()>),
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, OperatorError>>;

/// What the kernel's ids stand for at one moment.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Service name and address of each backend id; those that only have flows left included.
    pub backends: BTreeMap<u32, (String, SocketAddr)>,
}

/// Counters of all backends, including those that vanished, by service.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Sum over all backends a service ever had, by service name.
    pub services: BTreeMap<String, BackendCounters>,
    /// How often each service's traffic was given back by itself, since the agent started.
    pub returns: BTreeMap<String, u64>,
    /// By service name and present backend.
    pub backends: BTreeMap<(String, InstanceId, SocketAddr), BackendCounters>,
}

/// Asks and commands the controller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    /// A handle to whoever receives from the other end of `commands`.
    pub fn new(commands: mpsc::Sender<Command>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self {
            commands,
            snapshots,
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
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| OperatorError::ShuttingDown)?;
        answer.await.map_err(|_| OperatorError::ShuttingDown)?
    }

    /// Takes a backend, named by id or address, out without cutting its connections.
    pub async fn drain(&self, service: &str, backend: &str) -> Result<InstanceId, OperatorError> {
        self.ask(|reply| Command::Drain(service.into(), backend.into(), reply))
            .await
    }

    /// Puts a drained backend back.
    pub async fn undrain(&self, service: &str, backend: &str) -> Result<InstanceId, OperatorError> {
        self.ask(|reply| Command::Undrain(service.into(), backend.into(), reply))
            .await
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

    /// Counters at this moment.
    pub async fn counters(&self) -> Result<Counters, OperatorError> {
        self.ask(Command::Counters).await
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
