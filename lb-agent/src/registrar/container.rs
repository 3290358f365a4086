//! What the engine says of a container, and what of it counts here: the only place that knows the
//! engine's JSON (`GET /containers/ID/json`).
//!
//! Only fields that every version of the engine's API since 1.24 has are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Deserializer};

/// A container, as far as its services go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    /// Hexadecimal, as the engine made it up.
    pub(super) id: String,
    /// Name for people, without the slash in front.
    pub(super) name: String,
    /// The image, as it was asked for.
    pub(super) image: String,
    /// Whether its process runs (or is paused), rather than waiting for a restart.
    pub(super) running: bool,
    /// When its process started, in the engine's words; tells one run from the next.
    pub(super) started: String,
    /// Whether its process is frozen.
    pub(super) paused: bool,
    /// Whether it has been told to end.
    pub(super) stopping: bool,
    /// The signal it is told to end by; `None`: the engine's default.
    pub(super) stop_signal: Option<String>,
    /// What its health check found; `None`: it has none.
    pub(super) health: Option<Health>,
    /// Labels, those of its image included.
    pub(super) labels: BTreeMap<String, String>,
    /// Environment variables, those of its image included.
    pub(super) environment: BTreeMap<String, String>,
    /// Ports that it or its image declares.
    pub(super) exposed: BTreeSet<Port>,
    /// Ports of the node's that lead to its own.
    pub(super) published: BTreeMap<Port, Vec<Binding>>,
    /// Whose network it is in.
    pub(super) network: Network,
    /// Its address in each network that gave it one.
    pub(super) addresses: BTreeMap<String, IpAddr>,
}

/// A port inside a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// 1 to 65535.
    pub(super) number: u16,
    /// UDP rather than TCP.
    pub(super) udp: bool,
}

/// A port of the node's that leads to one of a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// The only address of the node's where it does; `None`: on all.
    pub(super) address: Option<IpAddr>,
    /// 1 to 65535.
    pub(super) port: u16,
}

/// Whose network a container is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Network {
    /// Its own, connected to this network first.
    Own(String),
    /// The node's.
    Host,
    /// That of the container with this id (or name).
    Of(String),
    /// In none.
    #[default]
    None,
}

/// What a container's health check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing yet.
    Starting,
    /// It works.
    Healthy,
    /// It failed too often.
    Unhealthy,
}

