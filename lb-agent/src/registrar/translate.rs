//! From a container to what is registered of it, by registrator's rules: pure.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{
    check,
    container::{Container, Network, Port},
    metadata::{Metadata, Word, Words, list},
    registration::{META_LIMITS, OWNER, PRINT, Registration},
};
use crate::config::Addresses;

/// What is the same for all containers.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Under which addresses they are registered.
    pub(super) addresses: Addresses,
    /// What ids begin with.
    pub(super) prefix: String,
    /// Tags for all.
    pub(super) tags: Vec<String>,
    /// Only what has a name of its own.
    pub(super) explicit: bool,
}

/// Something in a container's labels or variables that was not followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Warning {
    /// The container's name.
    pub(super) container: String,
    /// Where it stands and what is wrong.
    pub(super) text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {}: {}", self.container, self.text)
    }
}

/// Why a paused container gets nothing new, as people read it in Consul.
pub(super) const PAUSED: &str = "the container is paused (lb-agent)";

/// The same for one that has been told to end.
pub(super) const STOPPING: &str = "the container is told to stop (lb-agent)";

/// Registrations of a container, which is in the network of `host` (itself, nearly always).
pub(super) fn translate(
    container: &Container,
    host: &Container,
    rules: &Rules,
) -> (Vec<Registration>, Vec<Warning>) {
    let mut translation = Translation {
        container,
        rules,
        warnings: Vec::new(),
    };
    let registrations = if container.running {
        translation.registrations(host)
    } else {
        Vec::new()
    };
    (registrations, translation.warnings)
}

struct Translation<'a> {
    container: &'a Container,
    rules: &'a Rules,
    warnings: Vec<Warning>,
}

impl Translation<'_> {
    fn registrations(&mut self, host: &Container) -> Vec<Registration> {
        let metadata = Metadata::of(self.container);
        let endpoints = endpoints(self.container, host, &self.rules.addresses);
        for (port, place) in metadata.ports() {
            let known = endpoints.keys().any(|endpoint| endpoint.number == port);
            if !known && self.container.network != Network::None {
                let missing = match self.rules.addresses {
                    Addresses::Published(_) => "published",
                    Addresses::Internal { .. } => "exposed",
                };
                self.warn(place, &format!("port {port} is not {missing}"));
            }
        }
        let several = endpoints.len() > 1;
        let mut registrations = Vec::<Registration>::new();
        for (port, endpoint) in endpoints {
            let mut words = metadata.about(port.number);
            if words.take("ignore").is_some() {
                continue;
            }
            let (address, at) = match endpoint {
                Ok(endpoint) => endpoint,
                Err(reason) => {
                    self.warn(&format!("port {}", port.number), reason);
                    continue;
                }
            };
            let Some(mut registration) = self.registration(port, address, at, several, words)
            else {
                continue;
            };
            if registrations
                .iter()
                .any(|other| other.id == registration.id)
            {
                self.warn(
                    "SERVICE_ID",
                    "its ports would have the same id; use SERVICE_<port>_ID for each",
                );
                registration.id = self.default_id(port);
            }
            registrations.push(registration);
        }
        registrations
    }

    fn registration(
        &mut self,
        port: Port,
        address: IpAddr,
        at: u16,
        several: bool,
        mut words: Words,
    ) -> Option<Registration> {
        let name = self.name(&mut words, port, several)?;
        let id = self.id(&mut words, port);
        let mut tags = words
            .take("tags")
            .map(|word| list(&word.value))
            .unwrap_or_default();
        tags.extend(self.rules.tags.iter().cloned());
        if port.udp {
            tags.push("udp".to_owned());
        }
        let (container, warnings) = (&self.container.name, &mut self.warnings);
        let check = check::check(&mut words, address, at, &mut |word: &Word, reason: &str| {
            warnings.push(Warning {
                container: container.clone(),
                text: format!("{}: {reason}", word.place),
            });
        });
        Some(Registration {
            id,
            name,
            address,
            port: at,
            tags,
            meta: self.meta(words),
            check,
            health: self.container.health,
            maintenance: match self.container {
                Container { stopping: true, .. } => Some(STOPPING),
                Container { paused: true, .. } => Some(PAUSED),
                _ => None,
            },
            container: self.container.name.clone(),
            started: self.container.started.clone(),
        })
    }

    /// `None`: it must not be registered.
    fn name(&mut self, words: &mut Words, port: Port, several: bool) -> Option<String> {
        let given = words.take("name");
        let (mut name, of_port) = match &given {
            Some(word) => (word.value.clone(), word.of_port),
            None if self.rules.explicit => return None,
            None => (self.default_name(), false),
        };
        if several && !of_port {
            name = format!("{name}-{}", port.number);
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.len() <= 128 && name.chars().all(fits) {
            return Some(name);
        }
        let place = given.map_or("image".to_owned(), |word| word.place);
        self.warn(
            &place,
            &format!("`{name}` is no name of a service, so it is not registered; use letters, digits, `_`, `.` and `-`"),
        );
        None
    }

    /// The last part of the image's name, without tag and digest; for an image without a name the
    /// container's.
    fn default_name(&self) -> String {
        let image = &self.container.image;
        let base = image.split('@').next().unwrap_or_default();
        let base = base.rsplit('/').next().unwrap_or_default();
        let base = base.split(':').next().unwrap_or_default();
        if base.is_empty() || base == "sha256" || image.starts_with("sha256:") {
            return self.container.name.clone();
        }
        base.to_owned()
    }

    fn id(&mut self, words: &mut Words, port: Port) -> String {
        let Some(word) = words.take("id") else {
            return self.default_id(port);
        };
        let fits = |c: char| c.is_ascii_graphic() && !"/?#%\"\\".contains(c);
        if word.value.len() <= 128 && word.value.chars().all(fits) {
            return format!("{}{}", self.rules.prefix, word.value);
        }
        self.warn(
            &word.place,
            &format!(
                "`{}` is no id; use ASCII without blanks, quotes and `/ ? # % \\`",
                word.value
            ),
        );
        self.default_id(port)
    }

    fn default_id(&self, port: Port) -> String {
        let udp = if port.udp { ":udp" } else { "" };
        let Rules { prefix, .. } = self.rules;
        format!("{prefix}{}:{}{udp}", self.container.name, port.number)
    }

    /// Everything that has no other meaning. What begins with `lb_` is for this agent's kind, whose
    /// words have dashes.
    fn meta(&mut self, words: Words) -> BTreeMap<String, String> {
        let (most, longest_key, longest_value) = META_LIMITS;
        let mut meta = BTreeMap::new();
        for (key, word) in words.0 {
            let key = if key.starts_with("lb_") {
                key.replace('_', "-")
            } else {
                key
            };
            let fits = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            let reason = if key.len() > longest_key || !key.chars().all(fits) {
                "Consul's meta takes no such key; use letters, digits, `_` and `-`"
            } else if key.starts_with("consul-") || key == OWNER || key == PRINT {
                "this key is not for people to set"
            } else if word.value.len() > longest_value {
                "Consul's meta takes at most 512 bytes"
            } else if meta.len() + 2 >= most {
                "Consul's meta takes no more than 64 entries, two of which are the agent's"
            } else {
                meta.insert(key, word.value);
                continue;
            };
            self.warn(&word.place, reason);
        }
        meta
    }

    fn warn(&mut self, place: &str, reason: &str) {
        self.warnings.push(Warning {
            container: self.container.name.clone(),
            text: format!("{place}: {reason}"),
        });
    }
}

