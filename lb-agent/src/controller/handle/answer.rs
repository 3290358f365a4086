//! What the controller answers with.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use lb_common::{entry::Counter, flow::State, socket::SocketStats, verdict::Verdict};

use crate::{
    controller::drains::DrainView,
    domain::{
        backend::InstanceId, block::BlockRule, drain::NodeDrain, drift::DriftRecord,
        kernel::Attempts, registration::RegistrarStatus, sync::WatchStatus,
    },
};

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
    /// `native`, `generic` or `tc`.
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
    pub used: [u64; State::COUNT],
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
    /// TCP connections, by how the backend's host answered; a sample, since the agent started.
    pub attempts: Attempts,
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
    /// How the registration of containers stands, where there is any.
    pub docker: Option<RegistrarStatus>,
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
    /// How the node is drained, if it is.
    pub node_drain: Option<NodeDrain>,
    /// Backends that are drained.
    pub drains: Vec<DrainView>,
    /// What a person should know: each a sentence. Not empty means unhealthy.
    pub problems: Vec<String>,
    /// Where the kernel differed from what was written there, and was mended.
    pub drift: DriftRecord,
    /// Seconds that the last and all rebuilds of Maglev tables took, and their number.
    pub maglev_rebuilds: (Duration, Duration, u64),
    /// Time from a command's or a change's arrival to the kernel's maps, of the last apply.
    pub last_apply: Duration,
}

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
    /// Ejections since the agent started, by service.
    pub ejections: BTreeMap<String, u64>,
}
