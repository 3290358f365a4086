//! What Consul's answer to a question lists.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
};

use super::{
    consul_entries::{self, InvalidEntry},
    consul_wire::{self, Listing},
};
use crate::domain::{
    config_entry::ConfigEntry,
    sync::{KeyValue, Topic},
};

/// A trusted answer.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// `X-Consul-Index`, as it came.
    pub(super) index: u64,
    /// What is listed.
    pub(super) body: Body,
    /// Of the body as it came, byte for byte.
    pub(super) digest: u64,
}

/// What an answer lists, in the form of its question.
#[derive(Debug, PartialEq)]
pub(super) enum Body {
    /// To [`Topic::Instances`] and [`Topic::Glance`].
    Instances(Listing),
    /// To the same: what was answered last. Most answers are, and to read one of a hundred
    /// instances takes longer than to ask.
    Same,
    /// To [`Topic::Entries`]: the usable ones by the service's name, and the others.
    Entries(BTreeMap<String, ConfigEntry>, Vec<InvalidEntry>),
    /// To [`Topic::Keys`]: by key without the prefix.
    Keys(BTreeMap<String, KeyValue>),
    /// To [`Topic::Names`]: tags by name.
    Names(BTreeMap<String, Vec<String>>),
}

/// Reads the body of an answer, unless its digest is `known`; answers with its digest as well.
///
/// # Errors
///
/// It has not the form that the topic's answers have.
pub(super) fn read(
    topic: &Topic,
    body: &[u8],
    known: Option<u64>,
) -> Result<(Body, u64), serde_json::Error> {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    let digest = hasher.finish();
    let body = match topic {
        Topic::Instances { .. } | Topic::Glance(_) => match known == Some(digest) {
            true => Body::Same,
            false => Body::Instances({
                let detail = matches!(topic, Topic::Instances { detail: true, .. });
                consul_wire::parse(body, detail)?
            }),
        },
        Topic::Entries(kind) => {
            let (entries, invalid) = consul_entries::parse(*kind, body)?;
            Body::Entries(entries, invalid)
        }
        Topic::Keys => Body::Keys(consul_entries::parse_keys(body)?),
        Topic::Names => Body::Names(consul_entries::parse_names(body)?),
    };
    Ok((body, digest))
}
