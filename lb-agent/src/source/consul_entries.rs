//! Consul's JSON of configuration entries, keys and names of services.
//!
//! As with instances, one that cannot be read does not take the others with it.

mod resolver;
mod router;

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use self::{resolver::WireResolver, router::WireRouter};
use crate::domain::{
    config_entry::{ConfigEntry, EntryKind, Leg},
    fleet,
    split::Shares,
    sync::KeyValue,
};

/// Why an entry is left out.
#[derive(Debug, Error, PartialEq)]
pub(super) enum InvalidEntry {
    #[error("`{name}` has not the form that Consul documents: {reason}")]
    Form { name: String, reason: String },
    #[error("`{name}` cannot be followed: {reason}")]
    Unusable { name: String, reason: String },
    #[error("the weight {weight} in `{name}` is not from 0 to 100")]
    Weight { name: String, weight: f64 },
    #[error("all weights in `{name}` are 0")]
    NoWeight { name: String },
}

/// The usable entries by the service's name, and the others.
type Entries = (BTreeMap<String, ConfigEntry>, Vec<InvalidEntry>);

/// Reads the list of all entries of a kind.
///
/// # Errors
///
/// The body is not a JSON list.
pub(super) fn parse(kind: EntryKind, body: &[u8]) -> Result<Entries, serde_json::Error> {
    // Consul writes `null` for an empty list.
    let list: Option<Vec<Value>> = serde_json::from_slice(body)?;
    let (mut entries, mut invalid) = (BTreeMap::new(), Vec::new());
    for (position, value) in list.unwrap_or_default().into_iter().enumerate() {
        let name = value.get("Name").and_then(Value::as_str);
        let Some(name) = given(name.map(str::to_owned)) else {
            invalid.push(InvalidEntry::Form {
                name: format!("entry {}", position + 1),
                reason: "it has no Name".into(),
            });
            continue;
        };
        match entry(kind, &name, value) {
            Ok(entry) => {
                entries.insert(name, entry);
            }
            Err(error) => invalid.push(error),
        }
    }
    Ok((entries, invalid))
}

fn entry(kind: EntryKind, name: &str, value: Value) -> Result<ConfigEntry, InvalidEntry> {
    let form = |error: serde_json::Error| InvalidEntry::Form {
        name: name.into(),
        reason: error.to_string(),
    };
    match kind {
        EntryKind::Defaults => {
            let wire: WireDefaults = serde_json::from_value(value).map_err(form)?;
            Ok(ConfigEntry::Defaults(wire.protocol.unwrap_or_default()))
        }
        EntryKind::Resolver => {
            let wire: WireResolver = serde_json::from_value(value).map_err(form)?;
            wire.into_resolver(name).map(ConfigEntry::Resolver)
        }
        EntryKind::Router => {
            let wire: WireRouter = serde_json::from_value(value).map_err(form)?;
            let routes = wire.into_routes(name);
            let routes = routes.map_err(|reason| InvalidEntry::Unusable {
                name: name.into(),
                reason,
            })?;
            Ok(ConfigEntry::Router(routes))
        }
        EntryKind::Splitter => {
            let wire: WireSplitter = serde_json::from_value(value).map_err(form)?;
            wire.into_legs(name).map(ConfigEntry::Splitter)
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireDefaults {
    protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSplitter {
    splits: Option<Vec<WireSplit>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSplit {
    #[serde(default)]
    weight: f64,
    service: Option<String>,
    service_subset: Option<String>,
    request_headers: Option<Value>,
    response_headers: Option<Value>,
    #[serde(flatten)]
    elsewhere: Elsewhere,
}

/// Consul writes an empty text for what is not given.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// What leads to where nothing here leads: out of the namespace, or the cluster.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Elsewhere {
    namespace: Option<String>,
    partition: Option<String>,
    peer: Option<String>,
    sameness_group: Option<String>,
}

impl Elsewhere {
    /// The field that does, if one does.
    fn field(&self) -> Option<&'static str> {
        let fields = [
            ("Peer", &self.peer),
            ("SamenessGroup", &self.sameness_group),
            // Of these Consul Enterprise writes the default, too.
            ("Namespace", &self.namespace),
            ("Partition", &self.partition),
        ];
        let leads = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            !["", "default"].contains(&text)
        };
        let mut fields = fields.into_iter();
        fields.find(|(_, text)| leads(text)).map(|(name, _)| name)
    }
}

/// Whether a field says anything: Consul writes `null`, an empty value or none for what does not.
fn says(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !["", "0s"].contains(&text.as_str()),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(fields)) => fields.values().any(|field| says(Some(field))),
    }
}

