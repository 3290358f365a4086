//! Services, backends, blocks and events as rows.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use super::super::{look::Look, rate::per_second};
use crate::{
    api::proto::{Backend, Counters, Service},
    cli::split::shares,
};

/// Traffic in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli::top) struct Traffic {
    pub(in crate::cli::top) packets_per_second: Option<f64>,
    /// Of frames.
    pub(in crate::cli::top) bytes_per_second: Option<f64>,
    pub(in crate::cli::top) new_flows_per_second: Option<f64>,
    /// Flows that exist now.
    pub(in crate::cli::top) flows: u64,
}

impl Traffic {
    fn new(before: Option<&Counters>, after: Option<&Counters>, elapsed: Duration) -> Self {
        let after = after.copied().unwrap_or_default();
        let rate =
            |count: fn(&Counters) -> u64| per_second(before.map(count), count(&after), elapsed);
        Self {
            packets_per_second: rate(|of| of.packets_in + of.packets_out),
            bytes_per_second: rate(|of| of.bytes_in + of.bytes_out),
            new_flows_per_second: rate(|of| of.flows_created),
            flows: after.flows_live,
        }
    }
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli::top) struct ServiceRow {
    pub(in crate::cli::top) name: String,
    pub(in crate::cli::top) vips: Vec<String>,
    pub(in crate::cli::top) protocol: String,
    #[serde(flatten)]
    pub(in crate::cli::top) traffic: Traffic,
    pub(in crate::cli::top) backends: u32,
    pub(in crate::cli::top) backends_healthy: u32,
    /// Those that take new flows.
    pub(in crate::cli::top) backends_active: u32,
    /// Too few are healthy, so all are used.
    pub(in crate::cli::top) panic: bool,
    /// The split, and the shift within it, in short; empty: neither.
    pub(in crate::cli::top) split: String,
    /// Names and facts that the row has no room for.
    #[serde(skip)]
    pub(in crate::cli::top) more: Vec<(&'static str, String)>,
}

/// A backend of the service that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli::top) struct BackendRow {
    pub(in crate::cli::top) id: String,
    pub(in crate::cli::top) address: String,
    pub(in crate::cli::top) subset: Option<String>,
    /// As in `backend list`.
    pub(in crate::cli::top) health: String,
    /// What else is the matter: `draining`, `maintenance`, `ejected`, `held`, `slow start`; empty:
    /// nothing.
    pub(in crate::cli::top) condition: String,
    pub(in crate::cli::top) weight: u32,
    /// Percent of the new flows.
    pub(in crate::cli::top) share_percent: f64,
    #[serde(flatten)]
    pub(in crate::cli::top) traffic: Traffic,
    /// Why the weight is what it is.
    pub(in crate::cli::top) reason: String,
    /// Names and facts that the row has no room for.
    #[serde(skip)]
    pub(in crate::cli::top) more: Vec<(&'static str, String)>,
}

/// A rule of the block list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli::top) struct BlockRow {
    pub(in crate::cli::top) prefix: String,
    pub(in crate::cli::top) reason: String,
    pub(in crate::cli::top) origin: String,
    pub(in crate::cli::top) dropped_packets: u64,
    pub(in crate::cli::top) dropped_bytes: u64,
    pub(in crate::cli::top) packets_per_second: Option<f64>,
    /// Until it ends by itself; absent: it does not.
    pub(in crate::cli::top) expires_in_ms: Option<u64>,
}

/// A change of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli::top) struct EventRow {
    pub(in crate::cli::top) at_unix_ms: i64,
    pub(in crate::cli::top) age_ms: u64,
    pub(in crate::cli::top) service: String,
    pub(in crate::cli::top) address: String,
    pub(in crate::cli::top) from: String,
    pub(in crate::cli::top) to: String,
    pub(in crate::cli::top) by: String,
    pub(in crate::cli::top) reason: String,
}

pub(super) fn services(before: Option<&Look>, look: &Look, elapsed: Duration) -> Vec<ServiceRow> {
    let earlier: HashMap<&str, &Counters> = before
        .into_iter()
        .flat_map(|look| &look.services)
        .filter_map(|of| Some((of.name.as_str(), of.counters.as_ref()?)))
        .collect();
    let row = |of: &Service| ServiceRow {
        name: of.name.clone(),
        vips: of.vips.clone(),
        protocol: of.protocol.clone(),
        traffic: Traffic::new(
            earlier.get(of.name.as_str()).copied(),
            of.counters.as_ref(),
            elapsed,
        ),
        backends: of.backends,
        backends_healthy: of.backends_healthy,
        backends_active: of.backends_active,
        panic: of.panic,
        split: split(of),
        more: vec![
            ("forwarding", of.forwarding.clone()),
            ("affinity", of.affinity.clone()),
            ("configured", of.origin.clone()),
            ("catalog", of.consul_service.clone().unwrap_or_default()),
            (
                "probe",
                of.probe
                    .as_ref()
                    .map(|p| p.kind.clone())
                    .unwrap_or_default(),
            ),
            (
                "set by",
                of.split
                    .as_ref()
                    .map(|split| format!("{} ({})", split.source, split.origin))
                    .unwrap_or_default(),
            ),
            ("notes", of.notes.join("; ")),
        ],
    };
    look.services.iter().map(row).collect()
}

