//! The key `backends` of a service: the catalog in the file itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use toml::{Spanned, de::DeValue};

use super::{
    locate::Report,
    scalar,
    service::words,
    table::{Table, Value, elements, kind},
};
use crate::domain::backend::{CatalogHealth, Instance, InstanceId};

/// Reads the list. Also answers with the place of each address.
pub(super) fn backends(
    value: &Value,
    vips: &[Spanned<SocketAddr>],
    report: &mut Report,
) -> (Vec<Instance>, Vec<Spanned<SocketAddr>>) {
    let mut instances = Vec::new();
    let mut places: Vec<Spanned<SocketAddr>> = Vec::new();
    let DeValue::Array(array) = value.get_ref() else {
        report.add(
            &value.span(),
            format!(
                "must be a list, as in [{{ address = \"10.1.0.2:8080\" }}], not {}",
                kind(value.get_ref())
            ),
        );
        return (instances, places);
    };
    let mut lines = BTreeMap::new();
    for value in array.iter() {
        let Some(table) = Table::of(value, report) else {
            continue;
        };
        let Some((address, instance)) = backend(table, report) else {
            continue;
        };
        let (span, address) = (address.span(), address.into_inner());
        if let Some(line) = lines.get(&address) {
            report.add(
                &span,
                format!("backend {address} is already listed in line {line}; remove one"),
            );
        } else {
            lines.insert(address, report.line(&span));
        }
        let same_family = |vip: &Spanned<SocketAddr>| vip.get_ref().is_ipv4() == address.is_ipv4();
        if !vips.is_empty() && !vips.iter().any(same_family) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            report.add(
                &span,
                format!(
                    "the service has no {family} address for clients, so no packet could reach \
                     this backend; add one to `vip`"
                ),
            );
        }
        places.push(Spanned::new(span, address));
        instances.push(instance);
    }
    (instances, places)
}

fn backend(mut table: Table, report: &mut Report) -> Option<(Spanned<SocketAddr>, Instance)> {
    let address = table.require(
        "address",
        "address = \"10.1.0.2:8080\"",
        report,
        scalar::destination,
    );
    let weight = table
        .get("weight", report, |value| {
            scalar::integer(value, 0..=u32::from(u16::MAX))
        })
        .unwrap_or(1);
    let subset = table.get("subset", report, scalar::name);
    let tags: BTreeSet<String> = table
        .value("tags")
        .and_then(|value| elements(value, report, scalar::word))
        .unwrap_or_default()
        .into_iter()
        .map(Spanned::into_inner)
        .collect();
    let meta = words(&mut table, "meta", report);
    table.close(report);
    let address = address?;
    let instance = Instance {
        id: InstanceId(address.get_ref().to_string().into()),
        address: *address.get_ref(),
        weight,
        tags: Arc::new(tags.into_iter().collect()),
        meta: meta.into(),
        subset,
        detail: None,
        health: CatalogHealth::Passing,
    };
    Some((address, instance))
}
