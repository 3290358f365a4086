//! What holds for the whole fleet: keys in Consul that every node follows.
//!
//! - `lb/block/PREFIX`, as in `lb/block/203.0.113.0/24`: a rule of the block list. The value is
//!   empty, or JSON with any of `reason`, `added_unix_ms` and `expires_unix_ms`.
//! - `lb/split/SERVICE`: the shares of a service, as in `v1=90 v2=10`.
//!
//! A key that cannot be used is reported and left out; the others count.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{block::parse_prefix, split::Shares, sync::KeyValue};

/// What all keys of the fleet begin with.
pub const PREFIX: &str = "lb/";
/// What follows it for rules of the block list.
const BLOCK: &str = "block/";
/// The same for splits.
const SPLIT: &str = "split/";

/// The key of a rule.
pub fn block_key(prefix: &IpNet) -> String {
    format!("{PREFIX}{BLOCK}{prefix}")
}

/// The key of a split.
pub fn split_key(service: &str) -> String {
    format!("{PREFIX}{SPLIT}{service}")
}

/// A rule as its key has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetBlock {
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
    /// Since when, in milliseconds since 1970.
    pub added_unix_ms: Option<u64>,
    /// When it ends by itself; absent: never.
    pub expires_unix_ms: Option<u64>,
    /// Even on a node that it would cut off.
    #[serde(default)]
    pub force: bool,
}

/// What is to be done to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// Write this value under this key.
    Set(String, String),
    /// Delete the first of these keys that there is.
    Delete(Vec<String>),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The agent has no `[consul]`.
    #[error(
        "this agent is not configured for Consul, which holds what counts for the fleet; add a section [consul]"
    )]
    NoConsul,
    /// There is no such key to delete.
    #[error("there is no key {0} in Consul")]
    Missing(String),
    /// Too much for one transaction.
    #[error(
        "{0} keys are too many for one transaction of Consul, which takes {MAX_CHANGES}; give fewer at a time"
    )]
    TooMany(usize),
    /// Somebody else wrote one of them between reading and writing.
    #[error(
        "somebody else has changed it in Consul at the same moment, so nothing was written; look at what counts now and try again"
    )]
    Conflict,
    /// Consul did not do it.
    #[error("nothing was written: {0}")]
    Failed(String),
}

/// Keys that one transaction of Consul takes.
pub const MAX_CHANGES: usize = 64;

impl KeyChange {
    /// Adds or renews a rule.
    pub fn block(prefix: &IpNet, block: &FleetBlock) -> Self {
        // Of texts and numbers only: it always has a form.
        let value = serde_json::to_string(block).unwrap_or_default();
        Self::Set(block_key(prefix), value)
    }

    /// Takes a rule away, however a person may have written its key.
    pub fn unblock(prefix: &IpNet) -> Self {
        let mut keys = vec![block_key(prefix)];
        if prefix.prefix_len() == prefix.max_prefix_len() {
            keys.push(format!("{PREFIX}{BLOCK}{}", prefix.addr()));
        }
        Self::Delete(keys)
    }

    /// Sets the split of a service.
    pub fn split(service: &str, shares: &Shares) -> Self {
        Self::Set(split_key(service), shares.to_string())
    }

    /// Whether these values are as they are after it.
    pub fn is_done(&self, values: &BTreeMap<String, KeyValue>) -> bool {
        let get = |key: &String| values.get(key.strip_prefix(PREFIX).unwrap_or(key));
        match self {
            Self::Set(key, text) => get(key).is_some_and(|value| value.text == *text),
            Self::Delete(keys) => keys.iter().all(|key| get(key).is_none()),
        }
    }
}

impl FleetBlock {
    /// Since when, if it says so.
    pub fn added(&self) -> Option<SystemTime> {
        self.added_unix_ms.and_then(moment)
    }

    /// When it ends by itself.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires_unix_ms.and_then(moment)
    }
}

fn moment(unix_ms: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms))
}

/// What all keys together say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Rules of the block list.
    pub blocks: BTreeMap<IpNet, FleetBlock>,
    /// Shares by the service's name.
    pub splits: BTreeMap<String, Shares>,
    /// A sentence on each key that cannot be used.
    pub malformed: Vec<String>,
}

impl Fleet {
    /// Reads the values by key without [`PREFIX`].
    pub fn read(values: &BTreeMap<String, KeyValue>) -> Self {
        let mut fleet = Self::default();
        for (key, value) in values {
            let result = if let Some(prefix) = key.strip_prefix(BLOCK) {
                fleet.read_block(prefix, &value.text)
            } else if let Some(service) = key.strip_prefix(SPLIT) {
                fleet.read_split(service, &value.text)
            } else {
                Ok(())
            };
            if let Err(reason) = result {
                let text = format!("the key {PREFIX}{key} in Consul is not followed: {reason}");
                fleet.malformed.push(text);
            }
        }
        fleet
    }

