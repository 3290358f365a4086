//! `service list` and `service show`.

use std::time::Duration;

use clap::Subcommand;

use super::{
    backend,
    client::{self, Agent},
    explain,
    failure::Failure,
    output::{Printer, bytes, counted, span},
    shift,
    split::shares,
    table::{Column, Table, facts},
};
use crate::api::proto::{
    GetServiceRequest, GetServiceResponse, ListServicesRequest, ListServicesResponse, Probe,
    Requests, Service, TagRoute,
};

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List services
    ///
    /// BACKENDS are healthy ones of all. PACKETS and BYTES count both directions, FLOWS the ones
    /// that exist now.
    List,
    /// Show a service, and its backends with their weights and the reason for each
    Show {
        /// Name of the service
        name: String,
    },
}

impl Command {
    pub(super) async fn execute(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let mut client = agent.connect().await?;
        match self {
            Command::List => {
                let reply = client::reply(client.list_services(ListServicesRequest {})).await?;
                printer.print(&reply, list)?;
            }
            Command::Show { name } => {
                let reply = client::reply(client.get_service(GetServiceRequest { name })).await?;
                printer.print(&reply, show)?;
            }
        }
        Ok(())
    }
}

fn list(reply: &ListServicesResponse) -> String {
    if reply.services.is_empty() {
        return "there are no services".into();
    }
    let mut table = Table::new(&[
        Column::Words("NAME"),
        Column::Words("PROTOCOL"),
        Column::Words("VIP"),
        Column::Number("BACKENDS"),
        Column::Words("SPLIT"),
        Column::Number("FLOWS"),
        Column::Number("PACKETS"),
        Column::Number("BYTES"),
    ]);
    for service in &reply.services {
        let counters = service.counters.unwrap_or_default();
        let split = service.split.as_ref();
        table.row([
            service.name.clone(),
            service.protocol.clone(),
            match service.vips.is_empty() {
                true => "-".into(),
                false => service.vips.join(","),
            },
            format!("{}/{}", service.backends_healthy, service.backends),
            split.map(|split| shares(&split.shares)).unwrap_or_default(),
            counters.flows_live.to_string(),
            (counters.packets_in + counters.packets_out).to_string(),
            bytes(counters.bytes_in + counters.bytes_out),
        ]);
    }
    table.render()
}

fn show(reply: &GetServiceResponse) -> String {
    let service = reply.service.clone().unwrap_or_default();
    let counters = service.counters.unwrap_or_default();
    let mut rows = vec![
        ("name", service.name.clone()),
        (
            "protocol",
            format!("{}, forwarding {}", service.protocol, service.forwarding),
        ),
        ("vip", service.vips.join(", ")),
        ("allow", allow(&service)),
        (
            "affinity",
            match service.affinity.as_str() {
                "client" => "client; its address chooses the backend".into(),
                other => other.to_owned(),
            },
        ),
        ("configured", service.origin.clone()),
        ("catalog", catalog(&service)),
        ("probe", service.probe.as_ref().map_or_else(no_probe, probe)),
        ("ejection", ejection(&service)),
        ("slow start", slow_start(&service)),
        (
            "split",
            match &service.split {
                Some(split) => format!(
                    "{} (set by {}: {})",
                    shares(&split.shares),
                    split.source,
                    split.origin
                ),
                None => "none; backends share by their weights".into(),
            },
        ),
        (
            "backends",
            format!(
                "{} of {} healthy, {} taking new flows",
                service.backends_healthy, service.backends, service.backends_active
            ),
        ),
        (
            "flows",
            format!(
                "{} now, {} so far",
                counters.flows_live, counters.flows_created
            ),
        ),
        (
            "from clients",
            format!(
                "{}, {}",
                counted(counters.packets_in, "packet"),
                bytes(counters.bytes_in)
            ),
        ),
        (
            "to clients",
            format!(
                "{}, {}",
                counted(counters.packets_out, "packet"),
                bytes(counters.bytes_out)
            ),
        ),
    ];
    let split = rows.iter().position(|(name, _)| *name == "split");
    let mut at = split.map_or(rows.len(), |at| at + 1);
    if let Some(others) = shift::others(&service.split_layers) {
        rows.insert(at, ("not in force", others));
        at += 1;
    }
    if let Some(shift) = &service.shift {
        rows.insert(at, ("shift", shift::sentence(shift, reply.now_unix_ms)));
    }
    if !service.routes.is_empty() {
        let routes: Vec<String> = service.routes.iter().map(route).collect();
        rows.insert(3, ("routes", routes.join(", ")));
    }
    let mut text = facts(&rows);
    if service.panic {
        text.push_str("✗ too few backends are healthy, so all are used\n");
    }
    for note in &service.notes {
        text.push_str(&format!("! {note}\n"));
    }
    text.push('\n');
    text.push_str(&backend::table(&reply.backends));
    if let Some(requests) = &service.requests {
        text.push('\n');
        text.push_str(&self::requests(requests));
    }
    if let Some(explanation) = &reply.explanation {
        text.push('\n');
        let sections = explain::sections;
        text.push_str(&sections(
            &service,
            &reply.backends,
            explanation,
            reply.now_unix_ms,
        ));
    }
    text
}

