//! A conversation with the service through both nodes, each of which has chosen a port for it.

use lb_tests::world::PORTS;

use super::{
    pair::Step,
    reading::Reading,
    segment::{Segment, TCP},
    site::{Arrival, BACKENDS, CLIENTS, MACS, NODES, SERVICES, VIPS},
};
use crate::{chance::Random, fuzz::arena::hex, row::Side};

/// The conversation.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) v6: bool,
    pub(crate) proto: u8,
    pub(crate) client: String,
    pub(crate) port: u16,
    /// The ports that the nodes have chosen; 0: none yet.
    pub(crate) given: [u16; 2],
    /// Another port than before may be chosen, for the conversation begins anew.
    pub(crate) anew: bool,
}

impl Flow {
    /// From a client's address, host 2 to [`CLIENTS`], and port.
    pub(crate) fn new(v6: bool, proto: u8, host: u8, port: u16) -> Self {
        assert!((2..=CLIENTS).contains(&host));
        Self {
            v6,
            proto,
            client: match v6 {
                false => format!("10.99.0.{host}"),
                true => format!("fd99::{host}"),
            },
            port,
            given: [0; 2],
            anew: true,
        }
    }

    /// By chance: any family, protocol, client and port.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let proto = SERVICES[random.below(2) as usize].0;
        let host = 2 + random.below(u32::from(CLIENTS) - 1) as u8;
        // A third within the node's range, where ports are kept.
        let port = match random.below(3) {
            0 => 20_000 + random.below(10_000),
            _ => 1 + random.below(65_535),
        };
        Self::new(random.below(2) == 1, proto, host, port as u16)
    }

    fn service(&self) -> (u16, u16) {
        let service = SERVICES.iter().find(|(proto, ..)| *proto == self.proto);
        let (_, port, to) = service.expect("a service of this protocol");
        (*port, *to)
    }

    /// Address of the VIP.
    pub(crate) fn vip(&self) -> &'static str {
        VIPS[usize::from(self.v6)]
    }

    /// Address of the backend.
    pub(crate) fn backend(&self) -> &'static str {
        BACKENDS[usize::from(self.v6)]
    }

    /// The node's address towards the backend.
    pub(crate) fn node(&self) -> &'static str {
        NODES[usize::from(self.v6)]
    }

    /// A plain packet from the client.
    pub(crate) fn request(&self) -> Segment {
        let to = (self.vip(), self.service().0);
        Segment::new(self.proto, (&self.client, self.port), to)
    }

    /// A plain packet from the backend, to the port that this site has chosen.
    pub(crate) fn reply(&self, site: usize) -> Segment {
        let from = (self.backend(), self.service().1);
        Segment::new(self.proto, from, (self.node(), self.given[site]))
    }

    /// The request as it comes out at the backend.
    pub(crate) fn request_behind(&self, site: usize) -> Segment {
        let to = (self.backend(), self.service().1);
        Segment::new(self.proto, (self.node(), self.given[site]), to)
    }

    /// The reply as it comes out at the client.
    pub(crate) fn reply_in_front(&self) -> Segment {
        let from = (self.vip(), self.service().0);
        Segment::new(self.proto, from, (&self.client, self.port))
    }

    /// The client sends a packet that `change` makes of a plain one.
    pub(crate) fn asks(&self, what: &str, change: impl Fn(&mut Segment)) -> Step {
        let mut segment = self.request();
        change(&mut segment);
        Step::same(self.titled(what), Side::Front, segment.from(Side::Front))
    }

    /// The backend sends one.
    pub(crate) fn answers(&self, what: &str, change: impl Fn(&mut Segment)) -> Step {
        let frames = [0, 1].map(|site| {
            let mut segment = self.reply(site);
            change(&mut segment);
            segment.from(Side::Back)
        });
        Step::each(self.titled(what), Side::Back, frames)
    }

    /// What becomes of a frame that comes from this side: ends, link and hops change, nothing else.
    /// Of an error, the ends that are quoted change with them.
    pub(crate) fn translated(&self, from: Side, frame: &[u8]) -> Reading {
        let sent = Reading::of(frame);
        let (port, to) = self.service();
        let in_front = [
            (self.vip(), port.to_string()),
            (&*self.client, self.port.to_string()),
        ];
        let behind = [
            (self.node(), "chosen".to_owned()),
            (self.backend(), to.to_string()),
        ];
        let (macs, [src, dst]) = match from {
            Side::Front => ([MACS[3], MACS[2]], behind),
            Side::Back => ([MACS[0], MACS[1]], in_front),
        };
        let hops = sent.get("TTL").or(sent.get("hop limit"));
        let hops: u8 = hops.and_then(|hops| hops.parse().ok()).unwrap_or(0);
        let hops = hops.saturating_sub(1).to_string();
        let [to_link, from_link] = macs.map(|mac| hex(&mac));
        sent.with(&[
            ("link destination", to_link),
            ("link source", from_link),
            ("TTL", hops.clone()),
            ("hop limit", hops),
            ("source", src.0.to_owned()),
            ("source port", src.1.clone()),
            ("destination", dst.0.to_owned()),
            ("destination port", dst.1.clone()),
            ("quoted source", dst.0.to_owned()),
            ("quoted source port", dst.1),
            ("quoted destination", src.0.to_owned()),
            ("quoted destination port", src.1),
        ])
    }

    fn titled(&self, what: &str) -> String {
        let proto = if self.proto == TCP { "TCP" } else { "UDP" };
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        format!("{proto} over {family}: {what}")
    }

    /// Takes note of the port that a request left with, and looks at every other place where it
    /// stands.
    ///
    /// # Errors
    ///
    /// It is another one than before, though the conversation goes on, or out of range.
    pub(crate) fn learn(&mut self, site: usize, arrivals: &[Arrival]) -> Result<(), String> {
        for (side, frame) in arrivals {
            let reading = Reading::of(frame);
            let request = matches!(side, Side::Back)
                && reading.get("source") == Some(self.node())
                && reading.get("destination port").is_some();
            for port in reading.given {
                let given = &mut self.given[site];
                if !(PORTS.0..=PORTS.1).contains(&port) {
                    return Err(format!("port {port} is out of range"));
                }
                if request && self.anew {
                    *given = port;
                }
                if port != *given {
                    return Err(format!("port {port}, though {given} was chosen"));
                }
            }
        }
        Ok(())
    }
}