/// Which of these fields say something that nothing is made of.
fn ignored<const N: usize>(fields: [(&str, &Option<Value>); N]) -> Vec<String> {
    let said = fields.into_iter().filter(|(_, value)| says(value.as_ref()));
    said.map(|(name, _)| name.to_owned()).collect()
}

/// Go's way to write a span: `"1m30s"`, or nanoseconds.
fn timeout(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) if text.is_empty() => Some(Duration::ZERO),
        Value::String(text) => humantime::parse_duration(text).ok(),
        value => value.as_u64().map(Duration::from_nanos),
    }
}

impl WireSplitter {
    fn into_legs(self, name: &str) -> Result<Vec<Leg>, InvalidEntry> {
        let mut legs = Vec::new();
        for split in self.splits.unwrap_or_default() {
            if !(0.0..=100.0).contains(&split.weight) {
                return Err(InvalidEntry::Weight {
                    name: name.into(),
                    weight: split.weight,
                });
            }
            if let Some(field) = split.elsewhere.field() {
                return Err(InvalidEntry::Unusable {
                    name: name.into(),
                    reason: format!("{field} of a split is not supported"),
                });
            }
            legs.push(Leg {
                // Consul counts in hundredths of a percent, as the shares here do.
                share: (split.weight / 100.0 * f64::from(Shares::MAX)).round() as u32,
                service: given(split.service).filter(|service| service != name),
                subset: given(split.service_subset),
                ignored: ignored([
                    ("RequestHeaders", &split.request_headers),
                    ("ResponseHeaders", &split.response_headers),
                ]),
            });
        }
        if legs.iter().all(|leg| leg.share == 0) {
            return Err(InvalidEntry::NoWeight { name: name.into() });
        }
        Ok(legs)
    }
}

/// Reads the answer to `/v1/kv/lb/?recurse`: values by key without the prefix.
///
/// # Errors
///
/// The body is not what Consul documents.
pub(super) fn parse_keys(body: &[u8]) -> Result<BTreeMap<String, KeyValue>, serde_json::Error> {
    let pairs: Option<Vec<WirePair>> = serde_json::from_slice(body)?;
    let pairs = pairs.unwrap_or_default().into_iter();
    Ok(pairs
        .filter_map(|pair| {
            let key = pair.key.strip_prefix(fleet::PREFIX)?.to_owned();
            let bytes = base64(&pair.value.unwrap_or_default());
            let value = KeyValue {
                text: String::from_utf8_lossy(&bytes).into_owned(),
                index: pair.modify_index,
            };
            Some((key, value))
        })
        .collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePair {
    key: String,
    value: Option<String>,
    #[serde(default)]
    modify_index: u64,
}

/// What stands in a text of RFC 4648's standard alphabet; letters outside of it are passed over.
fn base64(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|letter| {
        Some(match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    });
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for digit in digits {
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

/// The same alphabet, the other way.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = 0_u32;
        for place in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(place).copied().unwrap_or(0));
        }
        for place in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            text.push(if place <= chunk.len() {
                char::from(DIGITS[digit])
            } else {
                '='
            });
        }
    }
    text
}

/// Reads the answer to `/v1/catalog/services`: tags by name.
///
/// # Errors
///
/// The body is not what Consul documents.
pub(super) fn parse_names(body: &[u8]) -> Result<BTreeMap<String, Vec<String>>, serde_json::Error> {
    let names: BTreeMap<String, Option<Vec<String>>> = serde_json::from_slice(body)?;
    let sorted = |tags: Option<Vec<String>>| {
        let mut tags = tags.unwrap_or_default();
        tags.sort_unstable();
        tags
    };
    let names = names.into_iter();
    Ok(names.map(|(name, tags)| (name, sorted(tags))).collect())
}

#[cfg(test)]
mod mutated;
#[cfg(test)]
mod tests;