/// As in `v1=90 v2=10`, with the shift that goes on behind it.
fn split(service: &Service) -> String {
    let mut words = Vec::new();
    if let Some(split) = &service.split {
        words.push(shares(&split.shares));
    }
    if let Some(shift) = &service.shift {
        words.push(match (shift.phase.as_str(), shift.to_percent) {
            ("stepping", Some(to)) => format!("{} → {to}%", shift.subset),
            (phase, _) => format!("{} {phase}", shift.subset),
        });
    }
    words.join(", ")
}

pub(super) fn backends(before: Option<&Look>, look: &Look, elapsed: Duration) -> Vec<BackendRow> {
    // Of one service, so that the id and the address name the backend.
    let same = before.filter(|before| before.backends_of == look.backends_of);
    let earlier: HashMap<(&str, &str), &Counters> = same
        .into_iter()
        .flat_map(|look| &look.backends)
        .filter_map(|of| Some(((of.id.as_str(), of.address.as_str()), of.counters.as_ref()?)))
        .collect();
    let now = look.status.now_unix_ms;
    let row = |of: &Backend| BackendRow {
        id: of.id.clone(),
        address: of.address.clone(),
        subset: of.subset.clone(),
        health: of.health.clone(),
        condition: condition(of),
        weight: of.weight,
        share_percent: of.share_percent,
        traffic: Traffic::new(
            earlier.get(&(of.id.as_str(), of.address.as_str())).copied(),
            of.counters.as_ref(),
            elapsed,
        ),
        reason: of.reason.clone(),
        more: more_of(of, now),
    };
    look.backends.iter().map(row).collect()
}

/// The gravest of what is the matter besides its health.
fn condition(backend: &Backend) -> String {
    if !backend.disabled_reason.is_empty() {
        backend.disabled_reason.clone()
    } else if backend.ejected_until_unix_ms.is_some() {
        "ejected".into()
    } else if backend.held_until_unix_ms.is_some() {
        "held".into()
    } else {
        match backend.slow_start_percent {
            Some(percent) => format!("slow start {percent}%"),
            None => String::new(),
        }
    }
}

fn more_of(of: &Backend, now: i64) -> Vec<(&'static str, String)> {
    let catalog = match of.catalog_detail.as_str() {
        "" => of.catalog_health.clone(),
        detail => format!("{}: {detail}", of.catalog_health),
    };
    let observed = match of.observed_reason.as_str() {
        "" => of.observed.clone(),
        reason => format!("{}: {reason}", of.observed),
    };
    let until = |at: Option<i64>| match left(at, now) {
        Some(ms) => crate::cli::output::span(Duration::from_millis(ms)),
        None => String::new(),
    };
    let counters = of.counters.unwrap_or_default();
    vec![
        ("catalog", catalog),
        ("probes", observed),
        ("ejected for", until(of.ejected_until_unix_ms)),
        ("because", of.ejected_reason.clone()),
        ("drained by", of.drained_by.clone().unwrap_or_default()),
        ("cut in", until(of.drain_deadline_unix_ms)),
        ("registered", of.registered_weight.to_string()),
        ("flows so far", counters.flows_created.to_string()),
        ("refused", counters.connections_refused.to_string()),
        ("unanswered", counters.connections_unanswered.to_string()),
    ]
}

pub(super) fn blocks(before: Option<&Look>, look: &Look, elapsed: Duration) -> Vec<BlockRow> {
    let earlier: HashMap<&str, u64> = before
        .into_iter()
        .flat_map(|look| &look.blocks)
        .filter_map(|of| Some((of.rule.as_ref()?.prefix.as_str(), of.dropped_packets)))
        .collect();
    look.blocks
        .iter()
        .map(|of| {
            let rule = of.rule.clone().unwrap_or_default();
            BlockRow {
                packets_per_second: per_second(
                    earlier.get(rule.prefix.as_str()).copied(),
                    of.dropped_packets,
                    elapsed,
                ),
                dropped_packets: of.dropped_packets,
                dropped_bytes: of.dropped_bytes,
                expires_in_ms: left(rule.expires_unix_ms, look.status.now_unix_ms),
                prefix: rule.prefix,
                reason: rule.reason,
                origin: rule.origin,
            }
        })
        .collect()
}

pub(super) fn events(look: &Look) -> Vec<EventRow> {
    let changes = look.changes.iter().rev();
    changes
        .map(|of| EventRow {
            at_unix_ms: of.at_unix_ms,
            age_ms: left(Some(look.status.now_unix_ms), of.at_unix_ms).unwrap_or(0),
            service: of.service.clone(),
            address: of.address.clone(),
            from: of.from.clone(),
            to: of.to.clone(),
            by: of.source.clone(),
            reason: of.reason.clone(),
        })
        .collect()
}

/// From `now` until then; zero if it has passed.
fn left(at: Option<i64>, now: i64) -> Option<u64> {
    Some(u64::try_from(at?.saturating_sub(now)).unwrap_or(0))
}

#[cfg(test)]
mod tests;
