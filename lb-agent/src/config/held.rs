//! The keys `decapsulate` and `decapsulate_from` of `[node]`: VIPs that the node holds for others.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use lb_common::maps::{MAX_HELD_VIPS, MAX_SENDERS};
use toml::{Spanned, de::DeValue};

use super::{
    locate::Report,
    scalar,
    table::{Table, elements},
};

/// Reads both keys.
pub(super) fn decapsulate(table: &mut Table, report: &mut Report) -> (Vec<IpAddr>, Vec<IpNet>) {
    let vips = vips(table, report);
    let Some(value) = table.value("decapsulate_from") else {
        return (vips, Vec::new());
    };
    let found = report.count();
    let prefixes = elements(value, report, scalar::prefix).unwrap_or_default();
    let from: BTreeSet<IpNet> = prefixes.into_iter().map(Spanned::into_inner).collect();
    if vips.is_empty() {
        report.add(
            &value.span(),
            "says where packets for the VIPs of `decapsulate` may come from, but there are none; \
             name them, or remove this",
        );
    }
    if from.len() > MAX_SENDERS as usize {
        let many = format!("must name at most {MAX_SENDERS} prefixes");
        report.add(&value.span(), many);
    }
    for (v6, family, example) in [(false, "IPv4", "0.0.0.0/0"), (true, "IPv6", "::/0")] {
        let needed = vips.iter().any(|vip| vip.is_ipv6() == v6);
        let named = from.iter().any(|prefix| prefix.addr().is_ipv6() == v6);
        if report.count() == found && needed && !named {
            report.add(
                &value.span(),
                format!(
                    "`decapsulate` names an {family} address, but no {family} node may send for it; \
                     name those that may, or \"{example}\" for all"
                ),
            );
        }
    }
    (vips, from.into_iter().collect())
}

fn vips(table: &mut Table, report: &mut Report) -> Vec<IpAddr> {
    let Some(value) = table.value("decapsulate") else {
        return Vec::new();
    };
    let mut vips = Vec::new();
    for vip in elements(value, report, vip).unwrap_or_default() {
        if vips.contains(vip.get_ref()) {
            let twice = format!("{} is named twice; remove one", vip.get_ref());
            report.add(&vip.span(), twice);
        } else {
            vips.push(vip.into_inner());
        }
    }
    if vips.len() > MAX_HELD_VIPS as usize {
        let many = format!("must name at most {MAX_HELD_VIPS} addresses");
        report.add(&value.span(), many);
    }
    vips
}

fn vip(value: &DeValue) -> Result<IpAddr, String> {
    let text = scalar::string(value)?;
    let ip: IpAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is no IP address; name that of a VIP, without a port"))?;
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Err(format!(
            "{ip} cannot be a VIP, for no client can connect to it"
        ));
    }
    Ok(ip)
}
