//! A block list of any length, and packets from all over it.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Ingress, Part, Traffic};
use crate::packet::Packet;

/// Rule `number` of the list: one in each /24 from 100.64.0.0 on, of mixed lengths, all with the
/// address that ends in 7.
///
/// # Errors
///
/// None that a number below 2^24 could cause.
pub fn block_rule(number: u32) -> Result<IpNet> {
    let length = [24, 32, 28, 30][number as usize % 4];
    let address = u32::from_be_bytes([100, 64, 0, 7]) + (number << 8);
    Ok(Ipv4Net::new(address.into(), length)?.trunc().into())
}

/// The same for IPv6: a network or an address of it in each /64 from 2001:db8:: on.
///
/// # Errors
///
/// None that a number could cause.
pub fn block_rule6(number: u32) -> Result<IpNet> {
    let length = [64, 128][number as usize % 2];
    let address = u128::from(BLOCKED6) + (u128::from(number) << 64);
    Ok(Ipv6Net::new(address.into(), length)?.trunc().into())
}

/// The first blocked IPv6 source.
const BLOCKED6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// `packet` from all the sources that a list of `rules` blocks, in no order. The driver's numbers
/// are below a power of two: up to half of the rules are never met.
///
/// # Errors
///
/// No rule at all.
pub fn blocked_sources(packet: &Packet, rules: u32) -> Result<Traffic> {
    let v6 = packet.dst.is_ipv6();
    let from = Packet {
        src: if v6 {
            BLOCKED6.into()
        } else {
            Ipv4Addr::new(100, 64, 0, 7).into()
        },
        ..packet.clone()
    };
    let met = 1 << rules.checked_ilog2().unwrap_or(0);
    let part = if v6 {
        Part::SourceSubnet
    } else {
        Part::SourceNetwork
    };
    Traffic::new(&from, Ingress::Front, met, &[(part, 0, u32::MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_holds_its_source() -> Result<()> {
        for number in [0, 1, 2, 3, 9_999, 999_999] {
            let source = u32::from_be_bytes([100, 64, 0, 7]) + number * 256;
            let source = IpNet::from(std::net::IpAddr::from(source.to_be_bytes()));
            assert!(block_rule(number)?.contains(&source), "{number}");
            let source = u128::from(BLOCKED6) + (u128::from(number) << 64);
            let source = IpNet::from(std::net::IpAddr::from(Ipv6Addr::from(source)));
            assert!(block_rule6(number)?.contains(&source), "{number}");
        }
        Ok(())
    }
}
