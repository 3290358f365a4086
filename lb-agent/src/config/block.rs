//! The section `[block]`.

use std::collections::BTreeSet;

use ipnet::IpNet;
use lb_common::maps::MAX_ALLOW_RULES;

use super::{
    locate::Report,
    scalar,
    table::{Table, elements},
};

/// Reads `[block]`: `allow`, the prefixes that are never blocked.
pub(super) fn allow(mut table: Table, report: &mut Report) -> Vec<IpNet> {
    let value = table.value("allow");
    table.close(report);
    let Some(value) = value else {
        return Vec::new();
    };
    let mut allowed = BTreeSet::new();
    for prefix in elements(value, report, scalar::prefix).unwrap_or_default() {
        if !allowed.insert(*prefix.get_ref()) {
            let twice = format!("{} is named twice; remove one", prefix.get_ref());
            report.add(&prefix.span(), twice);
        }
    }
    if allowed.len() > MAX_ALLOW_RULES as usize {
        let many = format!("must name at most {MAX_ALLOW_RULES} prefixes");
        report.add(&value.span(), many);
    }
    allowed.into_iter().collect()
}
