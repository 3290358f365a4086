//! The four kinds of traffic that there are, so that every test can be of all of them.

use std::net::IpAddr;

use lb_agent::domain::kernel::{KernelBackend, KernelVip, Recipe, Step, Treatment, VipKey};
use lb_common::{flow::State, verdict::Verdict};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{
        BACK_MAC, CLIENT, CLIENT6, FRONT_MAC, NODE, NODE6, Outcome, World, answer_to, backend_mac,
    },
};

/// Port of all VIPs.
pub(crate) const VIP_PORT: u16 = 80;
/// Port that all backends listen on.
pub(crate) const BACKEND_PORT: u16 = 8080;
/// Slots of all Maglev tables.
pub(crate) const SLOTS: u32 = 1021;

/// A family and a protocol. Each has a VIP of its own, whose service is called [`Traffic::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Traffic {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
}

/// All of them.
pub(crate) const ALL: [Traffic; 4] = [TCP4, UDP4, TCP6, UDP6];
pub(crate) const TCP4: Traffic = Traffic {
    v6: false,
    tcp: true,
};
pub(crate) const UDP4: Traffic = Traffic {
    v6: false,
    tcp: false,
};
pub(crate) const TCP6: Traffic = Traffic {
    v6: true,
    tcp: true,
};
pub(crate) const UDP6: Traffic = Traffic {
    v6: true,
    tcp: false,
};

impl Traffic {
    /// IANA protocol number.
    pub(crate) fn proto(self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    /// Id of the service.
    pub(crate) fn id(self) -> u32 {
        u32::from(self.v6) * 2 + u32::from(!self.tcp)
    }

    /// Id of the backend with this host number.
    pub(crate) fn backend_id(self, number: u8) -> u32 {
        self.id() * 128 + u32::from(number)
    }

    pub(crate) fn client(self) -> &'static str {
        if self.v6 { CLIENT6 } else { CLIENT }
    }

    pub(crate) fn vip(self) -> &'static str {
        if self.v6 {
            "2001:db8::10"
        } else {
            "198.51.100.10"
        }
    }

    /// Address that backends see as the client.
    pub(crate) fn node(self) -> &'static str {
        if self.v6 { NODE6 } else { NODE }
    }

    /// Address of the backend with this host number.
    pub(crate) fn backend(self, number: u8) -> String {
        if self.v6 {
            format!("fd99:1::{number}")
        } else {
            format!("10.99.1.{number}")
        }
    }

    pub(crate) fn key(self) -> VipKey {
        VipKey {
            address: (ip(self.vip()), VIP_PORT).into(),
            protocol: self.proto(),
        }
    }

    /// A packet of this protocol.
    pub(crate) fn packet(
        self,
        (src, sport): (&str, u16),
        (dst, dport): (&str, u16),
        flags: u8,
    ) -> Packet {
        if self.tcp {
            Packet::tcp(src, sport, dst, dport, flags)
        } else {
            Packet::udp(src, sport, dst, dport)
        }
    }

    /// A packet from the usual client to the VIP.
    pub(crate) fn request(self, sport: u16, flags: u8) -> Packet {
        self.packet((self.client(), sport), (self.vip(), VIP_PORT), flags)
    }

    /// A packet from a backend to a port of the node.
    pub(crate) fn stray(self, number: u8, port: u16, flags: u8) -> Packet {
        self.packet(
            (&self.backend(number), BACKEND_PORT),
            (self.node(), port),
            flags,
        )
    }

    /// What the backend gets of a request, if the node's port is `port`.
    pub(crate) fn at_backend(self, request: &Packet, number: u8, port: u16) -> Packet {
        Packet {
            dmac: backend_mac(number),
            smac: BACK_MAC,
            src: ip(self.node()),
            dst: ip(&self.backend(number)),
            sport: port,
            dport: BACKEND_PORT,
            ttl: request.ttl - 1,
            ..request.clone()
        }
    }

    /// The step that writes a backend.
    pub(crate) fn put_backend(self, number: u8, active: bool) -> Step {
        let entry = KernelBackend {
            service: self.id(),
            address: (ip(&self.backend(number)), BACKEND_PORT).into(),
            active,
        };
        Step::PutBackend(self.backend_id(number), entry)
    }

    /// The step that writes the table: backends by host number, with weights.
    pub(crate) fn put_table(self, weights: &[(u8, u32)]) -> Step {
        let weights = weights
            .iter()
            .map(|(number, weight)| (self.backend_id(*number), *weight))
            .collect();
        let slots = SLOTS;
        Step::PutTable(self.id(), Recipe { weights, slots })
    }

    /// The step that writes the VIP.
    pub(crate) fn put_vip(self, treatment: Treatment) -> Step {
        let vip = KernelVip {
            service: self.id(),
            slots: SLOTS,
            treatment,
        };
        Step::PutVip(self.key(), vip)
    }

    /// Has the VIP served by backends with weights.
    pub(crate) fn serve_weighted(self, world: &mut World, weights: &[(u8, u32)]) {
        let mut steps: Vec<Step> = weights
            .iter()
            .map(|(number, _)| self.put_backend(*number, true))
            .collect();
        steps.push(self.put_table(weights));
        steps.push(self.put_vip(Treatment::default()));
        world.apply(&steps).expect("steps");
    }

    /// Has the VIP served by backends of equal weight.
    pub(crate) fn serve(self, world: &mut World, numbers: &[u8]) {
        let weights: Vec<(u8, u32)> = numbers.iter().map(|number| (*number, 1)).collect();
        self.serve_weighted(world, &weights);
    }

    /// Opens a flow and carries it on until both sides are heard; answers with what the backend
    /// got first, or with the verdict for a client that was refused.
    pub(crate) fn establish(self, world: &mut World, request: &Packet) -> Result<Packet, Verdict> {
        let first = Packet {
            flags: SYN,
            ..request.clone()
        };
        let sent = forwarded(world.request(&first))?;
        let back = forwarded(world.reply(&answer_to(&sent, SYN | ACK)))?;
        assert_eq!(back, at_client(request, &answer_to(&sent, SYN | ACK)));
        let third = Packet {
            flags: ACK,
            ..request.clone()
        };
        let again = forwarded(world.request(&third))?;
        assert_eq!((again.dst, again.sport), (sent.dst, sent.sport));
        Ok(sent)
    }
}

/// What the client gets of an answer to its request.
pub(crate) fn at_client(request: &Packet, answer: &Packet) -> Packet {
    Packet {
        dmac: request.smac,
        smac: FRONT_MAC,
        src: request.dst,
        dst: request.src,
        sport: request.dport,
        dport: request.sport,
        ttl: answer.ttl - 1,
        flags: if request.proto == 6 { answer.flags } else { 0 },
        ..answer.clone()
    }
}

/// The packet out; the verdict of one that was not forwarded.
pub(crate) fn forwarded(outcome: Outcome) -> Result<Packet, Verdict> {
    match outcome.verdict {
        Verdict::ForwardRequest | Verdict::ForwardReply => Ok(outcome.packet()),
        verdict => Err(verdict),
    }
}

/// Host number of the backend that a packet went to.
pub(crate) fn number_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

/// Slots in use, as the agent counts them: one family's, by state.
pub(crate) fn used(world: &World, v6: bool, state: State) -> u64 {
    let census = world.datapath.flows().sweep().expect("a sweep");
    let used = if v6 { census.used6 } else { census.used4 };
    used[state as usize]
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
