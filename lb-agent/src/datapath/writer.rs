//! Carries out the controller's steps on the maps, and reads back what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsRawFd,
};

use aya::maps::{MapData, PerCpuValues};
use ipnet::IpNet;
use lb_common::{
    entry::{BackendEntry, BackendStats, Counter, EvictionStats},
    maps::{MAX_BACKENDS, MAX_SERVICES, name},
    socket::SocketStats,
    verdict::Verdict,
};
use memmap2::MmapOptions;

use super::{Datapath, drift, encode, nexthop, object, sum_counters};
use crate::domain::{
    drift::{Difference, Part, Place},
    explain::HeldByKernel,
    kernel::{
        Census, Kernel, KernelBackend, KernelError, KernelView, KernelVip, Recipe, Step, VipKey,
    },
    maglev,
};

/// `BPF_F_MMAPABLE | BPF_F_INNER_MAP`, as the inner map is declared in the program.
const MAGLEV_FLAGS: u32 = 1 << 10 | 1 << 12;

impl Datapath {
    fn put_backend(&mut self, id: u32, backend: &KernelBackend) -> Result<(), KernelError> {
        let address = backend.address;
        let what = || format!("writing backend {id} ({address})");
        if id >= MAX_BACKENDS {
            let full = format!("no more than {MAX_BACKENDS} backends fit");
            return Err(KernelError::new(what(), full));
        }
        let hop = self.hops.index(address.ip())?;
        // Without a route there is no source, unless there was a route before: while the programs
        // see none they begin no flow. `refresh_sources` mends it when a route appears.
        let known = self.written.get(&id).map(|(_, source)| *source);
        let source = nexthop::source_towards(address.ip())
            .unwrap_or_else(|_| known.unwrap_or(encode::unspecified(address.is_ipv6())));
        self.allow_source(source, address)?;
        self.backends
            .set(id, encode::backend_entry(backend, source, hop), 0)
            .map_err(|error| KernelError::new(what(), error))?;
        let former = self.written.insert(id, (*backend, source));
        if let Some((_, former)) = former.filter(|(_, former)| *former != source) {
            self.retire_source(former, backend.service);
        }
        Ok(())
    }

    /// Writes anew the backends whose source address no longer is what the routes say.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    pub fn refresh_sources(&mut self) -> Result<usize, KernelError> {
        let mut by_address: BTreeMap<IpAddr, Option<IpAddr>> = BTreeMap::new();
        let mut stale = Vec::new();
        for (id, (backend, source)) in &self.written {
            let ip = backend.address.ip();
            let current = *by_address
                .entry(ip)
                .or_insert_with(|| nexthop::source_towards(ip).ok());
            // A route that is gone may come back; until then nothing is better than the last.
            if current.is_some_and(|current| current != *source) {
                stale.push((*id, *backend));
            }
        }
        for (id, backend) in &stale {
            self.put_backend(*id, backend)?;
        }
        Ok(stale.len())
    }

    fn put_table(&mut self, service: u32, recipe: &Recipe) -> Result<(), KernelError> {
        let what = || format!("writing the Maglev table of service {service}");
        if service >= MAX_SERVICES {
            let full = format!("no more than {MAX_SERVICES} services fit");
            return Err(KernelError::new(what(), full));
        }
        let entries: Vec<maglev::Entry> = recipe
            .weights
            .iter()
            .filter_map(|(id, weight)| {
                let (backend, _) = self.written.get(id)?;
                Some(maglev::Entry {
                    id: *id,
                    address: backend.address,
                    weight: *weight,
                })
            })
            .collect();
        let slots = maglev::build(&entries, recipe.slots);
        // An empty service keeps a table of one slot, which leads to no backend.
        let slots = if slots.is_empty() {
            vec![MAX_BACKENDS - 1]
        } else {
            slots
        };
        let table = MapData::create(
            aya_obj::Map::new_from_params(
                aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
                size_of::<u32>() as u32,
                size_of::<u32>() as u32,
                slots.len() as u32,
                MAGLEV_FLAGS,
            ),
            "maglev_table",
            None,
        )
        .map_err(|error| KernelError::new(what(), error))?;
        fill(&table, &slots).map_err(|error| KernelError::new(what(), error))?;
        self.maglev
            .set(service, &table, 0)
            .map_err(|error| KernelError::new(what(), error))?;
        let map = object::number(std::os::fd::AsFd::as_fd(table.fd()))
            .map_err(|error| KernelError::new(what(), error))?;
        let written = drift::WrittenTable {
            map,
            slots: slots.len() as u32,
            fingerprint: drift::fingerprint(&slots),
        };
        self.tables.insert(service, written);
        Ok(())
    }

    fn put_vip(&mut self, key: &VipKey, vip: &KernelVip) -> Result<(), KernelError> {
        self.services
            .insert(encode::service_key(key), encode::service_entry(vip), 0)
            .map_err(|error| KernelError::new(format!("writing VIP {}", key.address), error))?;
        self.retired.remove(key);
        Ok(())
    }

    fn delete_vip(&mut self, key: &VipKey) -> Result<(), KernelError> {
        let what = |error| KernelError::new(format!("removing VIP {}", key.address), error);
        let encoded = encode::service_key(key);
        let service = self.services.get(&encoded, 0).map_err(what)?.id;
        self.services.remove(&encoded).map_err(what)?;
        self.retired.insert(*key, service);
        Ok(())
    }

    fn free_backend(&mut self, id: u32) -> Result<(), KernelError> {
        let what = || format!("freeing backend {id}");
        // No family: none here.
        let none = BackendEntry {
            addr: [0; 4],
            source: [0; 4],
            port: 0,
            flags: 0,
            hop: 0,
            service: 0,
            family: 0,
            reserved: [0; 4],
        };
        self.backends
            .set(id, none, 0)
            .map_err(|error| KernelError::new(what(), error))?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| KernelError::new(what(), error))?;
        let zero = PerCpuValues::try_from(vec![BackendStats::default(); cpus])
            .map_err(|error| KernelError::new(what(), error))?;
        self.backend_stats
            .set(id, zero, 0)
            .map_err(|error| KernelError::new(what(), error))?;
        if let Some((backend, _)) = self.written.remove(&id) {
            let ip = backend.address.ip();
            if !self
                .written
                .values()
                .any(|(other, _)| other.address.ip() == ip)
            {
                self.hops.release(ip);
            }
        }
        Ok(())
    }
}

