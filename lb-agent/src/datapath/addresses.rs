//! The node's own addresses on its interfaces, which its ICMP errors come from.

use std::{collections::HashMap, net::IpAddr};

use futures_util::TryStreamExt as _;
use lb_common::entry::InterfaceAddresses;
use rtnetlink::{
    Handle,
    packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
};

use super::encode;
use crate::domain::kernel::KernelError;

/// Addresses that are not to be shown to others, or not yet.
const UNFIT: AddressHeaderFlags = AddressHeaderFlags::Tentative
    .union(AddressHeaderFlags::Dadfailed)
    .union(AddressHeaderFlags::Deprecated);

/// The first global address of each family on each interface, by its index.
pub(super) async fn read(handle: &Handle) -> Result<HashMap<u32, InterfaceAddresses>, KernelError> {
    let failed = |error| KernelError::new("reading the node's addresses", error);
    let mut addresses: HashMap<u32, InterfaceAddresses> = HashMap::new();
    let mut answer = handle.address().get().execute();
    while let Some(message) = answer.try_next().await.map_err(failed)? {
        let fit = message.header.scope == AddressScope::Universe
            && !message.header.flags.intersects(UNFIT);
        let (true, Some(ip)) = (fit, own(&message)) else {
            continue;
        };
        let entry = addresses.entry(message.header.index).or_default();
        match ip {
            IpAddr::V4(_) if entry.v4 == 0 => entry.v4 = encode::words(ip)[0],
            IpAddr::V6(_) if entry.v6 == [0; 4] => entry.v6 = encode::words(ip),
            _ => {}
        }
    }
    Ok(addresses)
}

/// On a point-to-point link `Address` is the peer's, and `Local` the node's.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => found = Some(*ip),
            _ => {}
        }
    }
    found
}
