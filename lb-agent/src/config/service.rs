//! A `[[service]]`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use toml::{Spanned, de::DeValue};

use super::{
    backend::backends,
    gate::gate,
    health::health,
    http,
    locate::{Report, Span},
    scalar,
    table::{Table, elements, kind, read_at},
    treatment,
};
use crate::domain::{
    filter::Filter,
    service::{Catalog, Origin, Protocol, ServiceSpec, SubsetRule},
    split::Shares,
};

/// A service as far as it could be read, with the places that comparisons between services need.
pub(super) struct Read {
    /// Counts only if nothing was found.
    pub(super) spec: ServiceSpec,
    /// Where the name stands; `None`: there is none.
    pub(super) name: Option<Spanned<String>>,
    /// The VIPs that could be read.
    pub(super) vips: Vec<Spanned<SocketAddr>>,
    /// The backends listed here that could be read.
    pub(super) backends: Vec<Spanned<SocketAddr>>,
    /// Where the split stands.
    pub(super) split: Option<Span>,
}

/// Reads every element of `service`.
pub(super) fn services(document: &mut Table, has_consul: bool, report: &mut Report) -> Vec<Read> {
    let Some(value) = document.value("service") else {
        return Vec::new();
    };
    let DeValue::Array(array) = value.get_ref() else {
        report.add(
            &value.span(),
            format!(
                "services are a list; write [[service]] with double brackets, not {}",
                kind(value.get_ref())
            ),
        );
        return Vec::new();
    };
    array
        .iter()
        .filter_map(|value| Some(service(Table::of(value, report)?, has_consul, report)))
        .collect()
}

fn service(mut table: Table, has_consul: bool, report: &mut Report) -> Read {
    let name = table.require("name", "name = \"echo\"", report, scalar::name);
    let protocol = table
        .get("protocol", report, protocol)
        .unwrap_or(Protocol::Tcp);
    let vips = vips(&mut table, protocol, report);
    let forwarding = table.locate("forwarding", report, treatment::forwarding);
    let affinity = table.locate("affinity", report, treatment::affinity);
    http::check_flows(protocol, forwarding.as_ref(), affinity.as_ref(), report);
    // What is refused for the whole service is not held against its ports, too.
    let forwarding = forwarding
        .map(Spanned::into_inner)
        .filter(|_| !protocol.is_proxied())
        .unwrap_or_default();
    let affinity = affinity.map(Spanned::into_inner).unwrap_or_default();
    let allow = treatment::allow(&mut table, &vips, report);
    let (catalog, backends) = catalog(
        &mut table,
        http::vips_of_backends(protocol, &vips),
        has_consul,
        report,
    );
    treatment::check_ports(forwarding, &vips, &backends, report);
    let subsets = subsets(&mut table, report);
    let (probe, health) = table
        .table("health", report)
        .map(|table| health(table, report))
        .unwrap_or_default();
    let mut spec = ServiceSpec {
        name: name
            .as_ref()
            .map(|name| name.get_ref().clone())
            .unwrap_or_default(),
        vips: vips.iter().map(|vip| *vip.get_ref()).collect(),
        protocol,
        forwarding,
        affinity,
        allow,
        catalog,
        subsets,
        split: None,
        probe,
        gate: table
            .table("gate", report)
            .map(|table| gate(table, report))
            .unwrap_or_default(),
        health,
        http: Arc::new(http::policy(&mut table, protocol, report)),
        origin: Origin {
            file: report.path().into(),
            line: report.line(&table.span),
        },
    };
    let place = table.value("split").map(|value| value.span());
    spec.split = split(&mut table, &spec, report);
    table.close(report);
    Read {
        split: place,
        spec,
        name,
        vips,
        backends,
    }
}

fn vips(table: &mut Table, protocol: Protocol, report: &mut Report) -> Vec<Spanned<SocketAddr>> {
    let example = "vip = [\"198.51.100.10:80\"]";
    let Some(value) = table.value("vip") else {
        if protocol.is_proxied() {
            return Vec::new();
        }
        report.add(
            &table.span,
            format!("`vip` is missing; add it, as in {example}"),
        );
        return Vec::new();
    };
    if value
        .get_ref()
        .as_array()
        .is_some_and(|array| array.is_empty())
    {
        report.add(
            &value.span(),
            format!("a service needs at least one address for clients, as in {example}"),
        );
    }
    elements(value, report, scalar::vip).unwrap_or_default()
}

