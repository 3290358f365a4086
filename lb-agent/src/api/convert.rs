//! Domain values into messages: pure, and the only place that knows both.

mod health;
mod requests;
mod splits;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_common::{entry::Counter, flow::State, verdict::Verdict};

use self::health::{disabled, health, policy, probe};
pub(super) use self::{
    health::change,
    requests::{requests, route, treatment},
    splits::{service_split, shift, split},
};
use super::{drains, proto};
use crate::{
    controller::{BackendCounters, BlockEntry, FlowTableUse, Status, handle::Counters},
    domain::{
        backend::CatalogHealth,
        block::{BlockRule, Exception},
        drift::Place,
        health::Observed,
        ramp,
        route::Text,
        service::Catalog,
        snapshot::{BackendState, ServiceState, Snapshot},
        sync::{WatchStatus, service_key},
        tag_route::TagRoute,
    },
};

mod docker;

/// Milliseconds since 1970, rounded down; negative before it.
pub(super) fn unix_ms(at: SystemTime) -> i64 {
    let clamp = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => clamp(after),
        Err(before) => -clamp(before.duration()),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The maps' sizes bound every count that goes through here.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(super) fn status(
    status: &Status,
    snapshot: &Snapshot,
    now: SystemTime,
) -> proto::StatusResponse {
    let (last, total, rebuilds) = status.maglev_rebuilds;
    proto::StatusResponse {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        snapshot_version: status.version,
        now_unix_ms: unix_ms(now),
        started_unix_ms: unix_ms(status.started),
        interfaces: status
            .interfaces
            .iter()
            .map(|interface| proto::Interface {
                name: interface.name.clone(),
                mode: interface.mode.into(),
                adopted: interface.adopted,
            })
            .collect(),
        consul_address: status.consul.clone(),
        watches: status
            .watches
            .iter()
            .map(|(name, state)| watch(name, state))
            .collect(),
        catalog: Some(catalog_counts(snapshot)),
        flow_tables: vec![
            flow_table("ipv4", &status.flows4),
            flow_table("ipv6", &status.flows6),
        ],
        evictions: Some(proto::Evictions {
            closed: status.evictions.closed,
            half_open: status.evictions.half_open,
        }),
        verdicts: status
            .verdicts
            .iter()
            .map(|(verdict, counter)| verdict_count(*verdict, *counter))
            .collect(),
        block_rules: status.blocks as u64,
        maglev_rebuilds: Some(proto::MaglevRebuilds {
            count: rebuilds,
            last_us: micros(last),
            total_us: micros(total),
        }),
        last_apply_us: micros(status.last_apply),
        problems: status.problems.clone(),
        docker: status.docker.as_ref().map(docker::docker),
        node_drain: status.node_drain.as_ref().map(drains::node),
        drains: status.drains.iter().map(drains::drained).collect(),
        drift: Some(proto::Drift {
            repairs: Place::KINDS
                .into_iter()
                .map(|kind| {
                    let count = status.drift.repairs.get(kind).copied();
                    (kind.to_owned(), count.unwrap_or(0))
                })
                .collect(),
            compared_unix_ms: status.drift.compared.map(unix_ms),
            last_unix_ms: status.drift.last.as_ref().map(|(at, _)| unix_ms(*at)),
            last: status.drift.last.as_ref().map(|(_, text)| text.clone()),
        }),
        local_clients: status
            .local_clients
            .as_ref()
            .map(|local| proto::LocalClients {
                cgroup: local.cgroup.display().to_string(),
                adopted: local.adopted,
                translated: local.stats.translated,
                refused: local.stats.refused,
            }),
    }
}

fn watch(name: &str, state: &WatchStatus) -> proto::Watch {
    proto::Watch {
        name: name.into(),
        last_success_unix_ms: state.last_success.map(unix_ms),
        last_change_unix_ms: state.last_change.map(unix_ms),
        index: state.index,
        error: state.error.clone(),
        errors: state.errors,
    }
}

