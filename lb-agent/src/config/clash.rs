//! What no two services may share.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
};

use lb_common::maps::MAX_SERVICES;
use toml::Spanned;

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

/// Reports listeners of the proxy where something else is served.
pub(super) fn listeners(
    listeners: &[Spanned<SocketAddr>],
    services: &[Read],
    others: [(Option<SocketAddr>, &str); 2],
    report: &mut Report,
) {
    for (index, listener) in listeners.iter().enumerate() {
        let address = *listener.get_ref();
        let mut former = listeners[..index].iter();
        let mut vips = services.iter().flat_map(|service| {
            let udp = service.spec.protocol == Protocol::Udp;
            let vips = service.vips.iter().filter(move |_| !udp);
            vips.map(|vip| (vip, &service.spec.name))
        });
        let taken = if let Some(former) = former.find(|former| overlap(*former.get_ref(), address))
        {
            let line = report.line(&former.span());
            format!(
                "the proxy already listens on {} (line {line})",
                former.get_ref()
            )
        } else if let Some((other, what)) = others.iter().find_map(|(other, what)| {
            other
                .filter(|other| overlap(*other, address))
                .zip(Some(what))
        }) {
            format!("{other} is where {what}")
        } else if let Some((vip, name)) = vips.find(|(vip, _)| *vip.get_ref() == address) {
            let line = report.line(&vip.span());
            format!("{address} is where clients connect to for service `{name}` (line {line})")
        } else {
            continue;
        };
        report.add(
            &listener.span(),
            format!("{taken}; use another address or port"),
        );
    }
}

/// Whether no two sockets can listen on both.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: SocketAddr, address: SocketAddr| {
        // `[::]` takes IPv4 as well.
        wide.ip().is_unspecified() && (wide.is_ipv6() || address.is_ipv4())
    };
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
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
