//! What the agent has written: services, backends, tables, blocks, and the filter over them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_agent::domain::{
    kernel::{KernelBackend, KernelVip, Recipe, Step, VipKey},
    maglev,
};
use lb_common::{
    entry::{BackendStats, Counter},
    flow::Kind,
    hash,
};

use super::{
    Model,
    fault::Fault,
    parse::{Ip, Transport, UDP},
    table::Key,
};

/// What the agent has written.
#[derive(Clone, Debug, Default)]
pub struct Destinations {
    /// By VIP.
    pub vips: BTreeMap<VipKey, KernelVip>,
    /// By id.
    pub backends: BTreeMap<u32, KernelBackend>,
    /// By service: backend ids by slot. Empty: a table that leads nowhere.
    pub tables: BTreeMap<u32, Vec<u32>>,
    /// Deleted VIPs, and what else flows may still be sent to, with the service of each: they
    /// are looked at as long as the service has a backend.
    pub retired: BTreeMap<VipKey, u32>,
    /// Blocked prefixes with what each has caught.
    pub blocks: BTreeMap<IpNet, Counter>,
    /// What restricted services admit; by service.
    pub sources: BTreeMap<u32, BTreeSet<IpNet>>,
    /// What each backend has got.
    pub stats: BTreeMap<u32, BackendStats>,
    /// The filter errs by chance: of two destinations with one bit each passes for the other.
    bits: HashSet<u32>,
}

fn bit(ip: IpAddr, port: u16, proto: u8) -> u32 {
    let word = match ip {
        IpAddr::V4(ip) => u32::from_ne_bytes(ip.octets()),
        IpAddr::V6(ip) => ip
            .octets()
            .chunks(4)
            .map(|bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .fold(0, |sum, word| sum ^ word),
    };
    hash::filter_bit(word, port.to_be(), proto)
}

impl Destinations {
    /// The counter of the longest prefix that blocks an address.
    pub(super) fn blocked(&mut self, ip: IpAddr) -> Option<&mut Counter> {
        self.blocks
            .iter_mut()
            .filter(|(prefix, _)| prefix.contains(&ip))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, counter)| counter)
    }

    /// Whether anything is looked at that is sent to this address.
    pub(super) fn may_be_ours(&self, ip: IpAddr) -> bool {
        self.bits.contains(&bit(ip, 0, 0))
    }

    /// Whether this port of the address is looked at.
    pub(super) fn may_be_service(&self, ip: &Ip, transport: &Transport) -> bool {
        let wanted = bit(ip.dst, transport.dport, transport.proto);
        self.bits.contains(&wanted)
    }

    /// The service that a packet is for.
    pub(super) fn service(&self, key: &Key) -> Option<KernelVip> {
        let key = VipKey {
            address: key.dst,
            protocol: key.proto,
        };
        self.vips.get(&key).copied()
    }

    /// The backend for a hash, with its id; also one that takes no flows if `any` will do.
    pub(super) fn select(
        &self,
        vip: KernelVip,
        drawn: u64,
        any: bool,
    ) -> Option<(u32, KernelBackend)> {
        if vip.slots == 0 {
            return None;
        }
        let slot = hash::scale(drawn, vip.slots) as usize;
        let id = *self.tables.get(&vip.service)?.get(slot)?;
        let backend = *self.backends.get(&id)?;
        ((backend.active || any) && backend.service == vip.service).then_some((id, backend))
    }

    /// Whether a service admits a client.
    pub(super) fn admits(&self, vip: KernelVip, client: IpAddr) -> bool {
        !vip.treatment.restricted || !self.is_stranger(vip.service, client)
    }

    /// Whether a service has no range that a client is in.
    fn is_stranger(&self, service: u32, client: IpAddr) -> bool {
        let mut ranges = self.sources.get(&service).into_iter().flatten();
        !ranges.any(|range| range.contains(&client))
    }

    /// Whether a backend takes new flows.
    pub(super) fn is_active(&self, id: u32) -> bool {
        self.backends.get(&id).is_some_and(|backend| backend.active)
    }

    /// Counts a packet of a backend's flow.
    pub(super) fn count(&mut self, backend: u32, kind: Kind, bytes: u64) {
        let stats = self.stats.entry(backend).or_default();
        let counter = match kind {
            Kind::Forward => &mut stats.inbound,
            Kind::Reply => &mut stats.outbound,
        };
        counter.packets += 1;
        counter.bytes += bytes;
    }

    /// Counts a flow begun.
    pub(super) fn count_flow(&mut self, backend: u32) {
        self.stats.entry(backend).or_default().flows += 1;
    }
}

