//! Reads from the maps what the programs go by at this moment, for whoever asks why.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd as _,
    sync::Arc,
};

use aya::maps::{MapData, MapError};
use lb_common::{entry::hop_flags, maps::MAX_BACKENDS};

use super::{Datapath, drift, encode, object, pins};
use crate::domain::{
    explain::{HeldBackend, HeldByKernel, HeldTable, HeldVip},
    kernel::{KernelError, VipKey},
};

impl Datapath {
    pub(super) fn inspect(
        &self,
        vips: &[VipKey],
        services: &BTreeSet<u32>,
        backends: &BTreeSet<u32>,
    ) -> Result<HeldByKernel, KernelError> {
        let mut held = HeldByKernel::default();
        for vip in vips {
            let entry = match self.services.get(&encode::service_key(vip), 0) {
                Ok(entry) => Some(HeldVip {
                    vip: encode::vip(&entry),
                    flags: entry.flags,
                }),
                Err(MapError::KeyNotFound) => None,
                Err(error) => {
                    return Err(KernelError::new(
                        format!("reading VIP {}", vip.address),
                        error,
                    ));
                }
            };
            held.vips.insert(*vip, entry);
        }
        // The VIPs may lead to other services than they should.
        let found = held.vips.values().flatten().map(|held| held.vip.service);
        let services: BTreeSet<u32> = services.iter().copied().chain(found).collect();
        for service in services {
            held.tables.insert(service, self.table(service)?);
        }
        for id in backends {
            held.backends.insert(*id, self.backend(*id)?);
        }
        Ok(held)
    }

    fn table(&self, service: u32) -> Result<Option<HeldTable>, KernelError> {
        let what = |error| {
            KernelError::new(
                format!("reading the Maglev table of service {service}"),
                error,
            )
        };
        let map = object::in_slot(self.maglev_slots.as_fd(), service).map_err(what)?;
        let Some(map) = map else { return Ok(None) };
        let own = self.tables.get(&service).filter(|own| own.map == map);
        let (table, slots) = match own {
            Some(own) => (Arc::clone(&own.table), own.slots),
            // Somebody else's, which takes `CAP_SYS_ADMIN`.
            None => {
                let table = MapData::from_id(map)
                    .map_err(io::Error::other)
                    .map_err(what)?;
                let info = table.info().map_err(io::Error::other).map_err(what)?;
                (Arc::new(table), info.max_entries())
            }
        };
        let mut by_backend = BTreeMap::new();
        let read = drift::read_table(&table, slots).map_err(what)?;
        // The last number stands for nobody, in the table of a service without backends.
        for id in read.into_iter().filter(|id| *id != MAX_BACKENDS - 1) {
            *by_backend.entry(id).or_default() += 1;
        }
        Ok(Some(HeldTable {
            map,
            slots,
            by_backend,
        }))
    }

    fn backend(&self, id: u32) -> Result<Option<HeldBackend>, KernelError> {
        let entry = self
            .backends
            .get(&id, 0)
            .map_err(|error| KernelError::new(format!("reading backend {id}"), error))?;
        let Some(backend) = encode::backend(&entry) else {
            return Ok(None);
        };
        let hop = self.hops.held(entry.hop)?;
        let found_later = hop.flags & (hop_flags::NEIGHBOUR | hop_flags::LOCAL) != 0;
        let mac: Vec<String> = hop.dmac.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(HeldBackend {
            backend,
            source: encode::ip(entry.source, backend.address.is_ipv6()),
            interface: (hop.ifindex != 0).then(|| {
                let name = pins::interface_name(hop.ifindex);
                name.unwrap_or_else(|| format!("interface {} (gone)", hop.ifindex))
            }),
            mac: (hop.ifindex != 0 && !found_later).then(|| mac.join(":")),
            mtu: hop.mtu,
            router: self.hops.router_towards(backend.address.ip()),
        }))
    }
}
