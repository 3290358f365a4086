//! Consul's JSON of `service-resolver` entries.

use std::collections::BTreeMap;

use http::HeaderName;
use serde::Deserialize;
use serde_json::Value;

use super::{Elsewhere, InvalidEntry, given, ignored, says, timeout};
use crate::domain::{
    config_entry::{HashBy, OfRequests, Resolver, ResolverSubset, Target},
    filter::Filter,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WireResolver {
    default_subset: Option<String>,
    subsets: Option<BTreeMap<String, WireSubset>>,
    redirect: Option<WireTarget>,
    failover: Option<BTreeMap<String, WireFailover>>,
    connect_timeout: Option<Value>,
    request_timeout: Option<Value>,
    load_balancer: Option<WireLoadBalancer>,
    prioritize_by_locality: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSubset {
    filter: Option<String>,
    #[serde(default)]
    only_passing: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireFailover {
    service: Option<String>,
    service_subset: Option<String>,
    datacenters: Option<Vec<String>>,
    targets: Option<Vec<WireTarget>>,
    policy: Option<Value>,
    #[serde(flatten)]
    elsewhere: Elsewhere,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireTarget {
    service: Option<String>,
    service_subset: Option<String>,
    datacenter: Option<String>,
    #[serde(flatten)]
    elsewhere: Elsewhere,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireLoadBalancer {
    policy: Option<String>,
    hash_policies: Option<Vec<WireHash>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireHash {
    field: Option<String>,
    field_value: Option<String>,
    cookie_config: Option<WireCookie>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireCookie {
    #[serde(default)]
    session: bool,
    #[serde(rename = "TTL")]
    ttl: Option<Value>,
}

impl WireResolver {
    pub(super) fn into_resolver(self, name: &str) -> Result<Resolver, InvalidEntry> {
        let unusable = |reason| InvalidEntry::Unusable {
            name: name.into(),
            reason,
        };
        let time = |field, value: &Option<Value>| {
            let Some(value) = value.as_ref().filter(|value| !value.is_null()) else {
                return Ok(None);
            };
            let time = timeout(value).ok_or_else(|| InvalidEntry::Form {
                name: name.into(),
                reason: format!("its {field} is {value}"),
            })?;
            // Consul writes 0 for what was not given.
            Ok(Some(time).filter(|time| !time.is_zero()))
        };
        let connect_timeout = time("ConnectTimeout", &self.connect_timeout)?;
        let requests = OfRequests {
            timeout: time("RequestTimeout", &self.request_timeout)?,
            hash: self.load_balancer.as_ref().and_then(WireLoadBalancer::hash),
        };
        let (mut failover, mut left_out) = (BTreeMap::new(), Vec::new());
        let mut ignored = self.ignored();
        for (subset, wire) in self.failover.unwrap_or_default() {
            if says(wire.policy.as_ref()) {
                ignored.push(format!("Policy of the Failover of {subset}"));
            }
            let targets = wire.into_targets(name, &subset, &mut left_out);
            failover.insert(subset, targets.map_err(unusable)?);
        }
        let redirect = self.redirect.map(|wire| {
            let target = wire.lead(name);
            target.map_err(|field| format!("{field} of its Redirect is not supported"))
        });
        let subsets = self.subsets.unwrap_or_default().into_iter();
        Ok(Resolver {
            default_subset: given(self.default_subset),
            subsets: subsets
                .map(|(subset, wire)| (subset, wire.into_subset()))
                .collect(),
            redirect: redirect.transpose().map_err(unusable)?,
            failover,
            connect_timeout,
            requests: (requests != OfRequests::default()).then(|| Box::new(requests)),
            ignored,
            left_out,
        })
    }

    /// What it says of requests that nothing is made of.
    fn ignored(&self) -> Vec<String> {
        let balancer = self.load_balancer.as_ref();
        let policy = balancer.and_then(|balancer| balancer.policy.as_deref());
        // The others choose whomever of all, which is left to the proxy; these bind requests.
        let binds = !matches!(
            policy,
            None | Some("" | "random" | "round_robin" | "least_request")
        );
        let followed = balancer.and_then(WireLoadBalancer::hash).is_some();
        let mut fields = ignored([("PrioritizeByLocality", &self.prioritize_by_locality)]);
        fields.extend((binds && !followed).then(|| "LoadBalancer".to_owned()));
        fields
    }
}

impl WireLoadBalancer {
    /// What it binds requests by, where that is one header, or one cookie that the proxy sets. A cookie that
    /// the service sets is none: the proxy would write over it.
    fn hash(&self) -> Option<HashBy> {
        if !matches!(self.policy.as_deref(), Some("ring_hash" | "maglev")) {
            return None;
        }
        let [only] = self.hash_policies.as_deref()? else {
            return None;
        };
        let name = only.field_value.as_deref()?;
        match only.field.as_deref()? {
            "header" => {
                let name = HeaderName::try_from(name).ok()?;
                Some(HashBy::Header(name.as_str().to_owned()))
            }
            "cookie" => {
                let own = only.cookie_config.as_ref()?;
                let is_set = own.session || says(own.ttl.as_ref());
                let is_name = HeaderName::try_from(name).is_ok();
                (is_set && is_name).then(|| HashBy::Cookie(name.to_owned()))
            }
            _ => None,
        }
    }
}

impl WireSubset {
    fn into_subset(self) -> ResolverSubset {
        let filter = given(self.filter).map(|text| Filter::parse(&text));
        ResolverSubset {
            filter: filter.transpose().map_err(|error| error.to_string()),
            only_passing: self.only_passing,
        }
    }
}

impl WireFailover {
    /// Where the traffic of a subset goes, best first; what is left out of it is told.
    fn into_targets(
        self,
        name: &str,
        subset: &str,
        left_out: &mut Vec<String>,
    ) -> Result<Vec<Target>, String> {
        if let Some(field) = self.elsewhere.field() {
            left_out.push(format!(
                "the Failover of {subset} is left out: {field} is not supported"
            ));
            return Ok(Vec::new());
        }
        let mut targets = self.targets.unwrap_or_default();
        let datacenters = self.datacenters.unwrap_or_default();
        let (service, to) = (given(self.service), given(self.service_subset));
        if targets.is_empty() {
            let target = |datacenter| WireTarget {
                service: service.clone(),
                service_subset: to.clone(),
                datacenter,
                elsewhere: Elsewhere::default(),
            };
            targets = match datacenters.is_empty() {
                true => vec![target(None)],
                false => datacenters.into_iter().map(|dc| target(Some(dc))).collect(),
            };
        } else if service.is_some() || to.is_some() || !datacenters.is_empty() {
            // Consul refuses that, too: which of them would count?
            return Err(format!(
                "the Failover of {subset} has Targets beside a Service, ServiceSubset or Datacenters"
            ));
        }
        let numbered = (1..).zip(targets);
        let read = numbered.filter_map(|(number, wire)| {
            let target = wire.into_target(name);
            let tell = |reason| {
                left_out.push(format!(
                    "target {number} of the Failover of {subset} is left out: {reason}"
                ));
            };
            target.map_err(tell).ok()
        });
        Ok(read.collect())
    }
}

impl WireTarget {
    /// Where it leads to, or the field by which that is nowhere here.
    fn lead(self, name: &str) -> Result<Target, &'static str> {
        if let Some(field) = self.elsewhere.field() {
            return Err(field);
        }
        Ok(Target {
            service: given(self.service).unwrap_or_else(|| name.to_owned()),
            subset: given(self.service_subset),
            datacenter: given(self.datacenter),
        })
    }

    /// The same of a failover.
    fn into_target(self, name: &str) -> Result<Target, String> {
        let target = self.lead(name);
        let target = target.map_err(|field| format!("{field} is not supported"))?;
        // Who is in it is for a resolver of that datacenter to say, which nobody asks for.
        match (&target.subset, &target.datacenter) {
            (Some(_), Some(_)) => Err("a ServiceSubset of a datacenter is not supported".into()),
            _ => Ok(target),
        }
    }
}

#[cfg(test)]
mod tests;