fn builds(backends: &BTreeMap<u32, KernelBackend>, recipe: &Recipe) -> Vec<u32> {
    let entries: Vec<_> = recipe
        .weights
        .iter()
        .filter_map(|(id, weight)| {
            Some(maglev::Entry {
                id: *id,
                address: backends.get(id)?.address,
                weight: *weight,
            })
        })
        .collect();
    maglev::build(&entries, recipe.slots)
}

impl Model {
    /// Carries out steps as the agent does, the filter after all.
    pub fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            let there = &mut self.destinations;
            match step {
                Step::PutBackend(id, backend) => {
                    there.backends.insert(*id, *backend);
                }
                Step::PutTable(service, recipe) => {
                    let table = builds(&there.backends, recipe);
                    there.tables.insert(*service, table);
                }
                Step::DeleteTable(service) => {
                    there.tables.insert(*service, Vec::new());
                }
                Step::PutVip(key, vip) => {
                    there.vips.insert(*key, *vip);
                    there.retired.remove(key);
                }
                Step::DeleteVip(key) => {
                    if let Some(vip) = there.vips.remove(key)
                        && self.fault != Some(Fault::ForgetsVips)
                    {
                        there.retired.insert(*key, vip.service);
                    }
                }
                Step::FreeBackend(id) => {
                    there.backends.remove(id);
                    there.stats.remove(id);
                }
                Step::PutSources(service, sources) => {
                    there.sources.insert(*service, sources.clone());
                }
                Step::CutStrangers(services) if self.fault != Some(Fault::KeepsStrangers) => {
                    let there = &self.destinations;
                    for table in &mut self.tables {
                        table.remove_if(|half| {
                            let service = there.backends.get(&half.backend).map(|b| b.service);
                            service.is_some_and(|service| {
                                services.contains(&service)
                                    && !half.keeps_port()
                                    && there.is_stranger(service, half.client().ip())
                            })
                        });
                    }
                }
                Step::CutStrangers(_) => {}
                Step::CutUdp(id) => {
                    for table in &mut self.tables {
                        table.remove_if(|half| half.key.proto == UDP && half.backend == *id);
                    }
                }
            }
        }
        self.write_filter();
    }

    fn write_filter(&mut self) {
        let sources = self.node.sources;
        let there = &mut self.destinations;
        let serving: BTreeSet<u32> = there.backends.values().map(|b| b.service).collect();
        there.retired.retain(|_, service| serving.contains(service));
        there.bits.clear();
        for VipKey { address, protocol } in there.vips.keys().chain(there.retired.keys()) {
            there.bits.insert(bit(address.ip(), 0, 0));
            there
                .bits
                .insert(bit(address.ip(), address.port(), *protocol));
        }
        for backend in there.backends.values() {
            let source = sources[usize::from(backend.address.is_ipv6())];
            there.bits.insert(bit(source, 0, 0));
        }
    }

    /// The agent is started anew with a range of ports: it knows no VIPs of the past, but finds
    /// out what its flows are still sent to.
    pub fn reopen(&mut self, ports: (u16, u16)) {
        self.node.ports = ports;
        // What is remembered of fragments is not handed on.
        self.fragments.clear();
        let there = &mut self.destinations;
        there.retired.clear();
        let sources: BTreeSet<IpAddr> = there
            .backends
            .values()
            .map(|backend| self.node.sources[usize::from(backend.address.is_ipv6())])
            .collect();
        for (_, half) in self.tables.iter().flat_map(|table| table.halves()) {
            let key = VipKey {
                address: half.key.dst,
                protocol: half.key.proto,
            };
            let given = self.node.gives(key.address.port()) && sources.contains(&key.address.ip());
            if !given
                && !there.vips.contains_key(&key)
                && let Some(backend) = there.backends.get(&half.backend)
            {
                there.retired.insert(key, backend.service);
            }
        }
        self.write_filter();
    }

    /// Blocks a prefix. Its counter begins at zero.
    pub fn block(&mut self, prefix: IpNet) {
        // One that is on the list goes on as it is.
        self.destinations.blocks.entry(prefix).or_default();
    }

    /// Takes a prefix off the list.
    pub fn unblock(&mut self, prefix: IpNet) {
        self.destinations.blocks.remove(&prefix);
    }

    /// Ends the flows of clients within the prefixes.
    pub fn cut_clients(&mut self, prefixes: &[IpNet]) {
        for table in &mut self.tables {
            table.remove_if(|half| {
                let client = half.client().ip();
                !half.keeps_port() && prefixes.iter().any(|prefix| prefix.contains(&client))
            });
        }
    }
}