/// How the proxy treats them, and by which routes.
fn requests(requests: &Requests) -> String {
    let mut text = String::new();
    if !requests.hosts.is_empty() {
        text.push_str(&format!("also known as {}\n\n", requests.hosts.join(", ")));
    }
    if !requests.routes.is_empty() {
        let mut table = Table::new(&[Column::Words("ROUTE"), Column::Words("SOURCE")]);
        for route in &requests.routes {
            table.row([route.route.clone(), route.source.clone()]);
        }
        text.push_str(&table.render());
        text.push('\n');
    }
    text.push_str(&explain::treatment(&requests.treatment));
    text
}

/// As in `web.example/admin*`.
fn route(route: &TagRoute) -> String {
    let host = route.host.as_deref().unwrap_or("*");
    match (&route.path, &route.path_prefix) {
        (Some(path), _) => format!("{host}{path}"),
        (None, Some(prefix)) => format!("{host}{prefix}*"),
        (None, None) => format!("{host}/*"),
    }
}

fn catalog(service: &Service) -> String {
    match &service.consul_service {
        Some(name) => format!("Consul, service {name}"),
        None => "the configuration file".into(),
    }
}

fn allow(service: &Service) -> String {
    if service.restricted {
        service.allow.join(", ")
    } else {
        "everybody".into()
    }
}

fn no_probe() -> String {
    "none; the catalog's word counts".into()
}

/// What it takes for traffic to speak against a backend, and what for too few to be healthy.
fn ejection(service: &Service) -> String {
    let health = service.health.unwrap_or_default();
    let panic = match health.panic_percent {
        0 => "all are used where none is healthy".to_owned(),
        percent => format!("all are used below {percent}% healthy"),
    };
    match &health.passive {
        None => format!("none; {panic}"),
        Some(passive) => format!(
            "after {} failures in a row, for {} at first, {} at most; {panic}",
            passive.failures,
            span(Duration::from_millis(passive.eject_ms)),
            span(Duration::from_millis(passive.eject_max_ms)),
        ),
    }
}

fn slow_start(service: &Service) -> String {
    match service.health.unwrap_or_default().slow_start_ms {
        0 => "none".into(),
        length => span(Duration::from_millis(length)),
    }
}

fn probe(probe: &Probe) -> String {
    let mut text = probe.kind.clone();
    if let Some(path) = &probe.path {
        text.push_str(&format!(" GET {path}"));
    }
    if let Some(host) = &probe.host {
        text.push_str(&format!(" for host {host}"));
    }
    if let Some(service) = probe.grpc_service.as_ref().filter(|name| !name.is_empty()) {
        text.push_str(&format!(" for service {service}"));
    }
    if !probe.statuses.is_empty() {
        text.push_str(&format!(" expecting {}", probe.statuses.join(",")));
    }
    if let Some(body) = &probe.body {
        text.push_str(&format!(" and {body:?} in the body"));
    }
    match &probe.tls {
        None => {}
        Some(tls) if tls.insecure => text.push_str(" over TLS with any certificate"),
        Some(_) => text.push_str(" over TLS"),
    }
    if let Some(port) = probe.port {
        text.push_str(&format!(" on port {port}"));
    }
    format!(
        "{text}, every {}, timeout {}, rise {}, fall {}",
        span(Duration::from_millis(probe.interval_ms)),
        span(Duration::from_millis(probe.timeout_ms)),
        probe.rise,
        probe.fall
    )
}

#[cfg(test)]
mod tests;
