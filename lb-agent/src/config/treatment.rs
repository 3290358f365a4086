//! What of a service is about its flows: how packets reach backends, what chooses one, and who may
//! come.

use std::{collections::BTreeSet, net::SocketAddr};

use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    locate::Report,
    scalar,
    table::{Table, elements},
};
use crate::domain::service::{Affinity, Forwarding};

pub(super) fn forwarding(value: &DeValue) -> Result<Forwarding, String> {
    let text = scalar::string(value)?;
    [Forwarding::Nat, Forwarding::DsrL2, Forwarding::DsrIpip]
        .into_iter()
        .find(|forwarding| forwarding.name() == text)
        .ok_or_else(|| {
            format!("`{text}` is no way of forwarding; use `nat`, `dsr-l2` or `dsr-ipip`")
        })
}

/// Reports the ports that would have to be translated, where they cannot be.
pub(super) fn check_ports(
    forwarding: Forwarding,
    vips: &[Spanned<SocketAddr>],
    backends: &[Spanned<SocketAddr>],
    report: &mut Report,
) {
    let Some(first) = vips.first().filter(|_| forwarding.keeps_port()) else {
        return;
    };
    let (name, port) = (forwarding.name(), first.get_ref().port());
    for vip in vips.iter().filter(|vip| vip.get_ref().port() != port) {
        report.add(
            &vip.span(),
            format!(
                "`{name}` cannot translate ports, so all addresses of the service need port {port}; \
                 make another service for port {}",
                vip.get_ref().port()
            ),
        );
    }
    for backend in backends {
        if backend.get_ref().port() != port {
            report.add(
                &backend.span(),
                format!(
                    "`{name}` cannot translate ports: the backend would have to listen on the VIP's \
                     port {port}, not on {}",
                    backend.get_ref().port()
                ),
            );
        }
    }
}

pub(super) fn affinity(value: &DeValue) -> Result<Affinity, String> {
    match scalar::string(value)?.as_str() {
        "connection" => Ok(Affinity::Connection),
        "client" => Ok(Affinity::Client),
        other => Err(format!(
            "`{other}` is no affinity; use `client` to send a client to one backend by its address, \
             or `connection`"
        )),
    }
}

/// The source ranges that may connect: of each family that there are VIPs of.
pub(super) fn allow(
    table: &mut Table,
    vips: &[Spanned<SocketAddr>],
    report: &mut Report,
) -> Option<BTreeSet<IpNet>> {
    let value = table.value("allow")?;
    let found = report.count();
    let sources = elements(value, report, scalar::prefix)?;
    let allow: BTreeSet<IpNet> = sources.into_iter().map(Spanned::into_inner).collect();
    if report.count() > found {
        return Some(allow);
    }
    for (v6, family, example) in [(false, "IPv4", "0.0.0.0/0"), (true, "IPv6", "::/0")] {
        let mut vips = vips.iter();
        if vips.any(|vip| vip.get_ref().is_ipv6() == v6)
            && !allow.iter().any(|prefix| prefix.addr().is_ipv6() == v6)
        {
            report.add(
                &value.span(),
                format!(
                    "the service has an {family} address for clients, but no {family} client is \
                     allowed; name those who are, or \"{example}\" for all"
                ),
            );
        }
    }
    Some(allow)
}