fn catalog_counts(snapshot: &Snapshot) -> proto::CatalogCounts {
    let mut counts = proto::CatalogCounts::default();
    for service in snapshot.services.values() {
        let healthy = healthy(service);
        counts.services += 1;
        counts.services_healthy += u32::from(healthy > 0);
        counts.backends += count(service.backends.len());
        counts.backends_healthy += healthy;
    }
    counts
}

fn flow_table(family: &str, table: &FlowTableUse) -> proto::FlowTable {
    let used_by_state: BTreeMap<String, u64> = table
        .used
        .iter()
        .zip(0_u8..)
        .filter_map(|(used, bits)| Some((State::from_bits(bits)?, *used)))
        .filter(|(state, used)| *state != State::Free && *used > 0)
        .map(|(state, used)| (state.name().to_owned(), used))
        .collect();
    proto::FlowTable {
        family: family.into(),
        slots: table.slots,
        used: used_by_state.values().sum(),
        used_by_state,
    }
}

fn verdict_count(verdict: Verdict, counter: Counter) -> proto::VerdictCount {
    proto::VerdictCount {
        action: verdict.action().name().into(),
        name: verdict.name().into(),
        help: verdict.help().trim().into(),
        packets: counter.packets,
        bytes: counter.bytes,
    }
}

pub(super) fn service(state: &ServiceState, counters: &Counters) -> proto::Service {
    let spec = &state.spec;
    proto::Service {
        name: spec.name.clone(),
        protocol: spec.protocol.name().into(),
        forwarding: spec.forwarding.name().into(),
        vips: spec.vips.iter().map(ToString::to_string).collect(),
        origin: spec.origin.to_string(),
        consul_service: match &spec.catalog {
            Catalog::Static(_) => None,
            Catalog::Consul {
                service,
                datacenter,
            } => Some(service_key(service, datacenter.as_deref())),
        },
        probe: spec.probe.as_ref().map(probe),
        split: state.split.as_ref().map(splits::split),
        backends: count(state.backends.len()),
        backends_healthy: healthy(state),
        backends_active: active(state.backends.iter()),
        panic: state.panic,
        notes: state.notes.clone(),
        routes: state.routes.iter().map(tag_route).collect(),
        counters: Some(traffic(counters.services.get(&spec.name))),
        affinity: spec.affinity.name().into(),
        restricted: spec.allow.is_some(),
        allow: spec
            .allow
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect(),
        health: Some(policy(&spec.health)),
        split_layers: splits::layers(state),
        shift: state.shift.as_ref().map(splits::shift),
        requests: None,
    }
}

fn tag_route(route: &TagRoute) -> proto::TagRoute {
    let (mut prefix, mut whole) = (None, None);
    match &route.path {
        Some(Text::Prefix(path)) => prefix = Some(path.clone()),
        Some(Text::Exact(path)) => whole = Some(path.clone()),
        _ => {}
    }
    proto::TagRoute {
        host: route.host.clone(),
        path_prefix: prefix,
        path: whole,
    }
}
fn traffic(counters: Option<&BackendCounters>) -> proto::Counters {
    let counters = counters.copied().unwrap_or_default();
    proto::Counters {
        packets_in: counters.inbound.packets,
        bytes_in: counters.inbound.bytes,
        packets_out: counters.outbound.packets,
        bytes_out: counters.outbound.bytes,
        flows_created: counters.flows,
        flows_live: counters.live_flows,
        connections_refused: counters.attempts.refused,
        connections_unanswered: counters.attempts.unanswered,
    }
}

/// All backends of a service, in the snapshot's order.
pub(super) fn backends(state: &ServiceState, counters: &Counters) -> Vec<proto::Backend> {
    let service = &state.spec.name;
    // Each family's VIPs have backends of their own.
    let totals = [false, true].map(|v6| {
        let backends = state.backends.iter();
        let family = backends.filter(|backend| backend.address().is_ipv6() == v6);
        family.map(|backend| u64::from(backend.weight)).sum::<u64>()
    });
    state
        .backends
        .iter()
        .map(|backend| {
            let key = (service.clone(), backend.id().clone(), backend.address());
            let mut message = self::backend(service, backend);
            let total = totals[usize::from(backend.address().is_ipv6())];
            message.share_percent = percent(backend.weight.into(), total);
            message.counters = Some(traffic(counters.backends.get(&key)));
            message
        })
        .collect()
}

