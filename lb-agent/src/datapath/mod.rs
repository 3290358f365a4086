//! The kernel half as seen from here: the only place that names aya.
//!
//! [`Datapath::open`] creates or adopts maps and programs; after that it is a
//! [`Kernel`](crate::domain::kernel::Kernel) that carries out the controller's steps.

mod addresses;
mod announce;
mod apart;
mod backends;
mod block;
mod budget;
mod cgroup;
mod classifier;
mod clock;
mod coverage;
mod decapsulate;
mod detour;
mod drift;
mod encode;
#[cfg(test)]
pub(crate) mod fake;
pub mod feature;
mod features;
mod filter;
mod flows;
mod held;
mod inspect;
mod link;
mod load;
mod loader;
mod local;
pub mod memory;
mod netns;
mod nexthop;
mod object;
mod pins;
mod resolver;
mod route_changes;
mod sock_diag;
mod sources;
mod sysctl;
mod tables;
mod takeover;
mod trace;
mod trial;
mod trunk;
mod verify;
mod vips;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray},
    programs::Xdp,
};
use lb_common::{
    entry::{
        AddressKey, BackendEntry, BackendStats, Counter, DestinationFilter, EvictionStats,
        InterfaceAddresses, Meta, NextHop, ServiceEntry, ServiceKey,
    },
    maps::name,
};

pub use self::{
    budget::Budget,
    cgroup::cgroup_root,
    flows::{FlowTables, Judged, Traffic},
    held::HeldFragments,
    loader::{Attached, Mode, Options, check_bpf_file_system},
    local::AttachedCgroup,
    pins::detach,
    resolver::Resolver,
    takeover::Former,
    trace::Trace,
    verify::{Verified, verify},
};
use crate::domain::kernel::{KernelBackend, KernelError, VipKey};

/// The loaded programs, the maps and what is written in them.
pub struct Datapath {
    // Keeps programs and unpinned maps loaded; the links live by their pins.
    ebpf: Ebpf,
    classifiers: Arc<Mutex<classifier::Classifiers>>,
    services: HashMap<MapData, ServiceKey, ServiceEntry>,
    maglev: ArrayOfMaps<MapData>,
    /// The same map.
    maglev_map: OwnedFd,
    backends: Array<MapData, BackendEntry>,
    filter: Array<MapData, DestinationFilter>,
    vips: HashMap<MapData, AddressKey, u32>,
    blocks: block::BlockList,
    sources: sources::Sources,
    verdict_stats: PerCpuArray<MapData, Counter>,
    backend_stats: PerCpuArray<MapData, BackendStats>,
    eviction_stats: PerCpuArray<MapData, EvictionStats>,
    /// Interfaces that VIPs are announced on.
    announce: Vec<String>,
    /// VIPs are announced there; not while the node is drained.
    announcing: bool,
    /// VIPs that the neighbours have been told of.
    told: BTreeSet<std::net::IpAddr>,
    hops: nexthop::Hops,
    flows: FlowTables,
    /// A descriptor of the map of verdicts, for [`Self::traffic`].
    verdicts: OwnedFd,
    trace: Option<Trace>,
    attached: Vec<Attached>,
    /// Where local clients are served.
    local: Option<local::LocalClients>,
    meta: Meta,
    /// What stands in the backend map, with the source that it was written with.
    written: BTreeMap<u32, (KernelBackend, std::net::IpAddr)>,
    /// Maglev tables as they were written, by service id.
    tables: BTreeMap<u32, drift::WrittenTable>,
    /// A descriptor of the map of Maglev tables, whose slots are looked at.
    maglev_slots: OwnedFd,
    /// A descriptor of the backend map, whose memory is looked at.
    backend_memory: OwnedFd,
    detours: drift::Detours,
    /// What each pinned link is about.
    links: BTreeMap<std::path::PathBuf, Option<object::Attachment>>,
    cursor: drift::Cursor,
    options: Options,
    /// How many of those are at an address.
    users: std::collections::HashMap<std::net::IpAddr, u32>,
    /// By address: what the routes said the source is when they were last asked.
    looked_up: std::collections::HashMap<std::net::IpAddr, std::net::IpAddr>,
    /// The routes when all were asked; `None`: they may be others by now.
    routes_asked: Option<u64>,
    share: usize,
    /// Sources that pass the filter, since it was last written anew.
    allowed: std::collections::HashSet<std::net::IpAddr>,
    /// What flows may still be sent to, though new ones are not, with the service each belongs to:
    /// deleted VIPs, and addresses and ports of the node that are no longer given.
    retired: BTreeMap<VipKey, u32>,
}

