//! What an expression can ask about, and what an instance has there.

use std::{borrow::Cow, collections::BTreeMap};

use crate::domain::{
    backend::Instance,
    detail::{Check, Detail, TaggedAddress},
};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    Id,
    Name,
    Tags,
    Meta,
    MetaEntry(String),
    Port,
    Kind,
    Address,
    TaggedAddresses,
    TaggedAddress(String),
    TaggedPort(String),
    EnableTagOverride,
    ConnectNative,
    PassingWeight,
    WarningWeight,
    NodeName,
    NodeId,
    NodeAddress,
    NodeTaggedAddresses,
    NodeTaggedAddress(String),
    Datacenter,
    NodeMeta,
    NodeMetaEntry(String),
    Checks,
    Check(CheckField),
}

/// What of a check is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckField {
    Id,
    Name,
    Status,
    Node,
    Kind,
    Notes,
    Output,
    ServiceId,
    ServiceName,
    ServiceTags,
}

/// What an instance has there.
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    List(&'a [String]),
    Map(&'a BTreeMap<String, String>),
    Addresses(&'a BTreeMap<String, TaggedAddress>),
    /// As many as this, of which nothing but the number is asked.
    Count(usize),
    /// An entry that its map does not have. It equals nothing, and is empty.
    Absent,
}

impl Selector {
    /// Reads one as Consul writes it.
    pub(super) fn parse(word: &str) -> Option<Self> {
        if let Some(key) = entry("Service.Meta", word) {
            return Some(Self::MetaEntry(key.to_owned()));
        }
        if let Some(key) = entry("Node.Meta", word) {
            return Some(Self::NodeMetaEntry(key.to_owned()));
        }
        if let Some(key) = entry("Node.TaggedAddresses", word) {
            return Some(Self::NodeTaggedAddress(key.to_owned()));
        }
        if let Some((name, field)) = word.rsplit_once('.')
            && let Some(key) = entry("Service.TaggedAddresses", name)
        {
            return match field {
                "Address" => Some(Self::TaggedAddress(key.to_owned())),
                "Port" => Some(Self::TaggedPort(key.to_owned())),
                _ => None,
            };
        }
        Some(match word {
            "Service.ID" => Self::Id,
            "Service.Service" => Self::Name,
            "Service.Tags" => Self::Tags,
            "Service.Meta" => Self::Meta,
            "Service.Port" => Self::Port,
            "Service.Kind" => Self::Kind,
            "Service.Address" => Self::Address,
            "Service.TaggedAddresses" => Self::TaggedAddresses,
            "Service.EnableTagOverride" => Self::EnableTagOverride,
            "Service.Connect.Native" => Self::ConnectNative,
            "Service.Weights.Passing" => Self::PassingWeight,
            "Service.Weights.Warning" => Self::WarningWeight,
            "Node.Node" => Self::NodeName,
            "Node.ID" => Self::NodeId,
            "Node.Address" => Self::NodeAddress,
            "Node.TaggedAddresses" => Self::NodeTaggedAddresses,
            "Node.Datacenter" => Self::Datacenter,
            "Node.Meta" => Self::NodeMeta,
            "Checks" => Self::Checks,
            "Checks.CheckID" => Self::Check(CheckField::Id),
            "Checks.Name" => Self::Check(CheckField::Name),
            "Checks.Status" => Self::Check(CheckField::Status),
            "Checks.Node" => Self::Check(CheckField::Node),
            "Checks.Type" => Self::Check(CheckField::Kind),
            "Checks.Notes" => Self::Check(CheckField::Notes),
            "Checks.Output" => Self::Check(CheckField::Output),
            "Checks.ServiceID" => Self::Check(CheckField::ServiceId),
            "Checks.ServiceName" => Self::Check(CheckField::ServiceName),
            "Checks.ServiceTags" => Self::Check(CheckField::ServiceTags),
            _ => return None,
        })
    }

    /// Whether it has elements or keys, and no text.
    pub(super) fn is_list(&self) -> bool {
        matches!(
            self,
            Self::Tags
                | Self::Meta
                | Self::TaggedAddresses
                | Self::NodeMeta
                | Self::NodeTaggedAddresses
                | Self::Checks
                | Self::Check(CheckField::ServiceTags)
        )
    }

    /// Whether [`Detail`] answers it, and not the instance alone.
    pub(super) fn needs_detail(&self) -> bool {
        match self {
            Self::Id
            | Self::Tags
            | Self::Meta
            | Self::MetaEntry(_)
            | Self::Port
            | Self::Kind
            | Self::NodeName => false,
            Self::Name
            | Self::Address
            | Self::TaggedAddresses
            | Self::TaggedAddress(_)
            | Self::TaggedPort(_)
            | Self::EnableTagOverride
            | Self::ConnectNative
            | Self::PassingWeight
            | Self::WarningWeight
            | Self::NodeId
            | Self::NodeAddress
            | Self::NodeTaggedAddresses
            | Self::NodeTaggedAddress(_)
            | Self::Datacenter
            | Self::NodeMeta
            | Self::NodeMetaEntry(_)
            | Self::Checks
            | Self::Check(_) => true,
        }
    }

    /// Whether a test holds for what the instance has there; of its checks: for any of them.
    pub(super) fn any(&self, instance: &Instance, test: impl Fn(Value<'_>) -> bool) -> bool {
        let (node, id) = instance
            .id
            .0
            .split_once('/')
            .unwrap_or(("", &instance.id.0));
        let detail = instance.detail.as_deref();
        let text = |field: fn(&Detail) -> &str| Value::Text(detail.map_or("", field).into());
        let weight = |field: fn(&Detail) -> u32| {
            Value::Text(detail.map_or(instance.weight, field).to_string().into())
        };
        let flag =
            |field: fn(&Detail) -> bool| Value::Text(detail.is_some_and(field).to_string().into());
        let tagged = |key: &String| detail?.tagged_addresses.get(key);
        let checks = detail.map_or(&[][..], |detail| &detail.checks);
        test(match self {
            Self::Id => Value::Text(id.into()),
            Self::Name => text(|detail| &detail.service),
            Self::Tags => Value::List(&instance.tags),
            Self::Meta => Value::Map(&instance.meta),
            Self::MetaEntry(key) => of(instance.meta.get(key)),
            Self::Port => Value::Text(instance.address.port().to_string().into()),
            // Proxies and gateways of the mesh, which have one, are no instances.
            Self::Kind => Value::Text("".into()),
            // That of the file is the one it is reached at.
            Self::Address => Value::Text(match detail {
                Some(detail) => detail.address.as_str().into(),
                None => instance.address.ip().to_string().into(),
            }),
            Self::TaggedAddresses => match detail {
                Some(detail) => Value::Addresses(&detail.tagged_addresses),
                None => Value::Count(0),
            },
            Self::TaggedAddress(key) => of(tagged(key).map(|one| &one.address)),
            Self::TaggedPort(key) => tagged(key).map_or(Value::Absent, |one| {
                Value::Text(one.port.to_string().into())
            }),
            Self::EnableTagOverride => flag(|detail| detail.enable_tag_override),
            Self::ConnectNative => flag(|detail| detail.connect_native),
            Self::PassingWeight => weight(|detail| detail.weights.0),
            Self::WarningWeight => weight(|detail| detail.weights.1),
            Self::NodeName => Value::Text(node.into()),
            Self::NodeId => text(|detail| &detail.node_id),
            Self::NodeAddress => text(|detail| &detail.node_address),
            Self::NodeTaggedAddresses => match detail {
                Some(detail) => Value::Map(&detail.node_tagged_addresses),
                None => Value::Count(0),
            },
            Self::NodeTaggedAddress(key) => {
                of(detail.and_then(|detail| detail.node_tagged_addresses.get(key)))
            }
            Self::Datacenter => text(|detail| &detail.datacenter),
            Self::NodeMeta => match detail {
                Some(detail) => Value::Map(&detail.node_meta),
                None => Value::Count(0),
            },
            Self::NodeMetaEntry(key) => of(detail.and_then(|detail| detail.node_meta.get(key))),
            Self::Checks => Value::Count(checks.len()),
            Self::Check(field) => return checks.iter().any(|check| test(field.of(check))),
        })
    }
}

impl CheckField {
    fn of(self, check: &Check) -> Value<'_> {
        let text = match self {
            Self::Id => &check.id,
            Self::Name => &check.name,
            Self::Status => &check.status,
            Self::Node => &check.node,
            Self::Kind => &check.kind,
            Self::Notes => &check.notes,
            Self::Output => &check.output,
            Self::ServiceId => &check.service_id,
            Self::ServiceName => &check.service_name,
            Self::ServiceTags => return Value::List(&check.service_tags),
        };
        Value::Text(text.into())
    }
}

fn of(entry: Option<&String>) -> Value<'_> {
    entry.map_or(Value::Absent, |text| Value::Text(text.into()))
}

/// The key in `MAP.KEY` or `MAP["KEY"]`.
fn entry<'a>(map: &str, word: &'a str) -> Option<&'a str> {
    let rest = word.strip_prefix(map)?;
    match rest.strip_prefix('.') {
        Some(key) => Some(key),
        None => rest.strip_prefix("[\"")?.strip_suffix("\"]"),
    }
}
