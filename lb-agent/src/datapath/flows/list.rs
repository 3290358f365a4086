//! The flow tables as a list of flows: only read, so that packets notice nothing.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::flow::{Kind, State};

use super::{Entry, Fate, FlowTables};
use crate::{
    datapath::encode,
    domain::{
        flow::{Flow, FlowReader},
        kernel::KernelError,
    },
};

impl FlowReader for FlowTables {
    fn each(&self, see: &mut dyn FnMut(&Flow)) -> Result<(), KernelError> {
        let now = self.clock.now();
        self.visit::<u32, 0>(&self.v4, |entry| {
            if let Some(flow) = self.flow(entry, now, |addr| encode::ip([*addr, 0, 0, 0], false)) {
                see(&flow);
            }
            Fate::Keep
        })?;
        self.visit::<[u32; 4], 4>(&self.v6, |entry| {
            if let Some(flow) = self.flow(entry, now, |addr| encode::ip(*addr, true)) {
                see(&flow);
            }
            Fate::Keep
        })
    }
}

impl FlowTables {
    /// The flow of a forward half that is not past its time.
    fn flow<A>(&self, entry: &Entry<A>, now: u32, ip: impl Fn(&A) -> IpAddr) -> Option<Flow> {
        let Entry { tag, half, .. } = entry;
        let over = self
            .lifetimes
            .is_over(tag.proto(), tag.state_bits(), now, half.seen);
        if over || tag.kind() != Some(Kind::Forward) {
            return None;
        }
        let [client, vip] = ports(half.ports);
        let [source, backend] = ports(half.new_ports);
        // Noted after the clock was read: just now.
        let idle = now.wrapping_sub(half.seen).cast_signed().max(0);
        Some(Flow {
            protocol: tag.proto(),
            client: SocketAddr::new(ip(&half.saddr), client),
            vip: SocketAddr::new(ip(&half.daddr), vip),
            source: SocketAddr::new(ip(&half.new_saddr), source),
            backend: SocketAddr::new(ip(&half.new_daddr), backend),
            backend_id: half.backend,
            state: State::from_bits(tag.state_bits())?,
            idle: Duration::from_secs(idle.cast_unsigned().into()) / self.clock.per_second(),
        })
    }
}

/// Source and destination port of a packet's four bytes.
fn ports(ports: u32) -> [u16; 2] {
    [ports as u16, (ports >> 16) as u16].map(u16::from_be)
}
