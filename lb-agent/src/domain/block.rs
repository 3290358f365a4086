//! The block list: who may not send to anything behind this node.

use std::{net::IpAddr, time::SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One rule as a person gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRule {
    /// The prefix, host bits cleared. A single address is a full-length prefix.
    pub prefix: IpNet,
    /// Why, in the words of whoever added it; may be empty.
    pub reason: String,
    /// Since when.
    pub added: SystemTime,
    /// When it ends by itself; `None`: never.
    pub expires: Option<SystemTime>,
}

/// Reads an address (`192.0.2.7`, `2001:db8::7`) or a prefix (`192.0.2.0/24`). Host bits are
/// cleared; an IPv4-mapped IPv6 address counts as the IPv4 address.
///
/// # Errors
///
/// A sentence that names what was given.
pub fn parse_prefix(text: &str) -> Result<IpNet, InvalidPrefix> {
    let invalid = || InvalidPrefix(text.to_owned());
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(addr.to_canonical()));
    }
    let net: IpNet = text.parse().map_err(|_| invalid())?;
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && v6.prefix_len() >= 96
    {
        return IpNet::new(v4.into(), v6.prefix_len() - 96)
            .map(|net| net.trunc())
            .map_err(|_| invalid());
    }
    Ok(net.trunc())
}

/// The text is neither an address nor a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an IP address nor a prefix such as 192.0.2.0/24 or 2001:db8::/32")]
pub struct InvalidPrefix(pub String);
