//! New flows: backend, port, both halves.

use std::net::{IpAddr, SocketAddr};

use lb_agent::domain::service::{Affinity, Forwarding};
use lb_common::{
    flow::{Kind, State, tcp_flags::RST},
    hash,
    verdict::Verdict,
};

use super::{
    Model,
    fault::Fault,
    parse::Parsed,
    table::{Half, Key, Refused, Way},
};

/// Ports tried for a new flow.
const PORT_PROBES: u64 = 12;
/// From this one on, a closed flow's port will do.
const CLOSED_PROBE: u64 = 8;
/// Of these, how many may meet full buckets.
const FULL_PROBES: u64 = 2;

/// Whether a host may send from this address.
fn is_hosts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (1..224).contains(&address.octets()[0]) && !address.is_loopback(),
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    }
}

impl Model {
    /// Begins a flow with this packet.
    pub(super) fn begin(&mut self, packet: &Parsed, ingress: u32) -> Result<(), Verdict> {
        let key = packet.key();
        let v6 = packet.ip.is_v6();
        let Some(service) = self.destinations.service(&key) else {
            return Err(if self.node.gives(key.dst.port()) {
                Verdict::PassUnknownReply
            } else {
                Verdict::PassForeign
            });
        };
        if !is_hosts(packet.ip.src) && !self.errs(Fault::AnswersNobody) {
            return Err(Verdict::PassMalformed);
        }
        if !self.destinations.admits(service, key.src.ip()) && !self.errs(Fault::AdmitsAll) {
            return Err(Verdict::DropNotAllowed);
        }
        if packet.transport.flags & RST != 0 && !self.errs(Fault::ResetsBegin) {
            return Err(Verdict::DropNoFlow);
        }
        let any = self.errs(Fault::SelectsInactive);
        let drawn = self.table(v6).hash(&key);
        let chooses = match service.treatment.affinity {
            Affinity::Client if !self.errs(Fault::ForgetsClients) => {
                self.table(v6).client_hash(key.src.ip())
            }
            _ => drawn,
        };
        let (id, backend) = self
            .destinations
            .select(service, chooses, any)
            .ok_or(Verdict::DropNoBackend)?;
        let neighbour = self.node.neighbours.get(&backend.address.ip());
        let backend_way = neighbour
            .map(|neighbour| self.node.towards(neighbour))
            .ok_or(Verdict::PassUnresolved)?;
        if packet.ip.ttl <= 1 {
            return Err(Verdict::DropTtlExceeded);
        }
        let client_way = self
            .way_back(packet, ingress)
            .ok_or(Verdict::DropInternal)?;

        self.begun += 1;
        let forward = Half {
            flow: self.begun,
            serial: self.begun,
            kind: Kind::Forward,
            key,
            // The port is not known yet.
            new_src: SocketAddr::new(self.node.source(v6), 0),
            new_dst: backend.address,
            way: backend_way,
            forwarding: service.treatment.forwarding,
            backend: id,
            state: State::HalfOpen,
            seen: self.now,
        };
        if service.treatment.forwarding != Forwarding::Nat {
            return self.begin_alone(forward);
        }
        let port = self.claim_port(&forward, &client_way, drawn)?;
        let forward = Half {
            new_src: SocketAddr::new(forward.new_src.ip(), port),
            ..forward
        };
        let reply = Key {
            src: forward.new_dst,
            dst: forward.new_src,
            proto: key.proto,
        };
        match self.insert(forward, |_| false) {
            Ok(()) => {
                self.destinations.count_flow(id);
                Ok(())
            }
            Err(refused) => {
                self.table(v6).remove(&reply);
                Err(match refused {
                    Refused::Full => Verdict::DropTableFull,
                    Refused::Exists => Verdict::DropContended,
                })
            }
        }
    }

    /// Begins a flow whose answers do not come by here.
    fn begin_alone(&mut self, forward: Half) -> Result<(), Verdict> {
        let id = forward.backend;
        match self.insert(forward, |_| false) {
            Ok(()) => {
                self.destinations.count_flow(id);
                Ok(())
            }
            Err(Refused::Full) => Err(Verdict::DropTableFull),
            Err(Refused::Exists) => Err(Verdict::DropContended),
        }
    }

    /// Inserts the reply half under a port that is free towards the backend; answers with it.
    fn claim_port(&mut self, forward: &Half, way: &Way, drawn: u64) -> Result<u16, Verdict> {
        let kept = forward.key.src.port();
        let (first, last) = self.node.ports;
        for probe in 0..PORT_PROBES {
            let port = if probe == 0 && self.node.gives(kept) && !self.errs(Fault::DrawsPort) {
                kept
            } else {
                let drawn = hash::finish(hash::mix(drawn, probe + 1));
                first + hash::scale(drawn, u32::from(last - first) + 1) as u16
            };
            let reply = Half {
                kind: Kind::Reply,
                key: Key {
                    src: forward.new_dst,
                    dst: SocketAddr::new(forward.new_src.ip(), port),
                    proto: forward.key.proto,
                },
                new_src: forward.key.dst,
                new_dst: forward.key.src,
                way: way.clone(),
                ..forward.clone()
            };
            let takes_closed = probe >= CLOSED_PROBE && !self.errs(Fault::SparesPorts);
            let takes_own = !self.errs(Fault::SparesOwnPorts);
            let to = (reply.new_src, reply.new_dst);
            let takes = |former: &Half| {
                let own = (former.new_src, former.new_dst) == to;
                takes_closed || takes_own && own && former.state == State::Finished
            };
            match self.insert(reply, takes) {
                Ok(()) => return Ok(port),
                Err(Refused::Exists) => {}
                Err(Refused::Full) if probe < FULL_PROBES => {}
                Err(Refused::Full) => return Err(Verdict::DropTableFull),
            }
        }
        Err(Verdict::DropPortsExhausted)
    }

    fn insert(&mut self, half: Half, takes: impl Fn(&Half) -> bool) -> Result<(), Refused> {
        let index = usize::from(half.key.src.is_ipv6());
        let leaves_other = self.errs(Fault::LeavesHalf);
        let mut table = std::mem::take(&mut self.tables[index]);
        let answer = table.insert(half, |former| self.readiness(former), takes, leaves_other);
        self.tables[index] = table;
        answer
    }
}
