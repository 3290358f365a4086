//! What no two services may share.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
};

use lb_common::maps::MAX_SERVICES;

use super::{locate::Report, service::Read};
use crate::domain::service::Protocol;

/// Reports names and VIPs that are taken twice, and backends that are VIPs themselves.
pub(super) fn clashes(services: &[Read], report: &mut Report) {
    names(services, report);
    let vips = vips(services, report);
    for service in services {
        for backend in &service.backends {
            let key = (*backend.get_ref(), service.spec.protocol);
            if let Some((owner, line)) = vips.get(&key) {
                report.add(
                    &backend.span(),
                    format!(
                        "{} is where clients connect to for service `{owner}` (line {line}), so \
                         packets would go in circles; give the address of a real server",
                        key.0
                    ),
                );
            }
        }
    }
}

fn names(services: &[Read], report: &mut Report) {
    let mut taken = HashMap::new();
    for name in services.iter().filter_map(|service| service.name.as_ref()) {
        match taken.entry(name.get_ref()) {
            Entry::Vacant(entry) => {
                entry.insert(report.line(&name.span()));
            }
            Entry::Occupied(entry) => report.add(
                &name.span(),
                format!(
                    "there is already a service `{}` in line {}; choose another name",
                    name.get_ref(),
                    entry.get()
                ),
            ),
        }
    }
}

/// The service and line that each VIP belongs to.
fn vips<'s>(
    services: &'s [Read],
    report: &mut Report,
) -> HashMap<(SocketAddr, Protocol), (&'s str, usize)> {
    let mut taken = HashMap::new();
    for service in services {
        for vip in &service.vips {
            let (address, protocol) = (*vip.get_ref(), service.spec.protocol);
            let full = taken.len() == MAX_SERVICES as usize;
            match taken.entry((address, protocol)) {
                Entry::Occupied(entry) => {
                    let (owner, line) = entry.get();
                    report.add(
                        &vip.span(),
                        format!(
                            "{address} ({protocol}) already belongs to service `{owner}` in line \
                             {line}; use another address or port"
                        ),
                    );
                }
                Entry::Vacant(_) if full => {
                    report.add(
                        &vip.span(),
                        format!("a node holds {MAX_SERVICES} addresses for clients at most"),
                    );
                    return taken;
                }
                Entry::Vacant(entry) => {
                    entry.insert((service.spec.name.as_str(), report.line(&vip.span())));
                }
            }
        }
    }
    taken
}
