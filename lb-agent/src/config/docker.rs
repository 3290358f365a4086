//! The section `[docker]`: the engine whose containers are registered in Consul.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use toml::{Spanned, de::DeValue};

use super::{
    consul::Environment,
    locate::Report,
    scalar,
    table::{Table, elements, read_at},
};

const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";
const DEFAULT_RESYNC: Duration = Duration::from_secs(60);
const MIN_RESYNC: Duration = Duration::from_secs(1);
const MAX_RESYNC: Duration = Duration::from_secs(24 * 3600);
/// Leaves room for a container's name and port in what Consul's tools still show well.
const LONGEST_PREFIX: usize = 128;

/// Section `[docker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// The engine's Unix socket; absolute.
    pub socket: PathBuf,
    /// Under which addresses containers are registered.
    pub addresses: Addresses,
    /// How often the engine is asked for everything, without a reason.
    pub resync: Duration,
    /// Tags that every registration gets.
    pub tags: Vec<String>,
    /// Register only what has a `SERVICE_NAME`.
    pub explicit: bool,
    /// What every id begins with; absent: `lb-agent:HOSTNAME:`.
    pub prefix: Option<String>,
}

/// Under which addresses containers are registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Published ports, at this address of the node's where they are published on all of them.
    Published(IpAddr),
    /// Exposed ports, at the containers' own addresses.
    Internal {
        /// The network whose addresses count; absent: the container's only or main one.
        network: Option<String>,
        /// Address of the node's, for containers in its own network.
        node: Option<IpAddr>,
    },
}

/// Reads `[docker]`, which needs a `[consul]` to register in.
pub(super) fn docker(
    mut table: Table,
    has_consul: bool,
    environment: &Environment,
    report: &mut Report,
) -> DockerConfig {
    if !has_consul {
        report.add(
            &table.span,
            "containers are registered in Consul, and there is none; add [consul], or remove this",
        );
    }
    let config = DockerConfig {
        socket: socket(&mut table, environment, report),
        addresses: addresses(&mut table, report),
        resync: table
            .get("resync", report, |value| {
                scalar::duration(value, MIN_RESYNC..=MAX_RESYNC)
            })
            .unwrap_or(DEFAULT_RESYNC),
        tags: table
            .value("tags")
            .and_then(|value| elements(value, report, scalar::word))
            .map(|tags| tags.into_iter().map(Spanned::into_inner).collect())
            .unwrap_or_default(),
        explicit: table
            .get("explicit", report, scalar::boolean)
            .unwrap_or_default(),
        prefix: table.get("prefix", report, prefix),
    };
    table.close(report);
    config
}

/// A key of the file wins over `DOCKER_HOST`, which means what it means to the `docker` command.
fn socket(table: &mut Table, environment: &Environment, report: &mut Report) -> PathBuf {
    if let Some(given) = table.value("endpoint") {
        let read = |value: &DeValue| parse_endpoint(&scalar::word(value)?);
        return read_at(given, report, read)
            .map(Spanned::into_inner)
            .unwrap_or_default();
    }
    let variable = environment("DOCKER_HOST").filter(|value| !value.is_empty());
    let text = variable.as_deref().unwrap_or(DEFAULT_ENDPOINT);
    parse_endpoint(text).unwrap_or_else(|reason| {
        report.add_environment("DOCKER_HOST", reason);
        PathBuf::new()
    })
}

/// Only the node's own engine: the addresses of containers elsewhere would mean nothing here.
fn parse_endpoint(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").map(PathBuf::from);
    path.filter(|path| path.is_absolute()).ok_or_else(|| {
        format!("`{text}` is no Unix socket of this node's engine; write unix:///PATH")
    })
}

fn addresses(table: &mut Table, report: &mut Report) -> Addresses {
    let internal = table
        .get("register", report, |value| {
            match scalar::string(value)?.as_str() {
                "published" => Ok(false),
                "internal" => Ok(true),
                other => Err(format!("`{other}` is none of `published` and `internal`")),
            }
        })
        .unwrap_or_default();
    let given = table.value("address");
    let written = given.is_some();
    let address = given
        .and_then(|value| read_at(value, report, address))
        .map(Spanned::into_inner);
    let network = table.locate("network", report, scalar::word);
    if internal {
        return Addresses::Internal {
            network: network.map(Spanned::into_inner),
            node: address,
        };
    }
    if let Some(network) = network {
        report.add(
            &network.span(),
            "counts with register = \"internal\" only; add that, or remove this",
        );
    }
    if !written {
        report.add(
            &table.span,
            "`address` is missing: the node's address at which others reach the published ports, as \
             in address = \"10.0.0.5\" (or register = \"internal\")",
        );
    }
    Addresses::Published(address.unwrap_or(IpAddr::from([0, 0, 0, 0])))
}

fn address(value: &DeValue) -> Result<IpAddr, String> {
    let text = scalar::string(value)?;
    let ip: IpAddr = text.parse().map_err(|_| {
        format!("`{text}` is no IP address; name one of the node's, without a port")
    })?;
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("{ip} is no address that others can reach"));
    }
    Ok(ip)
}

fn prefix(value: &DeValue) -> Result<String, String> {
    let text = scalar::word(value)?;
    let fits = |c: char| c.is_ascii_graphic() && !"/?#%\"\\".contains(c);
    if text.len() > LONGEST_PREFIX || !text.chars().all(fits) {
        return Err(format!(
            "must be at most {LONGEST_PREFIX} ASCII characters, without blanks, quotes and `/ ? # % \\`"
        ));
    }
    Ok(text)
}
