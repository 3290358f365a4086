//! What the kernel holds, as the control plane sees it, and how it is told to change.

mod census;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;
use lb_common::entry::{BackendStats, Counter};

pub use self::census::{Attempts, Census};
use super::{
    drift::{Difference, Part, Place},
    explain::HeldByKernel,
    service::{Affinity, Forwarding, Protocol},
};

/// Where clients connect to: the identity of a service port in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipKey {
    /// VIP and port.
    pub address: SocketAddr,
    /// Transport protocol, as its IANA number.
    pub protocol: u8,
}

impl VipKey {
    /// The key of a VIP of a service that speaks `protocol`.
    pub fn new(address: SocketAddr, protocol: Protocol) -> Self {
        Self {
            address,
            protocol: protocol.number(),
        }
    }
}

/// A backend as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelBackend {
    /// Id of the service it belongs to.
    pub service: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// Takes new flows.
    pub active: bool,
}

/// A VIP as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelVip {
    /// Id of its service.
    pub service: u32,
    /// Slots of the service's Maglev table.
    pub slots: u32,
    /// What is particular about its flows.
    pub treatment: Treatment,
}

/// How new flows of a service are begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// How packets reach the backend.
    pub forwarding: Forwarding,
    /// What chooses the backend.
    pub affinity: Affinity,
    /// Only sources that the service admits begin flows; see [`Step::PutSources`].
    pub restricted: bool,
}

/// A Maglev table's ingredients: backend ids and weights, by id, and the number of slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Backend id and weight (above zero), ascending by id.
    pub weights: Vec<(u32, u32)>,
    /// Number of slots, one of [`super::maglev::SIZES`].
    pub slots: u32,
}

/// Everything the kernel holds of services. The controller's mirror; after a restart it is read
/// back from the pinned maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelView {
    /// By VIP.
    pub vips: BTreeMap<VipKey, KernelVip>,
    /// By backend id.
    pub backends: BTreeMap<u32, KernelBackend>,
    /// By service id. Absent where it is not known what the table was built from.
    pub tables: BTreeMap<u32, Recipe>,
    /// By service id: source ranges that it admits, if it is restricted.
    pub sources: BTreeMap<u32, BTreeSet<IpNet>>,
    /// By service id: what it admitted when the flows of all others were last cut. Not known of
    /// what a former agent left.
    pub vetted: BTreeMap<u32, BTreeSet<IpNet>>,
}

impl KernelView {
    /// Ids of all services that have a VIP, a table or a backend.
    pub fn service_ids(&self) -> BTreeSet<u32> {
        self.vips
            .values()
            .map(|vip| vip.service)
            .chain(self.tables.keys().copied())
            .chain(self.backends.values().map(|backend| backend.service))
            .chain(self.sources.keys().copied())
            .collect()
    }
}

/// One change. The order of a plan's steps matters; see [`super::plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a backend entry.
    PutBackend(u32, KernelBackend),
    /// Build and swap a service's Maglev table. No weights: the service refuses new flows.
    PutTable(u32, Recipe),
    /// Write a VIP.
    PutVip(VipKey, KernelVip),
    /// Write the source ranges that a restricted service admits; none: it admits nobody.
    PutSources(u32, BTreeSet<IpNet>),
    /// End the flows of these services whose clients are not admitted any more.
    CutStrangers(BTreeSet<u32>),
    /// Remove a VIP: its packets are foreign from now on, but for the flows there are.
    DeleteVip(VipKey),
    /// Free a service's table.
    DeleteTable(u32),
    /// End the UDP flows of a backend that no longer takes flows: the client's next datagram is
    /// balanced anew.
    CutUdp(u32),
    /// Free a backend's entry and counters. It has no flows.
    FreeBackend(u32),
}

/// What went wrong between the agent and the kernel. The text names the operation and the object.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct KernelError {
    /// Operation and object, as in `writing backend 7 (10.1.0.2:8080)`.
    pub what: String,
    /// What the kernel said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl KernelError {
    /// An error of `source` while doing `what`.
    pub fn new(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Whether the agent's rights do not go so far (EACCES, EPERM).
    pub fn is_denied(&self) -> bool {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(self.source.as_ref());
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<std::io::Error>() {
                return error.kind() == std::io::ErrorKind::PermissionDenied;
            }
            source = error.source();
        }
        false
    }
}

/// The kernel half as the controller uses it. Implemented by `datapath` on the real thing, and
/// by a fake for the controller's own tests.
pub trait Kernel: Send {
    /// What a former agent left.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn adopt(&mut self) -> Result<KernelView, KernelError>;

    /// Carries out one step; all or nothing.
    ///
    /// # Errors
    ///
    /// A map that cannot be written, or is full.
    fn apply(&mut self, step: &Step) -> Result<(), KernelError>;

    /// Takes several [`Step::PutTable`], in the order given; what became of each.
    fn put_tables(&mut self, tables: &[Step]) -> Vec<Result<(), KernelError>> {
        tables.iter().map(|step| self.apply(step)).collect()
    }

