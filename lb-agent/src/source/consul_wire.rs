//! The one place that knows Consul's JSON: from `/v1/health/service/:name` to instances.
//!
//! One instance that cannot be used does not take the others with it: it is left out and named.

mod detail;

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use detail::{Connect, If, Tagged, Texts};

use crate::domain::backend::{CatalogHealth, Instance, InstanceId};

/// What an answer lists.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listing {
    /// The usable instances, by id. Proxies and gateways of Consul's mesh are no instances.
    pub(super) instances: Vec<Instance>,
    /// Those left out.
    pub(super) invalid: Vec<InvalidInstance>,
}

/// Why an instance is left out. `name` is `NODE/SERVICE-ID`.
#[derive(Debug, Error, PartialEq)]
pub(super) enum InvalidInstance {
    /// Names are not resolved: which address a client gets must not depend on the node it asks.
    #[error("address `{address}` of {name} is not an IP address")]
    NotAnIp { name: String, address: String },
    #[error("address `{address}` of {name} is not one that a packet can be sent to")]
    NotUnicast { name: String, address: IpAddr },
    #[error("{name} has no address, neither its own nor its node's")]
    NoAddress { name: String },
    #[error("port {port} of {name} is not one from 1 to 65535")]
    Port { name: String, port: i64 },
    #[error("{name} has not the form that Consul documents: {reason}")]
    Form { name: String, reason: String },
}

/// Reads the body of an answer, with what is listed beside the instances if that is wanted.
///
/// # Errors
///
/// The body is not a JSON list.
pub(super) fn parse(body: &[u8], detail: bool) -> Result<Listing, serde_json::Error> {
    match detail {
        true => parse_as::<true>(body),
        false => parse_as::<false>(body),
    }
}

fn parse_as<const DETAIL: bool>(body: &[u8]) -> Result<Listing, serde_json::Error> {
    let mut listing = Listing::default();
    let mut shared = Shared::default();
    match serde_json::from_slice::<Vec<Entry<'_, DETAIL>>>(body) {
        Ok(entries) => {
            for entry in entries {
                listing.take(entry, &mut shared);
            }
        }
        // One of them has another form: which one, and is it a list at all?
        Err(_) => {
            let entries: Vec<Value> = serde_json::from_slice(body)?;
            for (position, value) in entries.iter().enumerate() {
                match Entry::<DETAIL>::deserialize(value) {
                    Ok(entry) => listing.take(entry, &mut shared),
                    Err(error) => listing.invalid.push(InvalidInstance::Form {
                        name: name_of(value).unwrap_or_else(|| format!("entry {}", position + 1)),
                        reason: error.to_string(),
                    }),
                }
            }
        }
    }
    // Consul promises no order; without one, equal answers would look like a change.
    listing.instances.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(listing)
}

impl Listing {
    fn take<const DETAIL: bool>(&mut self, entry: Entry<'_, DETAIL>, shared: &mut Shared) {
        if entry.service.is_mesh() {
            return;
        }
        match entry.into_instance(shared) {
            Ok(instance) => self.instances.push(instance),
            Err(invalid) => self.invalid.push(invalid),
        }
    }
}

/// Tags and meta entries met last: those of the next instance most often are the same.
#[derive(Default)]
struct Shared {
    tags: Arc<Vec<String>>,
    meta: Arc<BTreeMap<String, String>>,
}

impl Shared {
    fn tags(&mut self, tags: Vec<String>) -> Arc<Vec<String>> {
        if *self.tags != tags {
            self.tags = tags.into();
        }
        self.tags.clone()
    }

    fn meta(&mut self, meta: BTreeMap<String, String>) -> Arc<BTreeMap<String, String>> {
        if *self.meta != meta {
            self.meta = meta.into();
        }
        self.meta.clone()
    }
}

/// `NODE/SERVICE-ID` of an entry that could not be read as a whole.
fn name_of(entry: &Value) -> Option<String> {
    let node = entry.pointer("/Node/Node")?.as_str()?;
    let id = entry.pointer("/Service/ID")?.as_str()?;
    Some(format!("{node}/{id}"))
}

// Consul writes `null` for empty lists and maps, and leaves out what it did not know in older
// versions; hence the options.

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a, const DETAIL: bool> {
    #[serde(borrow)]
    node: Node<'a, DETAIL>,
    #[serde(borrow)]
    service: Service<'a, DETAIL>,
    #[serde(borrow)]
    checks: Option<Vec<Check<'a, DETAIL>>>,
}

// Most texts are looked at and dropped: those are not copied out of the body, which would leave
// holes between the few that stay.

/// A text that may be missing. (`Option<Cow<str>>` by itself would be copied.)
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node<'a, const DETAIL: bool> {
    #[serde(rename = "ID", borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(borrow)]
    address: Option<Text<'a>>,
    #[serde(borrow)]
    datacenter: Option<Text<'a>>,
    #[serde(borrow, default)]
    meta: If<DETAIL, Texts<'a>>,
    #[serde(borrow, default)]
    tagged_addresses: If<DETAIL, Texts<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service<'a, const DETAIL: bool> {
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(rename = "ID", borrow)]
    id: Cow<'a, str>,
    tags: Option<Vec<String>>,
    #[serde(borrow)]
    address: Option<Text<'a>>,
    meta: Option<BTreeMap<String, String>>,
    #[serde(rename = "Service", borrow)]
    name: Option<Text<'a>>,
    #[serde(default)]
    port: i64,
    weights: Option<Weights>,
    #[serde(borrow, default)]
    tagged_addresses: If<DETAIL, BTreeMap<Text<'a>, Tagged<'a>>>,
    #[serde(default)]
    enable_tag_override: If<DETAIL, bool>,
    #[serde(default)]
    connect: If<DETAIL, Connect>,
}