fn protocol(value: &DeValue) -> Result<Protocol, String> {
    match scalar::string(value)?.as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "http" => Ok(Protocol::Http),
        "grpc" => Ok(Protocol::Grpc),
        other => Err(format!(
            "`{other}` is no protocol; use `tcp`, `udp`, `http` or `grpc`"
        )),
    }
}

/// Where the backends come from: exactly one of `consul` and `backends`.
fn catalog(
    table: &mut Table,
    vips: &[Spanned<SocketAddr>],
    has_consul: bool,
    report: &mut Report,
) -> (Catalog, Vec<Spanned<SocketAddr>>) {
    let none = || (Catalog::Static(Vec::new()), Vec::new());
    match (table.value("consul"), table.value("backends")) {
        (None, None) => {
            report.add(
                &table.span,
                "the service has no backends; add consul = { service = \"NAME\" } or \
                 backends = [{ address = \"IP:PORT\" }]",
            );
            none()
        }
        (Some(_), Some(backends)) => {
            report.add(
                &backends.span(),
                "backends come from `consul` or from `backends`, not from both; remove one",
            );
            none()
        }
        (None, Some(value)) => {
            let (instances, places) = backends(value, vips, report);
            (Catalog::Static(instances), places)
        }
        (Some(value), None) => {
            if !has_consul {
                report.add(
                    &value.span(),
                    "the service comes from Consul, but there is no section [consul]; add one",
                );
            }
            let Some(mut table) = Table::of(value, report) else {
                return none();
            };
            let service = table.require("service", "{ service = \"echo\" }", report, scalar::word);
            let datacenter = table.get("datacenter", report, scalar::word);
            table.close(report);
            let catalog = Catalog::Consul {
                service: service.map(Spanned::into_inner).unwrap_or_default(),
                datacenter,
            };
            (catalog, Vec::new())
        }
    }
}

fn subsets(table: &mut Table, report: &mut Report) -> BTreeMap<String, SubsetRule> {
    let Some(table) = table.table("subsets", report) else {
        return BTreeMap::new();
    };
    let mut subsets = BTreeMap::new();
    for (name, span, value) in table.entries() {
        if let Err(reason) = scalar::check_name(name) {
            report.add(&span, reason);
        }
        let Some(mut table) = Table::of(value, report) else {
            continue;
        };
        let found = report.count();
        let rule = SubsetRule {
            tag: table.get("tag", report, scalar::word),
            meta: words(&mut table, "meta", report),
            filter: table.get("filter", report, |value| {
                Filter::parse(&scalar::word(value)?).map_err(|error| error.to_string())
            }),
            ..SubsetRule::default()
        };
        table.close(report);
        if rule == SubsetRule::default() && report.count() == found {
            report.add(
                &value.span(),
                "a subset without a condition has no members; add tag = \"TAG\", \
                 meta = { KEY = \"VALUE\" } or filter = \"EXPRESSION\"",
            );
        }
        subsets.insert(name.to_owned(), rule);
    }
    subsets
}

/// A table of strings.
pub(super) fn words(
    table: &mut Table,
    key: &'static str,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let Some(table) = table.table(key, report) else {
        return BTreeMap::new();
    };
    table
        .entries()
        .filter_map(|(key, _, value)| {
            let text = read_at(value, report, scalar::string)?;
            Some((key.to_owned(), text.into_inner()))
        })
        .collect()
}

fn split(table: &mut Table, spec: &ServiceSpec, report: &mut Report) -> Option<Shares> {
    let table = table.table("split", report)?;
    let known = spec.subset_names();
    let mut shares = BTreeMap::new();
    let mut complete = true;
    for (name, span, value) in table.entries() {
        if !known.contains(name) {
            let hint = if known.is_empty() {
                "define it under `subsets`".to_owned()
            } else {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                format!("the service has {}", names.join(", "))
            };
            report.add(&span, format!("there is no subset `{name}`; {hint}"));
        }
        match read_at(value, report, |value| {
            scalar::integer(value, 0..=Shares::MAX)
        }) {
            Some(share) => {
                shares.insert(name.to_owned(), share.into_inner());
            }
            None => complete = false,
        }
    }
    if !complete {
        return None;
    }
    Shares::new(shares)
        .map_err(|error| report.add(&table.span, error.to_string()))
        .ok()
}