/// Where a port is reached; else why it is not.
type Endpoint = Result<(IpAddr, u16), &'static str>;

/// The container's ports, and where each is reached.
fn endpoints(
    container: &Container,
    host: &Container,
    addresses: &Addresses,
) -> BTreeMap<Port, Endpoint> {
    let exposed = || container.exposed.iter().copied();
    if host.network == Network::Host {
        let node = match addresses {
            Addresses::Published(address) => Some(*address),
            Addresses::Internal { node, .. } => *node,
        };
        let node = node.ok_or("it is in the node's network; set `address` under [docker]");
        return exposed()
            .map(|port| (port, node.map(|node| (node, port.number))))
            .collect();
    }
    match addresses {
        Addresses::Published(node) => {
            // One that shares another's network has no published ports of its own.
            let published = host.published.iter();
            let own = published
                .filter(|(port, _)| host.id == container.id || container.exposed.contains(port));
            own.filter_map(|(port, bindings)| {
                let binding = bindings.first()?;
                let endpoint = match binding.address {
                    Some(address) if address.is_loopback() => {
                        Err("it is published on the node's loopback address only")
                    }
                    address => Ok((address.unwrap_or(*node), binding.port)),
                };
                Some((*port, endpoint))
            })
            .collect()
        }
        Addresses::Internal { network, .. } => {
            let address = internal_address(host, network.as_deref());
            exposed()
                .filter(|_| host.network != Network::None)
                .map(|port| (port, address.map(|address| (address, port.number))))
                .collect()
        }
    }
}

/// Its address in the network asked for; else in the one it was started in, else in the first by
/// name.
fn internal_address(host: &Container, network: Option<&str>) -> Result<IpAddr, &'static str> {
    let found = match (network, &host.network) {
        (Some(name), _) => host.addresses.get(name),
        (None, Network::Own(name)) if host.addresses.contains_key(name) => host.addresses.get(name),
        (None, _) => host.addresses.values().next(),
    };
    found.copied().ok_or(match network {
        Some(_) => "the container has no address in the network that [docker] names",
        None => "the container has no address",
    })
}

#[cfg(test)]
mod tests;
