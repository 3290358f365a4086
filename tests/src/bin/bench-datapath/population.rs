//! Flows by their number, and their packets in both directions.
//!
//! Flow `n` of a population goes from one client, port 16384 + n / 64, to one of 64 VIPs, each of
//! which has one backend: address n % 8, port n / 8 % 8 of it. So the reply's addresses and ports
//! follow from the number as well: the client's port is kept, for nobody else has it there.

use anyhow::Result;
use lb_common::{IPPROTO_TCP, IPPROTO_UDP};
use lb_tests::{
    bench::{Ingress, Part, Traffic},
    packet::Packet,
    world::{CLIENT, CLIENT6, NODE, NODE6},
};

/// Number of VIPs of each protocol and family.
pub(crate) const VIPS: u32 = 64;
/// The client's port in flow 0.
const CLIENT_PORT: u16 = 16_384;
/// The backends' first port.
const BACKEND_PORT: u16 = 8080;

/// Flows of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Population {
    /// IPv6 instead of IPv4.
    pub(crate) v6: bool,
    /// UDP instead of TCP.
    pub(crate) udp: bool,
    /// How many; a power of two.
    pub(crate) flows: u32,
}

impl Population {
    /// IANA protocol number.
    pub(crate) fn protocol(self) -> u8 {
        if self.udp { IPPROTO_UDP } else { IPPROTO_TCP }
    }

    /// Port of the VIPs.
    pub(crate) fn vip_port(self) -> u16 {
        if self.udp { 53 } else { 80 }
    }

    /// VIP `number` of [`VIPS`], without the port.
    pub(crate) fn vip(self, number: u32) -> String {
        if self.v6 {
            format!("2001:db8:100::{:x}", 64 + number)
        } else {
            format!("198.51.100.{}", 64 + number)
        }
    }

    /// The backend of VIP `number`.
    pub(crate) fn backend(self, number: u32) -> String {
        let (address, port) = (2 + number % 8, u32::from(BACKEND_PORT) + number / 8);
        if self.v6 {
            format!("[fd99:1::{address}]:{port}")
        } else {
            format!("10.99.1.{address}:{port}")
        }
    }

    /// Packets of the first `flows` flows, from the client; `flags` count for TCP only.
    pub(crate) fn requests(self, flows: u32, flags: u8) -> Result<Traffic> {
        let client = if self.v6 { CLIENT6 } else { CLIENT };
        let (vip, port) = (self.vip(0), self.vip_port());
        let packet = self.packet((client, CLIENT_PORT), (&vip, port), flags);
        let fields = [
            (Part::Destination, 0, VIPS - 1),
            (Part::SourcePort, 6, u32::MAX),
        ];
        Traffic::new(&packet, Ingress::Front, flows, &fields)
    }

    /// Packets of the first `flows` flows, from the backends.
    pub(crate) fn replies(self, flows: u32, flags: u8) -> Result<Traffic> {
        let (backend, node) = if self.v6 {
            ("fd99:1::2", NODE6)
        } else {
            ("10.99.1.2", NODE)
        };
        let packet = self.packet((backend, BACKEND_PORT), (node, CLIENT_PORT), flags);
        let fields = [
            (Part::Source, 0, 7),
            (Part::SourcePort, 3, 7),
            (Part::DestinationPort, 6, u32::MAX),
        ];
        Traffic::new(&packet, Ingress::Back, flows, &fields)
    }

    fn packet(self, from: (&str, u16), to: (&str, u16), flags: u8) -> Packet {
        if self.udp {
            Packet::udp(from.0, from.1, to.0, to.1)
        } else {
            Packet::tcp(from.0, from.1, to.0, to.1, flags)
        }
    }
}
