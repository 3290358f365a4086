//! `backend list` and `backend history`, and the table of backends that `service show` prints as well.

use clap::Subcommand;

use super::{
    client::{self, Agent},
    failure::Failure,
    history,
    output::{Printer, bytes, percent},
    table::{Column, Table},
};
use crate::api::proto::{Backend, ListBackendsRequest};

/// What can be done with backends.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List backends with their weights and the reason for each
    ///
    /// PACKETS and BYTES count both directions, FLOWS the ones that exist now. SHARE% is the
    /// part of its service's new flows that a backend takes.
    List {
        /// Name of the service; all if left out
        service: Option<String>,
    },
    /// Show what has happened to backends: changes of health, of the catalog, and by people
    ///
    /// Kept since the agent started: the latest 64 changes of each backend, 8192 in all.
    History(history::Args),
}

impl Command {
    pub(super) async fn execute(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let service = match self {
            Command::List { service } => service,
            Command::History(args) => return history::execute(args, agent, printer).await,
        };
        let mut client = agent.connect().await?;
        let request = ListBackendsRequest { service };
        let reply = client::reply(client.list_backends(request)).await?;
        printer.print(&reply, |reply| table_with_services(&reply.backends))?;
        Ok(())
    }
}

const COLUMNS: [Column; 11] = [
    Column::Words("ADDRESS"),
    Column::Words("ID"),
    Column::Words("SUBSET"),
    Column::Number("WEIGHT"),
    Column::Number("SHARE%"),
    Column::Words("HEALTH"),
    Column::Words("ENABLED"),
    Column::Words("WHY"),
    Column::Number("PACKETS"),
    Column::Number("BYTES"),
    Column::Number("FLOWS"),
];

/// The backends of one service.
pub(super) fn table(backends: &[Backend]) -> String {
    if backends.is_empty() {
        return "there are no backends\n".into();
    }
    let mut table = Table::new(&COLUMNS);
    for backend in backends {
        table.row(cells(backend));
    }
    table.render()
}

fn table_with_services(backends: &[Backend]) -> String {
    if backends.is_empty() {
        return "there are no backends\n".into();
    }
    let mut columns = vec![Column::Words("SERVICE")];
    columns.extend(COLUMNS);
    let mut table = Table::new(&columns);
    for backend in backends {
        let mut row = vec![backend.service.clone()];
        row.extend(cells(backend));
        table.cells(&row);
    }
    table.render()
}

fn cells(backend: &Backend) -> [String; COLUMNS.len()] {
    let counters = backend.counters.unwrap_or_default();
    [
        backend.address.clone(),
        backend.id.clone(),
        backend.subset.clone().unwrap_or_default(),
        backend.weight.to_string(),
        percent(backend.share_percent),
        health(backend),
        enabled(backend),
        backend.reason.clone(),
        (counters.packets_in + counters.packets_out).to_string(),
        bytes(counters.bytes_in + counters.bytes_out),
        counters.flows_live.to_string(),
    ]
}

/// What is observed, by whomever. What people want is another fact, and has its own column.
fn health(backend: &Backend) -> String {
    let mut text = backend.health.clone();
    if backend.slow_start_percent.is_some() {
        text.push_str(", starting");
    }
    if backend.held_until_unix_ms.is_some() {
        text.push_str(", held");
    }
    text
}

fn enabled(backend: &Backend) -> String {
    match backend.enabled {
        true => "yes".into(),
        false => format!("no, {}", backend.disabled_reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::Counters;

    fn backends() -> [Backend; 2] {
        [
            Backend {
                service: "echo".into(),
                id: "node1/echo-1".into(),
                address: "10.1.0.2:8080".into(),
                subset: Some("v1".into()),
                weight: 90,
                share_percent: 100.0,
                reason: "weight 90".into(),
                health: "healthy".into(),
                counters: Some(Counters {
                    packets_in: 3,
                    bytes_in: 2000,
                    packets_out: 2,
                    bytes_out: 48,
                    flows_created: 7,
                    flows_live: 1,
                    ..Default::default()
                }),
                enabled: true,
                slow_start_percent: Some(10),
                ..Default::default()
            },
            Backend {
                service: "echo".into(),
                id: "node2/echo-2".into(),
                address: "10.1.0.3:8080".into(),
                reason: "drained by an operator".into(),
                health: "unhealthy".into(),
                disabled_reason: "draining".into(),
                draining_since_unix_ms: Some(1),
                held_until_unix_ms: Some(2),
                ..Default::default()
            },
        ]
    }

    #[test]
    fn backends_of_one_service() {
        assert_eq!(
            table(&backends()),
            "\
ADDRESS        ID            SUBSET  WEIGHT  SHARE%  HEALTH             ENABLED       WHY                     PACKETS     BYTES  FLOWS
10.1.0.2:8080  node1/echo-1  v1          90  100.0%  healthy, starting  yes           weight 90                     5  2.00 KiB      1
10.1.0.3:8080  node2/echo-2  -            0    0.0%  unhealthy, held    no, draining  drained by an operator        0       0 B      0
"
        );
        assert_eq!(table(&[]), "there are no backends\n");
    }

    #[test]
    fn backends_of_all_services() {
        let text = table_with_services(&backends());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("SERVICE  ADDRESS"), "{text}");
        assert!(lines[1].starts_with("echo     10.1.0.2:8080"), "{text}");
        assert_eq!(lines.len(), 3);
    }
}
