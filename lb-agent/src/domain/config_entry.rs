//! Consul's configuration entries on services: who belongs to which subset, who gets how much,
//! where a service really is, and where its traffic goes when it has nobody left.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{filter::Filter, route::Route, service::SubsetRule};

/// The kinds that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// What a service speaks.
    Defaults,
    /// Subsets, redirect, failover.
    Resolver,
    /// Routes of requests.
    Router,
    /// Shares.
    Splitter,
}

impl EntryKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Defaults, Self::Resolver, Self::Router, Self::Splitter];

    /// As Consul calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Defaults => "service-defaults",
            Self::Resolver => "service-resolver",
            Self::Router => "service-router",
            Self::Splitter => "service-splitter",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An entry of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigEntry {
    /// `Protocol` of `service-defaults`; may be empty.
    Defaults(String),
    /// `service-resolver`.
    Resolver(Resolver),
    /// `service-router`, in its order: the first route that fits counts.
    Router(Vec<Route>),
    /// `service-splitter`, in its order.
    Splitter(Vec<Leg>),
}

/// A `service-resolver`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolver {
    /// The subset that takes the traffic of who names none; absent: all instances take it.
    pub default_subset: Option<String>,
    /// Subsets by name. One whose filter cannot be used has no members.
    pub subsets: BTreeMap<String, ResolverSubset>,
    /// The service is really this one.
    pub redirect: Option<Target>,
    /// By subset (`*`: each without an entry of its own): where its traffic goes while it has no
    /// usable instance, best first.
    pub failover: BTreeMap<String, Vec<Target>>,
    /// How long a connection may take to come about. For the proxy: in the kernel, the client's
    /// own patience decides.
    pub connect_timeout: Option<Duration>,
    /// What it says of requests, if anything. For the proxy.
    #[serde(default)]
    pub requests: Option<Box<OfRequests>>,
    /// Fields on requests that nothing is made of.
    #[serde(default)]
    pub ignored: Vec<String>,
    /// What of a failover leads to where nothing here leads, each with the reason.
    #[serde(default)]
    pub left_out: Vec<String>,
}

impl Resolver {
    /// Whether a filter of a subset asks about what only
    /// [`Instance::detail`](super::backend::Instance::detail) knows.
    pub fn needs_detail(&self) -> bool {
        let mut filters = self.subsets.values().map(|subset| &subset.filter);
        filters.any(|filter| matches!(filter, Ok(Some(filter)) if filter.needs_detail()))
    }
}

/// What a [`Resolver`] says of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfRequests {
    /// How long one may take until the head of its answer, all tries together.
    pub timeout: Option<Duration>,
    /// What one is to meet the same backend by.
    pub hash: Option<HashBy>,
}

/// What a hash is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashBy {
    /// The value of this header, in small letters.
    Header(String),
    /// That of this cookie, which is set for who has none.
    Cookie(String),
}

/// A subset of a [`Resolver`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverSubset {
    /// Who belongs to it; `None`: everybody. An error is why the filter cannot be used.
    pub filter: Result<Option<Filter>, String>,
    /// Instances with a warning are no members either.
    pub only_passing: bool,
}

impl ResolverSubset {
    /// The same as the configuration file would say it; a filter that cannot be used has no members.
    pub fn rule(&self) -> SubsetRule {
        SubsetRule {
            filter: self.filter.clone().ok().flatten(),
            everybody: self.filter == Ok(None),
            only_passing: self.only_passing,
            ..SubsetRule::default()
        }
    }
}

/// Another service, subset or datacenter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Name in Consul.
    pub service: String,
    /// One of its subsets; `None`: its default subset, else all of it.
    pub subset: Option<String>,
    /// Absent: the same as that of who refers to it.
    pub datacenter: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        if let Some(subset) = &self.subset {
            write!(f, ", subset {subset}")?;
        }
        if let Some(datacenter) = &self.datacenter {
            write!(f, ", datacenter {datacenter}")?;
        }
        Ok(())
    }
}

/// A share of a `service-splitter`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Hundredths of a percent.
    pub share: u32,
    /// Who gets it; without a service of its own it is the one that is split.
    pub service: Option<String>,
    /// The subset of that.
    pub subset: Option<String>,
    /// Fields that nothing is made of.
    #[serde(default)]
    pub ignored: Vec<String>,
}

impl Leg {
    /// The other service that the share goes to, if it does.
    pub fn target(&self) -> Option<Target> {
        Some(Target {
            service: self.service.clone()?,
            subset: self.subset.clone(),
            datacenter: None,
        })
    }
}