/// A backend by itself: without what depends on the others, and without counters.
fn backend(service: &str, state: &BackendState) -> proto::Backend {
    let (catalog_health, catalog_detail) = match &state.instance.health {
        CatalogHealth::Passing => ("passing", ""),
        CatalogHealth::Warning(detail) => ("warning", detail.as_str()),
        CatalogHealth::Critical(detail) => ("critical", detail.as_str()),
        CatalogHealth::Maintenance(detail) => ("maintenance", detail.as_str()),
    };
    let (observed, since, observed_reason) = match &state.observed {
        Observed::Unknown => ("unknown", None, ""),
        Observed::Healthy { since } => ("healthy", Some(*since), ""),
        Observed::Unhealthy { since, reason } => ("unhealthy", Some(*since), reason.as_str()),
    };
    let disabled = disabled(state);
    proto::Backend {
        service: service.into(),
        id: state.id().to_string(),
        address: state.address().to_string(),
        subset: state.subset.clone(),
        registered_weight: state.instance.weight,
        weight: state.weight,
        reason: state.reason.to_string(),
        health: health(state).into(),
        catalog_health: catalog_health.into(),
        catalog_detail: catalog_detail.into(),
        observed: observed.into(),
        observed_reason: observed_reason.into(),
        observed_since_unix_ms: since.map(unix_ms),
        draining_since_unix_ms: state.drain.as_ref().map(|drain| unix_ms(drain.since)),
        enabled: disabled.is_none(),
        disabled_reason: disabled.unwrap_or_default(),
        ejected_until_unix_ms: state
            .ejection
            .as_ref()
            .map(|ejection| unix_ms(ejection.until)),
        ejected_reason: state
            .ejection
            .as_ref()
            .map(|ejection| ejection.reason.clone())
            .unwrap_or_default(),
        slow_start_percent: state.ramp.map(|part| part * 100 / ramp::STEPS),
        drain_deadline_unix_ms: state.drain.as_ref().and_then(|d| d.deadline.map(unix_ms)),
        drained_by: state.drain.as_ref().and_then(|drain| drain.by.clone()),
        drain_cut_flows: state.drain.as_ref().and_then(|drain| drain.cut),
        held_until_unix_ms: state.held.as_ref().map(|held| unix_ms(held.until)),
        ..Default::default()
    }
}

fn healthy(state: &ServiceState) -> u32 {
    let usable = |backend: &&BackendState| matches!(health(backend), "healthy" | "warning");
    count(state.backends.iter().filter(usable).count())
}

fn active<'a>(backends: impl Iterator<Item = &'a BackendState>) -> u32 {
    count(backends.filter(|backend| backend.weight > 0).count())
}

fn total_weight(state: &ServiceState) -> u64 {
    state.backends.iter().map(|b| u64::from(b.weight)).sum()
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

pub(super) fn block_rule(rule: &BlockRule) -> proto::BlockRule {
    proto::BlockRule {
        prefix: rule.prefix.to_string(),
        reason: rule.reason.clone(),
        added_unix_ms: unix_ms(rule.added),
        expires_unix_ms: rule.expires.map(unix_ms),
        origin: rule.origin.name().into(),
    }
}

pub(super) fn allowed(exception: &Exception) -> proto::AllowedPrefix {
    proto::AllowedPrefix {
        prefix: exception.prefix.to_string(),
        configured: exception.configured,
        added_unix_ms: exception.added.map(unix_ms),
    }
}

pub(super) fn block_entry(entry: &BlockEntry) -> proto::BlockEntry {
    proto::BlockEntry {
        rule: Some(block_rule(&entry.rule)),
        dropped_packets: entry.dropped.packets,
        dropped_bytes: entry.dropped.bytes,
    }
}

#[cfg(test)]
mod tests;
