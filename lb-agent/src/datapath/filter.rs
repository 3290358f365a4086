//! The destination filter: what packets are looked at, kept ahead of what they are sent to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    entry::{DestinationFilter, FILTER_WORDS},
    hash,
};

use super::{Datapath, encode};
use crate::domain::kernel::{Kernel as _, KernelError, KernelView, VipKey};

impl Datapath {
    /// Lets replies to `source`, or from a backend that is a process of the node, pass the filter
    /// before the first packet carries it.
    pub(super) fn allow_source(
        &mut self,
        source: IpAddr,
        backend: SocketAddr,
    ) -> Result<(), KernelError> {
        let mut filter = self.filter.get(&0, 0).map_err(filter_error)?;
        let before = filter.words;
        set_source(&mut filter, source, backend);
        if filter.words != before {
            self.filter.set(0, filter, 0).map_err(filter_error)?;
        }
        Ok(())
    }

    /// Keeps an address that new flows no longer get as their source, for those that have it.
    pub(super) fn retire_source(&mut self, source: IpAddr, service: u32) {
        // Of the address alone: ports within the range pass by themselves.
        let key = VipKey {
            address: (source, 0).into(),
            protocol: 0,
        };
        self.retired.insert(key, service);
    }

    /// Lets the flows of a former agent go on whatever has changed since: they may come by a VIP
    /// that is deleted, or be sent to an address or port of the node that is no longer given.
    /// Called before the programs with the new settings are attached.
    pub(super) fn keep_destinations(&mut self, ports: (u16, u16)) -> Result<(), KernelError> {
        let view = self.adopt()?;
        let sources: BTreeSet<IpAddr> = self.written.values().map(|(_, ip)| *ip).collect();
        let (written, retired) = (&self.written, &mut self.retired);
        self.flows.destinations(|key, backend| {
            let (ip, port) = (key.address.ip(), key.address.port());
            let given = (ports.0..=ports.1).contains(&port) && sources.contains(&ip);
            if given || view.vips.contains_key(&key) {
                return;
            }
            if let Some((backend, _)) = written.get(&backend) {
                retired.insert(key, backend.service);
            }
        })?;
        let mut filter = self.filter.get(&0, 0).map_err(filter_error)?;
        for key in self.retired.keys() {
            set_destination(&mut filter, key);
        }
        self.filter.set(0, filter, 0).map_err(filter_error)
    }

    /// Writes the filter anew: for `view`, and for what flows may still be sent to.
    pub(super) fn write_filter(&mut self, view: &KernelView) -> Result<(), KernelError> {
        self.allowed.clear();
        // While a backend of its service is there, flows may be to what is no longer given.
        let serving: BTreeSet<u32> = self.written.values().map(|(b, _)| b.service).collect();
        self.retired.retain(|_, service| serving.contains(service));
        let filter = self.wanted_filter(view);
        self.filter.set(0, filter, 0).map_err(filter_error)
    }

    /// Whether the filter stops anything that it must let pass. More than that does no harm, and
    /// comes about while sources change.
    pub(super) fn lacks_in_filter(&self, view: &KernelView) -> Result<bool, KernelError> {
        let held = self.filter.get(&0, 0).map_err(filter_error)?;
        let wanted = self.wanted_filter(view);
        let mut words = wanted.words.iter().zip(&held.words);
        Ok(words.any(|(wanted, held)| wanted & !held != 0))
    }

    fn wanted_filter(&self, view: &KernelView) -> DestinationFilter {
        let mut filter = DestinationFilter {
            words: [0; FILTER_WORDS],
        };
        for vip in view.vips.keys().chain(self.retired.keys()) {
            set_destination(&mut filter, vip);
        }
        // Most backends see the same source as the one before them, and say nothing new by it.
        let mut last = None;
        for (backend, source) in self.written.values() {
            if last == Some(*source) && backend.address.ip() != *source {
                continue;
            }
            last = Some(*source);
            set_source(&mut filter, *source, backend.address);
        }
        filter
    }
}

/// Sets what a reply of `backend`, which sees `source`, is asked for. An address is its own source
/// where it is the node's.
fn set_source(filter: &mut DestinationFilter, source: IpAddr, backend: SocketAddr) {
    set_bit(filter, source, 0, 0);
    if backend.ip() == source {
        set_bit(filter, source, backend.port(), hash::FILTER_LOCAL_BACKEND);
    }
}

fn set_bit(filter: &mut DestinationFilter, ip: IpAddr, port: u16, proto: u8) {
    let bit = hash::filter_bit(encode::filter_word(ip), port.to_be(), proto);
    filter.words[(bit / 64) as usize] |= 1 << (bit % 64);
}

/// Sets what a packet to this address, port and protocol is asked for.
fn set_destination(filter: &mut DestinationFilter, key: &VipKey) {
    let ip = key.address.ip();
    set_bit(filter, ip, 0, 0);
    set_bit(filter, ip, key.address.port(), key.protocol);
}

fn filter_error(error: aya::maps::MapError) -> KernelError {
    KernelError::new("writing the destination filter", error)
}