/// Writes a whole table through its memory: one system call instead of one per slot.
fn fill(table: &MapData, slots: &[u32]) -> std::io::Result<()> {
    use std::os::fd::AsFd as _;
    // The kernel lays out array elements at multiples of eight bytes (kernel/bpf/arraymap.c).
    const STRIDE: usize = 8;
    let memory = MmapOptions::new()
        .len(slots.len() * STRIDE)
        .map_raw(table.fd().as_fd().as_raw_fd())?;
    for (index, slot) in slots.iter().enumerate() {
        // SAFETY: within the mapping; nobody else has the map yet.
        unsafe {
            memory
                .as_mut_ptr()
                .add(index * STRIDE)
                .cast::<u32>()
                .write(*slot)
        };
    }
    Ok(())
}

impl Kernel for Datapath {
    fn adopt(&mut self) -> Result<KernelView, KernelError> {
        let mut view = KernelView::default();
        for entry in self.services.iter() {
            let (key, entry) =
                entry.map_err(|error| KernelError::new("reading the VIPs", error))?;
            view.vips.insert(encode::vip_key(&key), encode::vip(&entry));
        }
        view.backends = self
            .written
            .iter()
            .map(|(id, (backend, _))| (*id, *backend))
            .collect();
        view.sources.clone_from(self.sources.held());
        Ok(view)
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::PutBackend(id, backend) => self.put_backend(*id, backend),
            Step::PutTable(service, recipe) => self.put_table(*service, recipe),
            Step::PutVip(key, vip) => self.put_vip(key, vip),
            Step::DeleteVip(key) => self.delete_vip(key),
            Step::DeleteTable(service) => self.put_table(
                *service,
                &Recipe {
                    weights: Vec::new(),
                    slots: 1,
                },
            ),
            Step::PutSources(service, sources) => self.sources.put(*service, sources),
            Step::CutStrangers(services) => self.cut_strangers(services),
            Step::CutUdp(id) => self.flows.cut_udp(*id).map(|_| ()),
            Step::FreeBackend(id) => self.free_backend(*id),
        }
    }

    fn set_filter(&mut self, view: &KernelView) -> Result<(), KernelError> {
        self.write_filter(view)?;
        self.write_vips(view)
    }

    fn blocked(&mut self) -> Result<Vec<IpNet>, KernelError> {
        self.blocks.rules()
    }

    fn block(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        self.blocks.add(prefixes)
    }

    fn unblock(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        self.blocks.remove(prefixes)
    }

    fn replace_blocked(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        self.blocks.replace(prefixes)
    }

    fn allow(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<(), KernelError> {
        self.blocks.allow(prefixes)
    }

    fn cut_blocked(&mut self) -> Result<u64, KernelError> {
        self.flows.cut_where(self.blocks.judge()?)
    }

    fn cut_clients(&mut self, prefixes: &[IpNet]) -> Result<u64, KernelError> {
        self.flows.cut_clients(prefixes)
    }

    fn verdicts(&self) -> Result<Vec<Counter>, KernelError> {
        Verdict::ALL
            .iter()
            .map(|verdict| {
                let values = self
                    .verdict_stats
                    .get(&(*verdict as u32), 0)
                    .map_err(|error| {
                        KernelError::new(format!("reading {}", name::VERDICT_STATS), error)
                    })?;
                Ok(sum_counters(values.iter()))
            })
            .collect()
    }

    fn evictions(&self) -> Result<EvictionStats, KernelError> {
        let values = self.eviction_stats.get(&0, 0).map_err(|error| {
            KernelError::new(format!("reading {}", name::EVICTION_STATS), error)
        })?;
        Ok(EvictionStats {
            closed: values.iter().map(|value| value.closed).sum(),
            half_open: values.iter().map(|value| value.half_open).sum(),
        })
    }

    fn backend_stats(&self, id: u32) -> Result<BackendStats, KernelError> {
        let values = self.backend_stats.get(&id, 0).map_err(|error| {
            KernelError::new(format!("reading the counters of backend {id}"), error)
        })?;
        Ok(BackendStats {
            inbound: sum_counters(values.iter().map(|value| &value.inbound)),
            outbound: sum_counters(values.iter().map(|value| &value.outbound)),
            flows: values.iter().map(|value| value.flows).sum(),
        })
    }

    fn block_stats(&self, prefixes: &[IpNet]) -> Result<Vec<Counter>, KernelError> {
        self.blocks.dropped(prefixes)
    }

    fn block_top(&self, most: usize) -> Result<Vec<(IpNet, Counter)>, KernelError> {
        self.blocks.top(most)
    }

    fn block_mebibytes(&self) -> usize {
        self.blocks.mebibytes()
    }

    fn close_local(&mut self, gone: &BTreeMap<u32, KernelBackend>) -> Result<usize, KernelError> {
        let local = self.local.as_mut();
        local.map_or(Ok(0), |local| local.close(gone))
    }

    fn cut_backends(&mut self, ids: &BTreeSet<u32>) -> Result<u64, KernelError> {
        self.flows.cut_open(ids)
    }

    fn local_sockets(&self, backends: &BTreeMap<u32, KernelBackend>) -> Result<u64, KernelError> {
        let local = self.local.as_ref();
        local.map_or(Ok(0), |local| local.sockets_of(backends))
    }

    fn announce_vips(&mut self, on: bool) {
        self.announcing = on;
    }

    fn local_stats(&self) -> Result<SocketStats, KernelError> {
        let local = self.local.as_ref();
        local.map_or_else(|| Ok(SocketStats::default()), |local| local.stats())
    }

    fn unresolved(&self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, KernelError> {
        self.hops.unresolved(addresses)
    }

    fn router_towards(&self, address: IpAddr) -> Option<IpAddr> {
        self.hops.router_towards(address)
    }

    fn lost_interfaces(&self) -> Vec<String> {
        self.hops.lost_interfaces()
    }

    fn refresh_sources(&mut self) -> Result<usize, KernelError> {
        Datapath::refresh_sources(self)
    }

    fn sweep(&self) -> Result<Census, KernelError> {
        self.flows.sweep()
    }

    fn differences(
        &mut self,
        view: &KernelView,
        part: Part,
    ) -> Result<Vec<Difference>, KernelError> {
        self.find_differences(view, part)
    }

    fn mend(&mut self, place: &Place, view: &KernelView) -> Result<(), KernelError> {
        self.mend_place(place, view)
    }

    fn held(
        &self,
        vips: &[VipKey],
        services: &BTreeSet<u32>,
        backends: &BTreeSet<u32>,
    ) -> Result<HeldByKernel, KernelError> {
        self.inspect(vips, services, backends)
    }
}
