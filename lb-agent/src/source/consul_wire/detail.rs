//! What is listed beside an instance, for those who ask for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{Check, Entry, Text, normal_weight};
use crate::domain::detail::{self, Detail, TaggedAddress};

/// Something that is read if it is wanted, and skipped otherwise; nothing where there is `null`.
#[derive(Default)]
pub(super) struct If<const WANTED: bool, T>(Option<T>);

impl<'de, const WANTED: bool, T: Deserialize<'de>> Deserialize<'de> for If<WANTED, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match WANTED {
            true => Option::deserialize(deserializer).map(Self),
            false => IgnoredAny::deserialize(deserializer).map(|_| Self(None)),
        }
    }
}

/// Texts by their names.
pub(super) type Texts<'a> = BTreeMap<Text<'a>, Text<'a>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tagged<'a> {
    #[serde(borrow)]
    address: Option<Text<'a>>,
    #[serde(default)]
    port: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Connect {
    #[serde(default)]
    native: bool,
}

impl<const WANTED: bool> Entry<'_, WANTED> {
    pub(super) fn detail(&self) -> Detail {
        let (node, service) = (&self.node, &self.service);
        let weights = service.weights.as_ref();
        Detail {
            service: owned(&service.name),
            address: owned(&service.address),
            weights: (
                normal_weight(weights.and_then(|weights| weights.passing)),
                normal_weight(weights.and_then(|weights| weights.warning)),
            ),
            tagged_addresses: service
                .tagged_addresses
                .0
                .iter()
                .flatten()
                .map(|(name, tagged)| {
                    let address = owned(&tagged.address);
                    let port = tagged.port;
                    (name.0.to_string(), TaggedAddress { address, port })
                })
                .collect(),
            enable_tag_override: service.enable_tag_override.0.unwrap_or_default(),
            connect_native: service.connect.0.as_ref().is_some_and(|one| one.native),
            node_id: owned(&node.id),
            node_address: owned(&node.address),
            datacenter: owned(&node.datacenter),
            node_meta: texts(&node.meta),
            node_tagged_addresses: texts(&node.tagged_addresses),
            checks: self.checks.iter().flatten().map(Check::detail).collect(),
        }
    }
}

impl<const WANTED: bool> Check<'_, WANTED> {
    fn detail(&self) -> detail::Check {
        let tags = self.service_tags.0.iter().flatten();
        detail::Check {
            id: self.id.to_string(),
            name: owned(&self.name),
            status: self.status.to_string(),
            node: owned(&self.node),
            kind: owned(&self.kind),
            notes: owned(&self.notes),
            output: owned(&self.output),
            service_id: owned(&self.service_id),
            service_name: owned(&self.service_name),
            service_tags: tags.map(|tag| tag.0.to_string()).collect(),
        }
    }
}

fn owned(text: &Option<Text<'_>>) -> String {
    text.as_deref().unwrap_or_default().to_owned()
}

fn texts<const WANTED: bool>(texts: &If<WANTED, Texts<'_>>) -> BTreeMap<String, String> {
    let texts = texts.0.iter().flatten();
    texts
        .map(|(key, value)| (key.0.to_string(), value.0.to_string()))
        .collect()
}