impl Health {
    /// The engine's word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Reads the engine's answer.
///
/// # Errors
///
/// It is not the JSON that the engine documents.
pub(super) fn parse(body: &[u8]) -> Result<Container, serde_json::Error> {
    serde_json::from_slice::<Wire>(body).map(Wire::into_container)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    id: String,
    name: String,
    #[serde(default)]
    state: WireState,
    #[serde(default)]
    config: WireConfig,
    #[serde(default)]
    host_config: WireHostConfig,
    #[serde(default)]
    network_settings: WireNetworkSettings,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireState {
    running: bool,
    paused: bool,
    restarting: bool,
    started_at: String,
    health: Option<WireHealth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireHealth {
    status: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireConfig {
    image: String,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_empty")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireHostConfig {
    network_mode: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireNetworkSettings {
    #[serde(deserialize_with = "null_is_empty")]
    ports: BTreeMap<String, Option<Vec<WireBinding>>>,
    #[serde(deserialize_with = "null_is_empty")]
    networks: BTreeMap<String, Option<WireNetwork>>,
}

#[derive(Deserialize)]
struct WireBinding {
    #[serde(default, rename = "HostIp")]
    address: String,
    #[serde(default, rename = "HostPort")]
    port: String,
}

#[derive(Deserialize)]
struct WireNetwork {
    #[serde(default, rename = "IPAddress")]
    v4: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    v6: String,
}

/// Go writes an empty map or list as `null`, too.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Wire {
    fn into_container(self) -> Container {
        let ports = self.network_settings.ports;
        let networks = self.network_settings.networks;
        let exposed = self.config.exposed_ports.keys().chain(ports.keys());
        Container {
            name: self.name.trim_start_matches('/').to_owned(),
            image: self.config.image,
            running: self.state.running && !self.state.restarting,
            started: self.state.started_at,
            paused: self.state.paused,
            stopping: false,
            stop_signal: self.config.stop_signal.filter(|signal| !signal.is_empty()),
            health: self.state.health.and_then(|health| parse_health(&health)),
            labels: self.config.labels,
            environment: self
                .config
                .env
                .iter()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            exposed: exposed.filter_map(|text| parse_port(text)).collect(),
            published: ports
                .iter()
                .filter_map(|(text, bindings)| {
                    let bindings = bindings.iter().flatten().filter_map(parse_binding);
                    let bindings: Vec<Binding> = bindings.collect();
                    Some((parse_port(text)?, bindings))
                })
                .filter(|(_, bindings)| !bindings.is_empty())
                .collect(),
            network: match self.host_config.network_mode.as_str() {
                "host" => Network::Host,
                "none" => Network::None,
                // The engine's own name for what it calls by default.
                "default" | "" => Network::Own("bridge".into()),
                other => match other.strip_prefix("container:") {
                    Some(id) => Network::Of(id.to_owned()),
                    None => Network::Own(other.to_owned()),
                },
            },
            addresses: networks
                .into_iter()
                .filter_map(|(name, network)| {
                    let network = network?;
                    let ip = [network.v4, network.v6]
                        .iter()
                        .find_map(|text| text.parse().ok());
                    Some((name, ip?))
                })
                .collect(),
            id: self.id,
        }
    }
}

/// `none` stands where a container has no health check.
fn parse_health(health: &WireHealth) -> Option<Health> {
    match health.status.as_str() {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

/// `80/tcp`; other protocols have no place in Consul.
fn parse_port(text: &str) -> Option<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return None,
    };
    let number = number.parse().ok().filter(|number| *number > 0)?;
    Some(Port { number, udp })
}

fn parse_binding(wire: &WireBinding) -> Option<Binding> {
    let address: Option<IpAddr> = wire.address.parse().ok();
    Some(Binding {
        address: address.filter(|address| !address.is_unspecified()),
        port: wire.port.parse().ok().filter(|port| *port > 0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_of_an_answer() {
        let body = br#"{
            "Id": "abc", "Name": "/web", "Image": "sha256:1",
            "State": {"Running": true, "Paused": true, "Restarting": false, "StartedAt": "then",
                      "Health": {"Status": "unhealthy", "FailingStreak": 3}},
            "Config": {"Image": "repo/web:1", "StopSignal": "SIGQUIT", "Labels": {"SERVICE_NAME": "w"},
                       "Env": ["A=1=2", "B"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
            "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {
                "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"},
                                     {"HostIp": "::", "HostPort": "8080"}],
                          "53/udp": null, "9/sctp": null, "443/tcp": [{"HostIp": "10.0.0.1", "HostPort": "444"}]},
                "Networks": {"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""},
                             "six": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"},
                             "off": {"IPAddress": ""}}}
        }"#;
        let tcp = |number| Port { number, udp: false };
        let bound = |port| Binding {
            address: None,
            port,
        };
        let expected = Container {
            id: "abc".into(),
            name: "web".into(),
            image: "repo/web:1".into(),
            running: true,
            started: "then".into(),
            paused: true,
            stopping: false,
            stop_signal: Some("SIGQUIT".into()),
            health: Some(Health::Unhealthy),
            labels: [("SERVICE_NAME".to_owned(), "w".to_owned())].into(),
            environment: [("A".to_owned(), "1=2".to_owned())].into(),
            exposed: [
                tcp(80),
                tcp(443),
                Port {
                    number: 53,
                    udp: true,
                },
            ]
            .into(),
            published: [
                (tcp(80), vec![bound(8080), bound(8080)]),
                (
                    tcp(443),
                    vec![Binding {
                        address: Some("10.0.0.1".parse().unwrap()),
                        port: 444,
                    }],
                ),
            ]
            .into(),
            network: Network::Own("bridge".into()),
            addresses: [
                ("bridge".to_owned(), "172.17.0.2".parse().unwrap()),
                ("six".to_owned(), "fd00::2".parse().unwrap()),
            ]
            .into(),
        };
        assert_eq!(parse(body).unwrap(), expected);
    }

    #[test]
    fn what_an_answer_may_leave_out() {
        let rows = [
            (
                r#""State": {"Running": true, "Restarting": true}"#,
                Network::Own("bridge".into()),
            ),
            (
                r#""Config": {"Labels": null, "Env": null, "ExposedPorts": null},
                   "NetworkSettings": {"Ports": null, "Networks": null},
                   "State": {"Health": {"Status": "none"}}, "HostConfig": {"NetworkMode": "host"}"#,
                Network::Host,
            ),
            (
                r#""HostConfig": {"NetworkMode": "container:xyz"}"#,
                Network::Of("xyz".into()),
            ),
            (r#""HostConfig": {"NetworkMode": "none"}"#, Network::None),
        ];
        for (fields, network) in rows {
            let body = format!(r#"{{"Id": "a", "Name": "/b", {fields}}}"#);
            let expected = Container {
                id: "a".into(),
                name: "b".into(),
                network,
                ..Container::default()
            };
            assert_eq!(parse(body.as_bytes()).unwrap(), expected, "{fields}");
        }
        assert!(parse(b"{}").is_err());
    }
}
