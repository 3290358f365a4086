//! Metrics of the node as a whole: packets by verdict, flow tables, tables built, Consul, probes,
//! the agent itself.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use lb_common::{
    entry::{Counter, EvictionStats},
    flow,
    verdict::Verdict,
};

use super::family::Family;
use crate::{
    controller::{FlowTableUse, LocalClientsStatus, Status},
    domain::drift::{DriftRecord, Place},
    probe::ProbeStats,
};

/// All families of the node.
pub(super) fn families(status: &Status, probes: &ProbeStats, now: SystemTime) -> Vec<Family> {
    let mut families = agent(status);
    families.extend(local_clients(status.local_clients.as_ref()));
    families.extend(verdicts(&status.verdicts));
    families.extend(flow_tables(&[
        ("ipv4", &status.flows4),
        ("ipv6", &status.flows6),
    ]));
    families.push(evictions(status.evictions));
    families.push(drift(&status.drift));
    families.extend(maglev(status.maglev_rebuilds));
    families.extend(consul(status, now));
    families.extend(probe_results(probes));
    families
}

fn agent(status: &Status) -> Vec<Family> {
    let mut build = Family::gauge("lb_build_info", "Version of the agent; always 1.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut interfaces = Family::gauge(
        "lb_interface_info",
        "Interfaces that the programs run on, and in which XDP mode; always 1.",
    );
    for interface in &status.interfaces {
        let labels = [("interface", &*interface.name), ("mode", interface.mode)];
        interfaces.add(&labels, 1.0);
    }
    vec![
        build,
        Family::gauge(
            "lb_start_time_seconds",
            "When the agent started, in seconds since 1970.",
        )
        .with(seconds_between(SystemTime::UNIX_EPOCH, status.started)),
        Family::gauge(
            "lb_problems",
            "Problems that a person should know of; lb-agent status and /healthz name them.",
        )
        .with(status.problems.len() as f64),
        Family::gauge(
            "lb_node_drained",
            "1 while the node is drained: /readyz fails; else 0.",
        )
        .with(f64::from(u8::from(status.node_drain.is_some()))),
        Family::gauge(
            "lb_drained_backends",
            "Backends that people have taken out; lb-agent status lists them.",
        )
        .with(status.drains.len() as f64),
        Family::gauge("lb_snapshot_version", "Version of the desired state.")
            .with(status.version as f64),
        Family::gauge(
            "lb_apply_seconds",
            "Time from the last change's arrival until the kernel followed it.",
        )
        .with(status.last_apply.as_secs_f64()),
        interfaces,
    ]
}

/// None of them where local clients are not served.
fn local_clients(local: Option<&LocalClientsStatus>) -> Vec<Family> {
    let Some(local) = local else {
        return Vec::new();
    };
    let mut cgroup = Family::gauge(
        "lb_local_clients_info",
        "The cgroup whose processes are served as local clients; always 1.",
    );
    cgroup.add(&[("cgroup", &*local.cgroup.to_string_lossy())], 1.0);
    vec![
        cgroup,
        Family::counter(
            "lb_local_translated_total",
            "Connections and conversations of local clients that were sent to a backend.",
        )
        .with(local.stats.translated as f64),
        Family::counter(
            "lb_local_refused_total",
            "Calls of local clients refused since the service has no backend that takes them.",
        )
        .with(local.stats.refused as f64),
    ]
}

fn verdicts(counted: &[(Verdict, Counter)]) -> [Family; 2] {
    let mut packets = Family::counter(
        "lb_packets_total",
        "Packets by what became of them (pass: left to the node's own stack) and why.",
    );
    let mut bytes = Family::counter(
        "lb_packet_bytes_total",
        "Bytes of the packets by what became of them and why.",
    );
    let counted: HashMap<Verdict, Counter> = counted.iter().copied().collect();
    for verdict in Verdict::ALL {
        let labels = [
            ("action", verdict.action().name()),
            ("reason", verdict.name()),
        ];
        let counter = counted.get(verdict).copied().unwrap_or_default();
        packets.add(&labels, counter.packets as f64);
        bytes.add(&labels, counter.bytes as f64);
    }
    [packets, bytes]
}

fn flow_tables(tables: &[(&str, &FlowTableUse)]) -> [Family; 2] {
    let mut slots = Family::gauge("lb_flow_slots", "Slots in the flow table.");
    let mut used = Family::gauge(
        "lb_flow_slots_used",
        "Slots of the flow table in use, by the state of the flow; a flow takes two.",
    );
    for (family, table) in tables {
        slots.add(&[("family", family)], table.slots as f64);
        for (bits, count) in (0u8..).zip(table.used) {
            match flow::State::from_bits(bits) {
                None | Some(flow::State::Free) => {}
                Some(state) => {
                    used.add(&[("family", family), ("state", state.name())], count as f64)
                }
            }
        }
    }
    [slots, used]
}

fn evictions(evictions: EvictionStats) -> Family {
    let mut family = Family::counter(
        "lb_flow_evictions_total",
        "Flows that gave way to newer ones because their table had no other place, by the state \
         they were in; established flows never do.",
    );
    family.add(&[("state", "closed")], evictions.closed as f64);
    family.add(&[("state", "half_open")], evictions.half_open as f64);
    family
}

fn drift(record: &DriftRecord) -> Family {
    let mut family = Family::counter(
        "lb_drift_repairs_total",
        "Places where the kernel differed from what was written there, and was mended.",
    );
    for kind in Place::KINDS {
        let count = record.repairs.get(kind).copied().unwrap_or(0);
        family.add(&[("what", kind)], count as f64);
    }
    family
}

fn maglev((last, all, rebuilds): (Duration, Duration, u64)) -> [Family; 3] {
    [
        Family::gauge(
            "lb_maglev_rebuild_seconds",
            "Time that the last rebuild of a Maglev table took.",
        )
        .with(last.as_secs_f64()),
        Family::counter(
            "lb_maglev_rebuild_seconds_total",
            "Time that all rebuilds of Maglev tables took.",
        )
        .with(all.as_secs_f64()),
        Family::counter("lb_maglev_rebuilds_total", "Rebuilds of Maglev tables.")
            .with(rebuilds as f64),
    ]
}

fn consul(status: &Status, now: SystemTime) -> [Family; 3] {
    let mut age = Family::gauge(
        "lb_consul_sync_age_seconds",
        "Time since the watch last got a trusted answer (since the agent started, if never).",
    );
    let mut up = Family::gauge(
        "lb_consul_up",
        "Whether the watch's last request got a trusted answer (1) or not (0).",
    );
    let mut errors = Family::counter("lb_consul_errors_total", "Failed requests of the watch.");
    for (name, watch) in &status.watches {
        let labels = [("watch", &**name)];
        let since = watch.last_success.unwrap_or(status.started);
        let is_up = watch.last_success.is_some() && watch.error.is_none();
        age.add(&labels, seconds_between(since, now));
        up.add(&labels, f64::from(is_up));
        errors.add(&labels, watch.errors as f64);
    }
    [age, up, errors]
}

fn probe_results(probes: &ProbeStats) -> [Family; 2] {
    let mut results = Family::counter("lb_probes_total", "Health probes by their result.");
    for (result, count) in probes.results() {
        results.add(&[("result", result)], count as f64);
    }
    let late = Family::counter(
        "lb_probes_late_total",
        "Health probes that began over a second late, since too many others were under way.",
    )
    .with(probes.late() as f64);
    [results, late]
}

/// Zero where the clock was set back in between.
pub(super) fn seconds_between(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}
