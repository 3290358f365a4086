//! Who asks for which host and path: an index that costs the same with thousands of entries.

use std::{collections::HashMap, sync::Arc};

use crate::domain::{route::Text, tag_route::TagRoute};

/// Longest name of a host (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// Who a request for a host and path is for, and by which claim.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) service: Arc<str>,
    /// In short: `web.example/admin*`.
    pub(super) name: Arc<str>,
    /// A tag says so, which is worth telling; not the service's name or its `hosts`.
    pub(super) by_tag: bool,
}

/// By host: exact names, then wildcards, then those that ask for any host.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Paths>,
    /// By what follows `*.`.
    wildcards: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// By path: exact ones, then prefixes, longest first.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Claim>,
    prefixes: HashMap<Box<str>, Claim>,
    /// Lengths of `prefixes`, each once, longest first.
    lengths: Vec<usize>,
}

impl Paths {
    fn claims(&self) -> usize {
        self.exact.len() + self.prefixes.len()
    }

    fn find(&self, path: &str) -> Option<&Claim> {
        if !self.exact.is_empty()
            && let Some(claim) = self.exact.get(path)
        {
            return Some(claim);
        }
        let lengths = self.lengths.iter();
        lengths
            .filter_map(|length| path.get(..*length))
            .find_map(|prefix| self.prefixes.get(prefix))
    }
}

impl Hosts {
    /// Notes a claim. The first for a host and path counts; answers with whose it is otherwise.
    pub(super) fn claim(&mut self, route: &TagRoute, claim: Claim) -> Result<(), Arc<str>> {
        let paths = match route.host.as_deref() {
            None => &mut self.any,
            Some(host) => match host.strip_prefix("*.") {
                Some(domain) => self.wildcards.entry(domain.into()).or_default(),
                None => self.exact.entry(host.into()).or_default(),
            },
        };
        let (map, key) = match &route.path {
            Some(Text::Exact(path)) => (&mut paths.exact, path.as_str()),
            Some(Text::Prefix(path)) => (&mut paths.prefixes, path.as_str()),
            // Tags ask for nothing else.
            _ => (&mut paths.prefixes, ""),
        };
        if let Some(former) = map.get(key) {
            return match former.service == claim.service {
                true => Ok(()),
                false => Err(former.service.clone()),
            };
        }
        map.insert(key.into(), claim);
        if !matches!(route.path, Some(Text::Exact(_)))
            && let Err(place) = paths
                .lengths
                .binary_search_by(|length| key.len().cmp(length))
        {
            paths.lengths.insert(place, key.len());
        }
        Ok(())
    }

    /// Whom a request is for. The host may carry a port, a last dot and capital letters.
    pub(super) fn find(&self, host: &str, path: &str) -> Option<&Claim> {
        let mut small = [0; LONGEST];
        let Some(host) = name_of(host, &mut small) else {
            return self.any.find(path);
        };
        let exact = self.exact.get(host);
        if let Some(claim) = exact.and_then(|paths| paths.find(path)) {
            return Some(claim);
        }
        if !self.wildcards.is_empty() {
            // From the longest to the shortest; the star stands for one label or more.
            let dots = host.match_indices('.').filter(|(at, _)| *at > 0);
            let mut domains = dots.filter_map(|(at, _)| self.wildcards.get(&host[at + 1..]));
            if let Some(claim) = domains.find_map(|paths| paths.find(path)) {
                return Some(claim);
            }
        }
        self.any.find(path)
    }

    /// Hosts and paths that are asked for.
    pub(super) fn len(&self) -> usize {
        let paths = self.exact.values().chain(self.wildcards.values());
        let paths = paths.chain([&self.any]);
        paths.map(Paths::claims).sum()
    }
}

/// The name alone, in small letters. `None`: there is none, or it is too long to be one.
fn name_of<'b>(host: &str, small: &'b mut [u8; LONGEST]) -> Option<&'b str> {
    let name = match host.rsplit_once(':') {
        // An address of IPv6 has colons of its own, within brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let small = small.get_mut(..name.len()).filter(|own| !own.is_empty())?;
    small.copy_from_slice(name.as_bytes());
    small.make_ascii_lowercase();
    std::str::from_utf8(small).ok()
}

#[cfg(test)]
mod tests;