impl<const DETAIL: bool> Service<'_, DETAIL> {
    /// Sidecar proxies and gateways are registered under a service's name, but speak mutual TLS.
    fn is_mesh(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| !kind.is_empty())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: Option<i64>,
    warning: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a, const DETAIL: bool> {
    #[serde(rename = "CheckID", borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    notes: Option<Text<'a>>,
    #[serde(borrow)]
    output: Option<Text<'a>>,
    #[serde(borrow)]
    node: Option<Text<'a>>,
    #[serde(rename = "ServiceID", borrow)]
    service_id: Option<Text<'a>>,
    #[serde(borrow)]
    service_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    service_tags: If<DETAIL, Vec<Text<'a>>>,
    #[serde(rename = "Type", borrow)]
    kind: Option<Text<'a>>,
}

impl<const DETAIL: bool> Entry<'_, DETAIL> {
    fn into_instance(self, shared: &mut Shared) -> Result<Instance, InvalidInstance> {
        let name = format!("{}/{}", self.node.node, self.service.id);
        let ip = match [&self.service.address, &self.node.address]
            .into_iter()
            .flatten()
            .find(|address| !address.is_empty())
        {
            Some(address) => parse_ip(&name, address)?,
            None => return Err(InvalidInstance::NoAddress { name }),
        };
        let port = match u16::try_from(self.service.port) {
            Ok(port) if port != 0 => port,
            _ => {
                let port = self.service.port;
                return Err(InvalidInstance::Port { name, port });
            }
        };
        let detail = DETAIL.then(|| Arc::new(self.detail()));
        let health = worst(self.checks.unwrap_or_default(), &self.service.id);
        let weights = self.service.weights.unwrap_or_default();
        let weight = match health {
            CatalogHealth::Warning(_) => weights.warning,
            _ => weights.passing,
        };
        Ok(Instance {
            id: InstanceId(name.into()),
            address: SocketAddr::new(ip, port),
            weight: normal_weight(weight),
            tags: shared.tags(self.service.tags.unwrap_or_default()),
            meta: shared.meta(self.service.meta.unwrap_or_default()),
            subset: None,
            health,
            detail,
        })
    }
}

fn parse_ip(name: &str, address: &str) -> Result<IpAddr, InvalidInstance> {
    let ip: IpAddr = address.parse().map_err(|_| InvalidInstance::NotAnIp {
        name: name.into(),
        address: address.into(),
    })?;
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(InvalidInstance::NotUnicast {
            name: name.into(),
            address: ip,
        });
    }
    Ok(ip)
}

/// Consul refuses weights outside of 1 to 65535; entries of catalogs older than weights have none.
fn normal_weight(registered: Option<i64>) -> u32 {
    registered.unwrap_or(1).clamp(1, 65_535) as u32
}

/// How bad a check is; the greatest decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

/// The worst of an instance's checks and its node's. Among equals the first by id speaks, so that
/// the same checks always give the same text.
fn worst<const DETAIL: bool>(checks: Vec<Check<'_, DETAIL>>, service_id: &str) -> CatalogHealth {
    let Some((severity, check)) = checks
        .into_iter()
        .map(|check| (severity(&check, service_id), check))
        .min_by(|(a, x), (b, y)| (Reverse(a), &x.id).cmp(&(Reverse(b), &y.id)))
    else {
        return CatalogHealth::Passing;
    };
    match severity {
        Severity::Passing => CatalogHealth::Passing,
        Severity::Warning => CatalogHealth::Warning(describe(&check)),
        Severity::Critical => CatalogHealth::Critical(describe(&check)),
        Severity::Maintenance => {
            let reason = [check.notes, check.output]
                .into_iter()
                .flatten()
                .map(|text| first_line(&text))
                .find(|line| !line.is_empty());
            CatalogHealth::Maintenance(reason.unwrap_or_else(|| "no reason given".into()))
        }
    }
}

fn severity<const DETAIL: bool>(check: &Check<'_, DETAIL>, service_id: &str) -> Severity {
    let maintenance = check.id == "_node_maintenance"
        || check.id.strip_prefix("_service_maintenance:") == Some(service_id);
    match &*check.status {
        "passing" => Severity::Passing,
        _ if maintenance => Severity::Maintenance,
        "warning" => Severity::Warning,
        // A status that Consul does not document is no reason to send traffic.
        _ => Severity::Critical,
    }
}

/// `NAME: OUTPUT`.
fn describe<const DETAIL: bool>(check: &Check<'_, DETAIL>) -> String {
    let name = match &check.name {
        Some(name) if !name.is_empty() => &**name,
        _ => &*check.id,
    };
    let output = first_line(check.output.as_deref().unwrap_or_default());
    if output.is_empty() {
        name.to_owned()
    } else {
        format!("{name}: {output}")
    }
}

/// Outputs of HTTP checks hold whole pages; what people need is at their beginning.
fn first_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let line = text.trim().lines().next().unwrap_or_default().trim_end();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod mutated;
#[cfg(test)]
mod tests;
