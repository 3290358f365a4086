//! The block list: who may not send to anything behind this node.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    time::SystemTime,
};

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
    /// Where it came from.
    #[serde(default)]
    pub origin: Origin,
}

/// Where a rule came from. Decides what an import replaces, and where the rule is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A person, by `block add`. Stays until it is deleted or ends.
    #[default]
    Operator,
    /// A list, by `block import`.
    Import,
    /// A key in Consul, by `block add --fleet`.
    Fleet,
}

impl Origin {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Operator => "operator",
            Origin::Import => "import",
            Origin::Fleet => "fleet",
        }
    }
}

/// A prefix that is never blocked, whatever the block list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exception {
    /// The prefix, host bits cleared.
    pub prefix: IpNet,
    /// It stands in the configuration, so that no command deletes it.
    pub configured: bool,
    /// Since when, if by a command.
    pub added: Option<SystemTime>,
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

/// Prefixes to look addresses up in, in time that does not grow with their number.
#[derive(Clone, Debug, Default)]
pub struct PrefixSet {
    prefixes: HashSet<IpNet>,
    /// Lengths that occur, IPv4 and IPv6.
    lengths: [BTreeSet<u8>; 2],
}

impl PrefixSet {
    /// Whether some prefix contains the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().any(|length| {
            IpNet::new(address, *length).is_ok_and(|net| self.prefixes.contains(&net.trunc()))
        })
    }

    /// Whether there is any prefix of IPv4 (or IPv6).
    pub fn has(&self, v6: bool) -> bool {
        !self.lengths[usize::from(v6)].is_empty()
    }
}

impl<'a> FromIterator<&'a IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = &'a IpNet>>(prefixes: I) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            let v6 = matches!(prefix, IpNet::V6(_));
            set.lengths[usize::from(v6)].insert(prefix.prefix_len());
            set.prefixes.insert(prefix.trunc());
        }
        set
    }
}

/// Addresses whose loss would hurt the node itself.
#[derive(Clone, Debug, Default)]
pub struct Vital {
    /// Address and what it is, as in "this node's own address".
    pub addresses: Vec<(IpAddr, String)>,
}

impl Vital {
    /// Why it would be foolish to block `prefix`; `None` if it would not.
    pub fn objection(&self, prefix: &IpNet) -> Option<String> {
        if prefix.prefix_len() == 0 {
            return Some(format!("{prefix} is everybody"));
        }
        self.addresses
            .iter()
            .find(|(address, _)| prefix.contains(address))
            .map(|(address, what)| format!("{prefix} contains {address}, {what}"))
    }

    /// What [`Self::objection`] has against each of them, in time that does not grow with the
    /// product of both numbers.
    pub fn objections(&self, prefixes: &[IpNet]) -> Vec<String> {
        let set: PrefixSet = prefixes.iter().collect();
        let is_hit = |(address, _): &&(IpAddr, String)| set.contains(*address);
        let near = Vital {
            addresses: self.addresses.iter().filter(is_hit).cloned().collect(),
        };
        let suspects = prefixes
            .iter()
            .filter(|prefix| prefix.prefix_len() == 0 || !near.addresses.is_empty());
        suspects
            .filter_map(|prefix| near.objection(prefix))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of what is given and what it is taken for; `None`: refused.
    #[test]
    fn prefixes_are_read_or_refused() {
        let rows = [
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("192.0.2.7/24", Some("192.0.2.0/24")),
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:db8::7", Some("2001:db8::7/128")),
            ("2001:DB8::7/32", Some("2001:db8::/32")),
            ("::/0", Some("::/0")),
            ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
            ("::ffff:192.0.2.7/120", Some("192.0.2.0/24")),
            ("192.0.2.7/33", None),
            ("2001:db8::/129", None),
            ("192.0.2", None),
            ("192.0.2.0/", None),
            ("192.0.2.0/-1", None),
            ("example.com", None),
            ("", None),
            (" 192.0.2.7", None),
            ("192.0.2.7-9", None),
        ];
        for (text, expected) in rows {
            let got = parse_prefix(text).ok().map(|net| net.to_string());
            assert_eq!(got.as_deref(), expected, "{text:?}");
        }
        let error = parse_prefix("300.1.1.1").unwrap_err().to_string();
        assert!(error.contains("`300.1.1.1`"), "{error}");
    }

    /// The set says of each address what its prefixes say one by one.
    #[test]
    fn a_set_contains_what_its_prefixes_contain() {
        let texts = [
            "10.0.0.0/8",
            "192.0.2.7",
            "198.51.100.0/25",
            "2001:db8::/33",
        ];
        let prefixes = texts.map(|text| parse_prefix(text).unwrap());
        let set: PrefixSet = prefixes.iter().collect();
        let addresses = [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("198.51.100.127", true),
            ("198.51.100.128", false),
            ("2001:db8:7fff::1", true),
            ("2001:db8:8000::1", false),
            ("::a00:1", false),
        ];
        for (text, expected) in addresses {
            assert_eq!(set.contains(text.parse().unwrap()), expected, "{text}");
        }
        assert!(set.has(false) && set.has(true));
        let one: PrefixSet = prefixes[..1].iter().collect();
        assert!(one.has(false) && !one.has(true));
        let everybody: PrefixSet = [parse_prefix("::/0").unwrap()].iter().collect();
        assert!(everybody.contains("2001:db8::1".parse().unwrap()));
    }

    /// What is vital is named; what is not may be blocked.
    #[test]
    fn objections() {
        let vital = Vital {
            addresses: vec![
                (
                    "10.0.0.1".parse().unwrap(),
                    "this node's own address".into(),
                ),
                ("2001:db8::1".parse().unwrap(), "the Consul server".into()),
            ],
        };
        let objection = |text: &str| vital.objection(&parse_prefix(text).unwrap());
        assert_eq!(objection("0.0.0.0/0").unwrap(), "0.0.0.0/0 is everybody");
        assert_eq!(objection("::/0").unwrap(), "::/0 is everybody");
        assert_eq!(
            objection("10.0.0.0/8").unwrap(),
            "10.0.0.0/8 contains 10.0.0.1, this node's own address"
        );
        assert!(objection("10.0.0.1").is_some());
        assert!(
            objection("2001:db8::/32")
                .unwrap()
                .contains("the Consul server")
        );
        assert_eq!(objection("10.0.0.2"), None);
        assert_eq!(objection("2001:db9::/32"), None);
    }
}