impl Datapath {
    /// Creates or adopts maps, loads the programs and attaches them. Existing links get the new
    /// programs in one step; traffic goes on meanwhile.
    ///
    /// # Errors
    ///
    /// Says which operation on which object the kernel refused.
    pub fn open(options: &Options) -> Result<Self, KernelError> {
        // What cannot be must be told before anything is attached.
        let cgroup = options.cgroup.as_deref().map(cgroup::Cgroup::open);
        let cgroup = cgroup.transpose()?;
        let mut datapath = Self::open_detached(options)?;
        let interfaces = interface_indices(options)?;
        let program = xdp(&mut datapath.ebpf, name::PROGRAM_XDP)?;
        datapath.attached = pins::attach(
            program,
            &mut datapath
                .classifiers
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            options,
            &interfaces,
        )?;
        let configured: Vec<u32> = interfaces.iter().map(|(_, ifindex)| *ifindex).collect();
        let coverage = coverage::Coverage::adopt(Arc::clone(&datapath.classifiers), &configured)?;
        datapath.hops.attach_by(coverage);
        datapath.serve_local_clients(cgroup.as_ref(), &options.bpf_dir)?;
        datapath.note_links()?;
        Ok(datapath)
    }

    /// Everything of [`Self::open`] but attaching: for test runs.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`].
    pub fn open_detached(options: &Options) -> Result<Self, KernelError> {
        let named = interface_indices(options)?;
        let indices: Vec<u32> = named.iter().map(|(_, ifindex)| *ifindex).collect();
        let clock = calibrate()?;
        let loader::Loaded {
            mut ebpf,
            meta,
            interfaces,
        } = loader::load(options, &indices, clock.per_second())?;
        decapsulate::fill(&mut ebpf, options)?;
        let program = xdp(&mut ebpf, name::PROGRAM_XDP)?;
        load::again(|| program.load()).map_err(|error| {
            KernelError::new(
                format!("verifying the program {}", name::PROGRAM_XDP),
                error,
            )
        })?;

        let classifiers = classifier::Classifiers::load(
            &mut ebpf,
            loader::pin_dir(&options.bpf_dir),
            options.tc_filters,
        )?;
        let detours = detour::load(&mut ebpf)?;
        let nexthops: Array<MapData, NextHop> = take(&mut ebpf, name::NEXTHOPS)?;
        let addresses: Array<MapData, InterfaceAddresses> = take(&mut ebpf, name::ADDRESSES)?;
        let maglev_slots = descriptor(&ebpf, name::MAGLEV)?;
        let backend_memory = descriptor(&ebpf, name::BACKENDS)?;
        let verdicts = descriptor(&ebpf, name::VERDICT_STATS)?;
        let (written, taken) = backends::read_backends(&backend_memory)?;
        let hops = nexthop::Hops::new(
            nexthops,
            addresses,
            &taken,
            by_position(&interfaces, &named),
        )?;
        let flows = FlowTables::new(
            descriptor(&ebpf, name::FLOWS4)?,
            descriptor(&ebpf, name::FLOWS6)?,
            meta,
            clock,
            options.lifetimes.scaled(clock.per_second()),
        );
        let mut users = std::collections::HashMap::new();
        for (backend, _) in written.values() {
            *users.entry(backend.address.ip()).or_default() += 1;
        }
        let mut datapath = Self {
            announce: options.announce.clone(),
            announcing: true,
            told: BTreeSet::new(),
            services: take(&mut ebpf, name::SERVICES)?,
            maglev_map: descriptor(&ebpf, name::MAGLEV)?,
            maglev: take(&mut ebpf, name::MAGLEV)?,
            backends: take(&mut ebpf, name::BACKENDS)?,
            filter: take(&mut ebpf, name::FILTER)?,
            vips: take(&mut ebpf, name::VIPS)?,
            blocks: block::BlockList::open(&mut ebpf)?,
            sources: sources::Sources::open(&mut ebpf)?,
            verdict_stats: take(&mut ebpf, name::VERDICT_STATS)?,
            backend_stats: take(&mut ebpf, name::BACKEND_STATS)?,
            trace: Some(trace::Trace::new(&mut ebpf, clock)?),
            eviction_stats: take(&mut ebpf, name::EVICTION_STATS)?,
            ebpf,
            classifiers: Arc::new(Mutex::new(classifiers)),
            hops,
            flows,
            verdicts,
            attached: Vec::new(),
            local: None,
            meta,
            written,
            tables: BTreeMap::new(),
            maglev_slots,
            backend_memory,
            detours,
            links: BTreeMap::new(),
            cursor: drift::Cursor::default(),
            options: options.clone(),
            users,
            looked_up: Default::default(),
            routes_asked: None,
            share: 0,
            allowed: Default::default(),
            retired: BTreeMap::new(),
        };
        datapath.keep_destinations(options.ports)?;
        Ok(datapath)
    }

