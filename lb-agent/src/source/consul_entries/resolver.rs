//! Consul's JSON of `service-resolver` entries.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Elsewhere, InvalidEntry, given, ignored, says, timeout};
use crate::domain::{
    config_entry::{Resolver, ResolverSubset, Target},
    filter::Filter,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WireResolver {
    default_subset: Option<String>,
    subsets: Option<BTreeMap<String, WireSubset>>,
    redirect: Option<WireRedirect>,
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
struct WireRedirect {
    service: Option<String>,
    service_subset: Option<String>,
    datacenter: Option<String>,
    #[serde(flatten)]
    elsewhere: Elsewhere,
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
}

impl WireResolver {
    pub(super) fn into_resolver(self, name: &str) -> Result<Resolver, InvalidEntry> {
        let unusable = |reason| InvalidEntry::Unusable {
            name: name.into(),
            reason,
        };
        let connect_timeout = match &self.connect_timeout {
            None | Some(Value::Null) => None,
            Some(value) => Some(timeout(value).ok_or_else(|| InvalidEntry::Form {
                name: name.into(),
                reason: format!("its ConnectTimeout is {value}"),
            })?),
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
        let redirect = self.redirect.map(|wire| wire.into_target(name));
        let subsets = self.subsets.unwrap_or_default().into_iter();
        Ok(Resolver {
            default_subset: given(self.default_subset),
            subsets: subsets
                .map(|(subset, wire)| (subset, wire.into_subset()))
                .collect(),
            redirect: redirect.transpose().map_err(unusable)?,
            failover,
            connect_timeout: connect_timeout.filter(|timeout| !timeout.is_zero()),
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
        let mut fields = ignored([
            ("RequestTimeout", &self.request_timeout),
            ("PrioritizeByLocality", &self.prioritize_by_locality),
        ]);
        fields.extend(binds.then(|| "LoadBalancer".to_owned()));
        fields
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

impl WireRedirect {
    fn into_target(self, name: &str) -> Result<Target, String> {
        if let Some(field) = self.elsewhere.field() {
            return Err(format!("{field} of its Redirect is not supported"));
        }
        Ok(Target {
            service: given(self.service).unwrap_or_else(|| name.to_owned()),
            subset: given(self.service_subset),
            datacenter: given(self.datacenter),
        })
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
    fn into_target(self, name: &str) -> Result<Target, String> {
        if let Some(field) = self.elsewhere.field() {
            return Err(format!("{field} is not supported"));
        }
        let target = Target {
            service: given(self.service).unwrap_or_else(|| name.to_owned()),
            subset: given(self.service_subset),
            datacenter: given(self.datacenter),
        };
        // Who is in it is for a resolver of that datacenter to say, which nobody asks for.
        match (&target.subset, &target.datacenter) {
            (Some(_), Some(_)) => Err("a ServiceSubset of a datacenter is not supported".into()),
            _ => Ok(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigEntry, EntryKind, parse};
    use super::*;

    /// The resolver of `web` with these fields.
    fn read(fields: &str) -> Result<Resolver, String> {
        let body = format!(r#"[{{"Kind":"service-resolver","Name":"web",{fields}}}]"#);
        let (mut entries, invalid) = parse(EntryKind::Resolver, body.as_bytes()).unwrap();
        match entries.remove("web") {
            Some(ConfigEntry::Resolver(resolver)) => Ok(resolver),
            _ => Err(invalid[0].to_string()),
        }
    }

    fn shown(targets: &[Target]) -> Vec<String> {
        targets.iter().map(ToString::to_string).collect()
    }

    /// As Consul 1.15 writes it.
    #[test]
    fn targets_of_a_failover_in_their_order() {
        let resolver = read(
            r#""Failover":{"*":{"Service":"","Datacenters":null,"Targets":[
                {"Service":"backup","ServiceSubset":"v2","Namespace":"default","Partition":"default"},
                {"Service":"far","Peer":"dc9"},
                {"Datacenter":"dc2"},
                {"ServiceSubset":"old","Namespace":"team"},
                {"ServiceSubset":"v2","Datacenter":"dc2"}]},
              "v1":{"Targets":[{"Peer":"dc9"}]},
              "v2":{"Service":"spare","SamenessGroup":"near"},
              "v3":{"Targets":[]}}"#,
        )
        .unwrap();
        assert_eq!(
            shown(&resolver.failover["*"]),
            ["backup, subset v2", "web, datacenter dc2"]
        );
        // There is an entry for it, so that of the others does not count.
        assert_eq!(resolver.failover["v1"], []);
        assert_eq!(resolver.failover["v2"], []);
        assert_eq!(shown(&resolver.failover["v3"]), ["web"]);
        assert_eq!(
            resolver.left_out,
            [
                "target 2 of the Failover of * is left out: Peer is not supported",
                "target 4 of the Failover of * is left out: Namespace is not supported",
                "target 5 of the Failover of * is left out: a ServiceSubset of a datacenter is not supported",
                "target 1 of the Failover of v1 is left out: Peer is not supported",
                "the Failover of v2 is left out: SamenessGroup is not supported",
            ]
        );
        assert_eq!(resolver.ignored, [""; 0]);
    }

    /// Rows of what would have another meaning here, and what is said of it.
    #[test]
    fn what_cannot_be_followed_is_refused() {
        for (fields, part) in [
            (
                r#""Failover":{"*":{"Service":"a","Targets":[{"Service":"b"}]}}"#,
                "has Targets beside a Service",
            ),
            (
                r#""Failover":{"*":{"Datacenters":["a"],"Targets":[{"Service":"b"}]}}"#,
                "has Targets beside a Service",
            ),
            (
                r#""Redirect":{"Service":"a","Peer":"dc9"}"#,
                "Peer of its Redirect is not supported",
            ),
            (
                r#""Redirect":{"Service":"a","Partition":"p"}"#,
                "Partition of its Redirect",
            ),
        ] {
            let told = read(fields).unwrap_err();
            assert!(told.contains(part) && told.contains("`web`"), "{told}");
        }
        let redirect = read(r#""Redirect":{"Service":"a","Namespace":"default"}"#);
        assert!(redirect.unwrap().redirect.is_some());
    }

    #[test]
    fn what_is_ignored_is_named() {
        for (fields, expected) in [
            (r#""LoadBalancer":null,"RequestTimeout":"0s""#, &[][..]),
            (r#""LoadBalancer":{"Policy":"least_request"}"#, &[]),
            (
                r#""LoadBalancer":{"Policy":"maglev","HashPolicies":[{"SourceIP":true}]}"#,
                &["LoadBalancer"],
            ),
            (
                r#""RequestTimeout":"5s","PrioritizeByLocality":{"Mode":"failover"}"#,
                &["RequestTimeout", "PrioritizeByLocality"],
            ),
            (
                r#""Failover":{"*":{"Service":"b","Policy":{"Mode":"order-by-locality"}}}"#,
                &["Policy of the Failover of *"],
            ),
        ] {
            assert_eq!(read(fields).unwrap().ignored, expected, "{fields}");
        }
    }
}
