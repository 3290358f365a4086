//! `status`: what the agent is doing, and what is wrong.

mod containers;

use std::time::Duration;

use super::{
    client::{self, Agent},
    drained,
    failure::Failure,
    output::{Printer, between, bytes, counted, one_line, percent, span},
    table::{Column, Table, facts},
};
use crate::api::proto::{FlowTable, Interface, StatusRequest, StatusResponse, VerdictCount, Watch};

pub(super) async fn execute(agent: Agent<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let mut client = agent.connect().await?;
    let reply = client::reply(client.status(StatusRequest {})).await?;
    printer.print(&reply, text)?;
    if reply.problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::Unhealthy)
    }
}

fn text(status: &StatusResponse) -> String {
    let mut parts = vec![overview(status)];
    parts.extend(drained::text(status));
    if !status.watches.is_empty() {
        parts.push(watches(&status.watches, status.now_unix_ms));
    }
    parts.push(flow_tables(&status.flow_tables));
    if status.verdicts.iter().any(|verdict| verdict.packets > 0) {
        parts.push(verdicts(&status.verdicts));
    }
    parts.extend(containers::warnings(status));
    parts.push(if status.problems.is_empty() {
        "healthy: nothing is known to be wrong\n".into()
    } else {
        status
            .problems
            .iter()
            .map(|problem| format!("✗ {}\n", one_line(problem)))
            .collect()
    });
    parts.join("\n")
}

fn overview(status: &StatusResponse) -> String {
    let catalog = status.catalog.unwrap_or_default();
    let maglev = status.maglev_rebuilds.unwrap_or_default();
    let interfaces: Vec<String> = status.interfaces.iter().map(interface).collect();
    let rebuilds = match maglev.count {
        0 => "none built yet".into(),
        n => format!(
            "{}, the last took {}",
            counted(n, "rebuild"),
            span(Duration::from_micros(maglev.last_us))
        ),
    };
    facts(&[
        (
            "agent",
            format!(
                "{}, up {}, state version {}",
                status.agent_version,
                span(between(status.started_unix_ms, status.now_unix_ms)),
                status.snapshot_version
            ),
        ),
        (
            "interfaces",
            if interfaces.is_empty() {
                "none".into()
            } else {
                interfaces.join(", ")
            },
        ),
        ("local clients", local_clients(status)),
        (
            "consul",
            status
                .consul_address
                .clone()
                .unwrap_or_else(|| "not configured".into()),
        ),
        ("containers", containers::line(status)),
        (
            "services",
            format!(
                "{} of {} with a healthy backend",
                catalog.services_healthy, catalog.services
            ),
        ),
        (
            "backends",
            format!(
                "{} of {} healthy",
                catalog.backends_healthy, catalog.backends
            ),
        ),
        (
            "evictions",
            match &status.evictions {
                Some(gone) if gone.half_open + gone.closed > 0 => format!(
                    "{} unanswered and {} closed flows gave way to newer ones",
                    gone.half_open, gone.closed
                ),
                _ => "none".into(),
            },
        ),
        ("block list", counted(status.block_rules, "rule")),
        ("maglev", rebuilds),
        ("drift", drift(status)),
        (
            "last change",
            format!(
                "in the kernel after {}",
                span(Duration::from_micros(status.last_apply_us))
            ),
        ),
    ])
}

/// Where the kernel differed from what was written there.
fn drift(status: &StatusResponse) -> String {
    let Some(drift) = &status.drift else {
        return "not compared yet".into();
    };
    let age = |at: i64| span(whole_seconds(between(at, status.now_unix_ms)));
    let compared = match drift.compared_unix_ms {
        Some(at) => format!("compared {} ago", age(at)),
        None => "not compared yet".into(),
    };
    let repairs: Vec<String> = drift
        .repairs
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, count)| format!("{kind}={count}"))
        .collect();
    match (&drift.last, drift.last_unix_ms) {
        (Some(last), Some(at)) => format!(
            "mended {}; {} ago: {}; {compared}",
            repairs.join(" "),
            age(at),
            one_line(last)
        ),
        _ => format!("none; {compared}"),
    }
}

fn interface(interface: &Interface) -> String {
    let adopted = if interface.adopted { ", adopted" } else { "" };
    format!("{} ({}{adopted})", interface.name, interface.mode)
}

fn local_clients(status: &StatusResponse) -> String {
    let Some(local) = &status.local_clients else {
        return "not served".into();
    };
    let adopted = if local.adopted { " (adopted)" } else { "" };
    format!(
        "in {}{adopted}: {} sent to a backend, {} refused",
        one_line(&local.cgroup),
        local.translated,
        local.refused
    )
}

fn watches(watches: &[Watch], now_unix_ms: i64) -> String {
    let mut table = Table::new(&[
        Column::Words("WATCH"),
        Column::Number("ANSWERED"),
        Column::Number("CHANGED"),
        Column::Number("ERRORS"),
        Column::Words("LAST ERROR"),
    ]);
    let ago = |at: Option<i64>| match at {
        Some(at) => format!("{} ago", span(whole_seconds(between(at, now_unix_ms)))),
        None => "never".into(),
    };
    for watch in watches {
        table.row([
            watch.name.clone(),
            ago(watch.last_success_unix_ms),
            ago(watch.last_change_unix_ms),
            watch.errors.to_string(),
            watch.error.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

/// Ages are of seconds at best; milliseconds would only flicker.
fn whole_seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

fn flow_tables(tables: &[FlowTable]) -> String {
    let mut table = Table::new(&[
        Column::Words("FLOW TABLE"),
        Column::Number("SLOTS"),
        Column::Number("USED"),
        Column::Number("USED%"),
        Column::Words("STATES"),
    ]);
    for flows in tables {
        let used = match flows.slots {
            0 => 0.0,
            slots => flows.used as f64 * 100.0 / slots as f64,
        };
        let states: Vec<String> = flows
            .used_by_state
            .iter()
            .map(|(state, used)| format!("{state}={used}"))
            .collect();
        table.row([
            flows.family.clone(),
            flows.slots.to_string(),
            flows.used.to_string(),
            percent(used),
            states.join(" "),
        ]);
    }
    table.render()
}

fn verdicts(verdicts: &[VerdictCount]) -> String {
    let mut table = Table::new(&[
        Column::Words("ACTION"),
        Column::Words("VERDICT"),
        Column::Number("PACKETS"),
        Column::Number("BYTES"),
        Column::Words("MEANING"),
    ]);
    for verdict in verdicts.iter().filter(|verdict| verdict.packets > 0) {
        table.row([
            verdict.action.clone(),
            verdict.name.clone(),
            verdict.packets.to_string(),
            bytes(verdict.bytes),
            verdict.help.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests;