    /// Interfaces that the programs run on.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The cgroup whose processes are served as local clients.
    pub fn local_clients(&self) -> Option<&AttachedCgroup> {
        self.local.as_ref().map(local::LocalClients::attached)
    }

    /// Attaches to the cgroup, or takes off what a former agent attached.
    fn serve_local_clients(
        &mut self,
        cgroup: Option<&cgroup::Cgroup>,
        bpf_dir: &std::path::Path,
    ) -> Result<(), KernelError> {
        let dir = loader::pin_dir(bpf_dir);
        if let Some(cgroup) = cgroup {
            self.local = Some(local::LocalClients::attach(&mut self.ebpf, &dir, cgroup)?);
        } else if local::detach(&dir)? > 0 {
            tracing::info!("local clients are no longer served");
        }
        Ok(())
    }

    /// Slots of each flow table. May differ from the options where the tables were adopted.
    pub fn flow_slots(&self) -> u32 {
        self.meta.flow_slots
    }

    /// The flow tables, to be swept and counted.
    pub fn flows(&self) -> FlowTables {
        self.flows.clone()
    }

    /// Where fragments come in that the agent is to keep; once only. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel refuses a buffer, or it is the second time.
    pub fn hold_fragments(&mut self) -> Result<HeldFragments, KernelError> {
        HeldFragments::new(
            &mut self.ebpf,
            &self.options,
            self.flows.clock(),
            &self.attached,
        )
    }

    /// The trace, for whoever hands its events on; `None` if it has been taken already.
    pub fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    /// Before Linux 6.3 none tells which interfaces take frames from XDP: take it that all do.
    pub fn trust_untold_interfaces(&self) {
        self.hops.trust_untold();
    }

    /// Starts to keep next hops current. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// No netlink socket.
    pub async fn start_resolver(&self) -> Result<Resolver, KernelError> {
        Resolver::start(self.hops.clone()).await
    }
}

/// Name and index of the interface at each position; no name and 0 where there is none of the
/// configured ones.
fn by_position(positions: &[u32], named: &[(String, u32)]) -> Vec<(String, u32)> {
    positions
        .iter()
        .map(|position| {
            let interface = named.iter().find(|(_, ifindex)| ifindex == position);
            interface.cloned().unwrap_or_default()
        })
        .collect()
}

fn interface_indices(options: &Options) -> Result<Vec<(String, u32)>, KernelError> {
    options
        .interfaces
        .iter()
        .map(|interface| Ok((interface.clone(), pins::interface_index(interface)?)))
        .collect()
}

/// The tick rate must be known before the programs are loaded, so a copy of the object is loaded
/// for its clock program alone; its maps go away with it.
fn calibrate() -> Result<clock::Clock, KernelError> {
    let what = "reading the kernel's tick rate";
    let mut ebpf = loader::load_clock()?;
    let program = xdp(&mut ebpf, name::PROGRAM_CLOCK)?;
    load::again(|| program.load()).map_err(|error| KernelError::new(what, error))?;
    clock::Clock::calibrate(program)
}

fn xdp<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut Xdp, KernelError> {
    let what = || format!("looking for the program {program}");
    ebpf.program_mut(program)
        .ok_or_else(|| KernelError::new(what(), "the object has no such program"))?
        .try_into()
        .map_err(|error: aya::programs::ProgramError| KernelError::new(what(), error))
}

fn take<M>(ebpf: &mut Ebpf, map: &str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let data = ebpf.take_map(map).ok_or_else(|| loader::missing(map))?;
    M::try_from(data).map_err(|error| loader::map_error(map, error))
}

/// A descriptor of its own for a map that others use beside its owner.
fn descriptor(ebpf: &Ebpf, map: &str) -> Result<OwnedFd, KernelError> {
    let Some(Map::Array(data) | Map::ArrayOfMaps(data) | Map::PerCpuArray(data)) = ebpf.map(map)
    else {
        return Err(loader::missing(map));
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| KernelError::new(format!("opening map {map}"), error))
}

/// Sums a per-CPU value.
fn sum_counters<'a>(values: impl IntoIterator<Item = &'a Counter>) -> Counter {
    values
        .into_iter()
        .fold(Counter::default(), |sum, value| Counter {
            packets: sum.packets + value.packets,
            bytes: sum.bytes + value.bytes,
        })
}