    /// Lets the destination filter follow `view`: called before VIPs are added with everything
    /// that is to come, and after removals with what has stayed.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    fn set_filter(&mut self, view: &KernelView) -> Result<(), KernelError>;

    /// Rules in the kernel's block list.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn blocked(&mut self) -> Result<Vec<IpNet>, KernelError>;

    /// Blocks prefixes, each under a counter that starts at zero; those that are blocked already
    /// go on as they are.
    ///
    /// # Errors
    ///
    /// A map that cannot be written, or is full.
    fn block(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError>;

    /// Takes prefixes off the block list; no error if one is not on it.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    fn unblock(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError>;

    /// Makes these the block list, for each address family in one step: whoever is on both lists
    /// is blocked all the time, and keeps its counter.
    ///
    /// # Errors
    ///
    /// A map that cannot be written; the former list stays in force, of the family that it is.
    fn replace_blocked(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError>;

    /// Makes these the allow list: packets from there are not dropped, whatever the block list
    /// says.
    ///
    /// # Errors
    ///
    /// A map that cannot be written, or is full.
    fn allow(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<(), KernelError>;

    /// Ends all flows of clients that are blocked now; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    fn cut_blocked(&mut self) -> Result<u64, KernelError>;

    /// Ends all flows of clients within the prefixes at once; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    fn cut_clients(&mut self, prefixes: &[IpNet]) -> Result<u64, KernelError>;

    /// Totals of each verdict, in the order of [`lb_common::verdict::Verdict::ALL`].
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn verdicts(&self) -> Result<Vec<Counter>, KernelError>;

    /// Flows that gave way to newer ones because a flow table had no other place for them.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn evictions(&self) -> Result<lb_common::entry::EvictionStats, KernelError>;

    /// Totals of one backend.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn backend_stats(&self, id: u32) -> Result<BackendStats, KernelError>;

    /// Totals of each of these block rules, in their order; nothing for what is not blocked.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn block_stats(&self, prefixes: &[IpNet]) -> Result<Vec<Counter>, KernelError>;

    /// The rules that have dropped the most packets, that one first, and at most `most` of them.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn block_top(&self, most: usize) -> Result<Vec<(IpNet, Counter)>, KernelError>;

    /// Kernel memory that the block list takes, in MiB.
    fn block_mebibytes(&self) -> usize;

    /// Closes the connected sockets of local clients that were sent to one of these backends (by
    /// id, with the address that they were sent to); answers with their number.
    ///
    /// # Errors
    ///
    /// A map that cannot be read, or a socket that cannot be closed.
    fn close_local(&mut self, gone: &BTreeMap<u32, KernelBackend>) -> Result<usize, KernelError>;

    /// Ends the open flows of these backends at once; answers with their number. What is kept of
    /// flows that have ended stays.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    fn cut_backends(&mut self, ids: &BTreeSet<u32>) -> Result<u64, KernelError>;

    /// Connected sockets of local clients that were sent to one of these backends (by id, with the
    /// address that they were sent to).
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn local_sockets(&self, backends: &BTreeMap<u32, KernelBackend>) -> Result<u64, KernelError>;

    /// Whether VIPs are announced where the configuration says so; takes effect with the next
    /// [`Kernel::set_filter`].
    fn announce_vips(&mut self, on: bool);

    /// Totals of local clients; zero where there are none.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn local_stats(&self) -> Result<lb_common::socket::SocketStats, KernelError>;

    /// Which of these backend addresses packets cannot be sent to yet, for want of a route or a
    /// link address. Asking begins their resolution.
    ///
    /// # Errors
    ///
    /// The table of next hops is full.
    fn unresolved(
        &self,
        addresses: &[std::net::IpAddr],
    ) -> Result<Vec<std::net::IpAddr>, KernelError>;

    /// The router that a backend's address is behind, by the node's routes; `None`: it is on a link,
    /// or not known.
    fn router_towards(&self, address: std::net::IpAddr) -> Option<std::net::IpAddr>;

    /// Names of configured interfaces that have vanished since the start.
    fn lost_interfaces(&self) -> Vec<String>;

    /// Writes anew the backends whose source address no longer is what the node's routes say;
    /// answers with their number.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    fn refresh_sources(&mut self) -> Result<usize, KernelError>;

    /// Counts the flows and frees those that have been idle beyond their time.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    fn sweep(&self) -> Result<Census, KernelError>;

    /// Compares what the kernel holds with what was written there last: `view`, and what the
    /// implementation knows by itself.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn differences(
        &mut self,
        view: &KernelView,
        part: Part,
    ) -> Result<Vec<Difference>, KernelError>;

    /// Writes anew what no [`Step`] does.
    ///
    /// # Errors
    ///
    /// What cannot be written or attached.
    fn mend(&mut self, place: &Place, view: &KernelView) -> Result<(), KernelError>;

    /// What the kernel holds at this moment under these VIPs, services and backends.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn held(
        &self,
        vips: &[VipKey],
        services: &BTreeSet<u32>,
        backends: &BTreeSet<u32>,
    ) -> Result<HeldByKernel, KernelError>;
}
