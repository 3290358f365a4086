//! Carries out the controller's steps on the maps, and reads back what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::maps::PerCpuValues;
use ipnet::IpNet;
use lb_common::{
    entry::{BackendEntry, BackendStats, Counter, EvictionStats},
    maps::{MAX_BACKENDS, name},
    socket::SocketStats,
    verdict::Verdict,
};

use super::{Datapath, encode, nexthop, sum_counters};
use crate::domain::{
    drift::{Difference, Part, Place},
    explain::HeldByKernel,
    kernel::{
        Census, Kernel, KernelBackend, KernelError, KernelView, KernelVip, Recipe, Step, VipKey,
    },
};

/// Looks from which to the next the sources of all addresses have been asked for again while the
/// routes stay the same.
const SHARES: usize = 12;

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
        let source = match self.looked_up.get(&address.ip()) {
            Some(source) => *source,
            None => match nexthop::source_towards(address.ip()) {
                Ok(source) => {
                    self.looked_up.insert(address.ip(), source);
                    source
                }
                Err(_) => known.unwrap_or(encode::unspecified(address.is_ipv6())),
            },
        };
        // Whose address is the node's own has a bit of its own; all others of a source share one.
        if source == address.ip() || !self.allowed.contains(&source) {
            self.allow_source(source, address)?;
            self.allowed.insert(source);
        }
        self.cursor.prints.forget(id);
        self.backends
            .set(id, encode::backend_entry(backend, source, hop), 0)
            .map_err(|error| KernelError::new(what(), error))?;
        let former = self.written.insert(id, (*backend, source));
        *self.users.entry(address.ip()).or_default() += 1;
        if let Some((former, _)) = &former {
            self.leave(former.address.ip());
        }
        if let Some((_, former)) = former.filter(|(_, former)| *former != source) {
            self.retire_source(former, backend.service);
        }
        Ok(())
    }

    /// Writes anew the backends whose source address no longer is what the routes say. As long as
    /// the routes have not changed, only a share of the addresses is asked for: there may be things
    /// that the kernel does not tell of.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    pub fn refresh_sources(&mut self) -> Result<usize, KernelError> {
        // Before they are asked, or a change meanwhile would be overlooked.
        let routes = self.hops.routes.count();
        if routes.is_some() && routes == self.routes_asked && self.share_is_as_before() {
            return Ok(0);
        }
        self.routes_asked = None;
        self.looked_up.clear();
        let mut stale = Vec::new();
        for ip in self.users.keys() {
            if let Ok(source) = nexthop::source_towards(*ip) {
                self.looked_up.insert(*ip, source);
            }
        }
        for (id, (backend, source)) in &self.written {
            // A route that is gone may come back; until then nothing is better than the last.
            let current = self.looked_up.get(&backend.address.ip());
            if current.is_some_and(|current| current != source) {
                stale.push((*id, *backend));
            }
        }
        for (id, backend) in &stale {
            self.put_backend(*id, backend)?;
        }
        self.routes_asked = routes;
        Ok(stale.len())
    }

    /// Asks for the sources of the next share of the addresses; answers whether each is what it was.
    fn share_is_as_before(&mut self) -> bool {
        let share = self.users.len().div_ceil(SHARES);
        let addresses = self.users.keys().skip(self.share * share).take(share);
        self.share = (self.share + 1) % SHARES;
        let mut addresses = addresses.map(|ip| (ip, nexthop::source_towards(*ip).ok()));
        addresses.all(|(ip, source)| source.is_none() || source == self.looked_up.get(ip).copied())
    }

    /// One backend less is at an address; the last one gives its next hop back.
    fn leave(&mut self, ip: IpAddr) {
        let Some(users) = self.users.get_mut(&ip) else {
            return;
        };
        *users -= 1;
        if *users == 0 {
            self.users.remove(&ip);
            self.looked_up.remove(&ip);
            self.hops.release(ip);
        }
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
        self.cursor.prints.forget(id);
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
            self.leave(backend.address.ip());
        }
        Ok(())
    }
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
            Step::PutTable(service, recipe) => self.put_table(*service, recipe.clone()),
            Step::PutVip(key, vip) => self.put_vip(key, vip),
            Step::DeleteVip(key) => self.delete_vip(key),
            Step::DeleteTable(service) => self.put_table(
                *service,
                Recipe {
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

    fn put_tables(&mut self, steps: &[Step]) -> Vec<Result<(), KernelError>> {
        self.write_tables(steps)
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