    fn read_block(&mut self, prefix: &str, text: &str) -> Result<(), String> {
        // Consul's own pages make a key of this kind for a folder.
        if prefix.is_empty() {
            return Ok(());
        }
        let prefix = parse_prefix(prefix).map_err(|error| error.to_string())?;
        let block = match text.trim() {
            "" => FleetBlock::default(),
            text => serde_json::from_str(text).map_err(|error| {
                format!(
                    "its value is neither empty nor JSON such as {{\"reason\": \"…\"}} ({error})"
                )
            })?,
        };
        match self.blocks.contains_key(&prefix) {
            true => Err(format!("another key is about {prefix} too")),
            false => {
                self.blocks.insert(prefix, block);
                Ok(())
            }
        }
    }

    fn read_split(&mut self, service: &str, text: &str) -> Result<(), String> {
        if service.is_empty() {
            return Ok(());
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let shares = Shares::parse(&words).map_err(|error| error.to_string())?;
        self.splits.insert(service.to_owned(), shares);
        Ok(())
    }
}

/// Deletes keys of rules that have ended: nobody follows them any more. As many as fit into one
/// transaction.
pub fn leftovers(values: &BTreeMap<String, KeyValue>, now: SystemTime) -> Vec<KeyChange> {
    let is_over = |(key, value): &(&String, &KeyValue)| {
        let block: Option<FleetBlock> = match key.starts_with(BLOCK) {
            true => serde_json::from_str(&value.text).ok(),
            false => None,
        };
        let ends = block.and_then(|block| block.expires());
        // A node whose clock is late still has it for a moment.
        ends.is_some_and(|at| at + LATE < now)
    };
    let over = values.iter().filter(is_over).take(MAX_CHANGES);
    over.map(|(key, _)| KeyChange::Delete(vec![format!("{PREFIX}{key}")]))
        .collect()
}

/// By how much the clocks of nodes may differ.
const LATE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[(&str, &str)]) -> Fleet {
        let values = rows.iter().map(|(key, text)| {
            let value = KeyValue {
                text: (*text).to_owned(),
                index: 1,
            };
            ((*key).to_owned(), value)
        });
        Fleet::read(&values.collect())
    }

    #[test]
    fn keys_are_read() {
        let fleet = read(&[
            ("block/", ""),
            ("block/192.0.2.0/24", ""),
            (
                "block/2001:db8::/32",
                "{\"reason\": \"scan\", \"expires_unix_ms\": 2000}",
            ),
            ("split/", ""),
            ("split/echo", " v1=90\n v2=10 "),
            ("other", "means nothing"),
        ]);
        assert_eq!(fleet.malformed, [""; 0]);
        let prefixes: Vec<String> = fleet.blocks.keys().map(ToString::to_string).collect();
        assert_eq!(prefixes, ["192.0.2.0/24", "2001:db8::/32"]);
        let scan = &fleet.blocks[&"2001:db8::/32".parse().unwrap()];
        assert_eq!(scan.reason, "scan");
        assert_eq!(scan.expires(), Some(UNIX_EPOCH + Duration::from_secs(2)));
        assert_eq!(fleet.splits["echo"].to_string(), "v1=90 v2=10");
        assert_eq!(split_key("echo"), "lb/split/echo");
        assert_eq!(
            block_key(&"192.0.2.0/24".parse().unwrap()),
            "lb/block/192.0.2.0/24"
        );
    }

    #[test]
    fn rules_that_have_ended_are_left_over() {
        let value = |text: &str| KeyValue {
            text: text.into(),
            index: 1,
        };
        let values = BTreeMap::from([
            (
                "block/192.0.2.1".into(),
                value("{\"expires_unix_ms\": 1000}"),
            ),
            (
                "block/192.0.2.2".into(),
                value("{\"expires_unix_ms\": 9000}"),
            ),
            ("block/192.0.2.3".into(), value("")),
            ("block/192.0.2.4".into(), value("nonsense")),
            ("split/echo".into(), value("{\"expires_unix_ms\": 1000}")),
        ]);
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        assert_eq!(leftovers(&values, at(61)), []);
        let first = KeyChange::Delete(vec!["lb/block/192.0.2.1".into()]);
        assert_eq!(leftovers(&values, at(62)), [first]);
    }

    /// Rows of a key that cannot be used, and what is said of it. The other ones count.
    #[test]
    fn what_is_malformed_is_reported_and_left_out_one_by_one() {
        let rows = [
            ("block/example.com", "", "`example.com` is neither"),
            ("block/192.0.2.0/33", "", "`192.0.2.0/33` is neither"),
            ("block/192.0.2.7", "no JSON", "neither empty nor JSON"),
            ("block/192.0.2.7", "{\"ttl\": 5}", "unknown field `ttl`"),
            (
                "block/198.51.100.1/32",
                "",
                "another key is about 198.51.100.1/32",
            ),
            ("split/web", "", "at least one subset"),
            ("split/web", "v1=0", "all shares are 0"),
            ("split/web", "{}", "`{}` is not of the form"),
        ];
        for (key, text, part) in rows {
            let fleet = read(&[
                ("block/198.51.100.1", ""),
                (key, text),
                ("split/echo", "v1=1"),
            ]);
            assert_eq!((fleet.blocks.len(), fleet.splits.len()), (1, 1), "{key}");
            let [reason] = &fleet.malformed[..] else {
                panic!("{key}: {:?}", fleet.malformed);
            };
            assert!(reason.contains(part), "{reason}");
            assert!(reason.contains(&format!("lb/{key}")), "{reason}");
        }
    }
}
