//! Pictures one after the other on standard output, for pipes and scripts.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{
    check,
    look::{self, Wanted},
    order::Order,
    picture::{Node, Picture},
    rate::shown,
    sheet::{self, Pane, Sheet},
};
use crate::cli::{
    client::Agent,
    failure::Failure,
    output::{Printer, one_line, percent, span},
    table::{Column, Table, facts},
};

/// What is to be printed.
#[derive(Debug)]
pub(super) struct Batch {
    /// How many pictures; 0: until interrupted.
    pub(super) looks: u64,
    pub(super) interval: Duration,
    /// Whose backends are shown.
    pub(super) service: Option<String>,
    /// Of the services.
    pub(super) order: Order,
}

impl Batch {
    /// A picture takes two looks, for rates are what it is about: the first one comes after an
    /// interval.
    pub(super) async fn print(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let wanted = Wanted {
            backends_of: self.service.clone(),
        };
        let mut client = agent.connect().await?;
        let mut before = look::take(&mut client, &wanted).await?;
        let mut then = Instant::now();
        check(self.service.as_deref(), &before)?;
        let mut printed = 0;
        loop {
            time::sleep_until(then + self.interval).await;
            let look = look::take(&mut client, &wanted).await?;
            let now = Instant::now();
            let picture = Picture::new(Some(&before), &look, now - then);
            let apart = if printed == 0 { "" } else { "\n" };
            printer.line(&picture, |picture| format!("{apart}{}", self.text(picture)))?;
            printed += 1;
            if printed == self.looks {
                return Ok(());
            }
            (before, then) = (look, now);
        }
    }

    fn text(&self, picture: &Picture) -> String {
        let mut parts = vec![overview(&picture.node)];
        for pane in Pane::ALL {
            let order = match pane {
                Pane::Services => self.order,
                other => Order {
                    key: other.keys().first().copied().unwrap_or_default(),
                    reversed: false,
                },
            };
            let sheet = sheet::sheet(picture, pane, order, "");
            if !sheet.rows.is_empty() {
                parts.push(table(&sheet));
            }
        }
        parts.join("\n").trim_end().to_owned()
    }
}

fn overview(node: &Node) -> String {
    let consul = match &node.consul {
        None => "not configured".into(),
        Some(consul) => {
            let heard = match consul.oldest_answer_ms {
                Some(ms) => format!("heard {} ago", span(Duration::from_secs(ms / 1000))),
                None => "not heard yet".into(),
            };
            let watches = match consul.watches {
                1 => "1 watch".to_owned(),
                n => format!("{n} watches"),
            };
            format!(
                "{}, {watches}, {} failing, {heard}",
                consul.address, consul.failing
            )
        }
    };
    let uptime = span(Duration::from_secs(node.uptime_ms / 1000));
    let drained = if node.drained { ", drained" } else { "" };
    let mut text = facts(&[
        (
            "agent",
            format!(
                "{}, up {uptime}, state {}{drained}",
                node.version, node.state_version
            ),
        ),
        ("consul", consul),
        (
            "flows",
            format!(
                "{}, {} of the table",
                node.flows,
                percent(node.flow_table_percent)
            ),
        ),
        ("packets/s", shown(node.packets_per_second)),
        ("new flows/s", shown(node.new_flows_per_second)),
        ("drops/s", shown(node.drops_per_second)),
    ]);
    for problem in &node.problems {
        text.push_str(&format!("✗ {}\n", one_line(problem)));
    }
    text
}

fn table(sheet: &Sheet) -> String {
    let columns: Vec<Column> = sheet
        .columns
        .iter()
        .map(|column| match column.number {
            true => Column::Number(column.name),
            false => Column::Words(column.name),
        })
        .collect();
    let mut table = Table::new(&columns);
    for row in &sheet.rows {
        let cells: Vec<String> = row.cells.iter().map(|cell| cell.text.clone()).collect();
        table.cells(&cells);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::{super::look::Look, *};
    use crate::api::proto::{Counters, Service, VerdictCount};

    fn look(packets: u64, dropped: u64) -> Look {
        let mut look = Look::default();
        look.status.agent_version = "1.2.3".into();
        look.status.problems = vec!["something\nis wrong".into()];
        look.status.verdicts = vec![VerdictCount {
            action: "drop".into(),
            name: "blocked".into(),
            help: "its source is blocked".into(),
            packets: dropped,
            ..Default::default()
        }];
        look.services = vec![Service {
            name: "echo".into(),
            protocol: "tcp".into(),
            vips: vec!["198.51.100.10:80".into()],
            backends: 2,
            backends_healthy: 1,
            counters: Some(Counters {
                packets_in: packets,
                bytes_in: packets * 125,
                flows_live: 3,
                ..Default::default()
            }),
            ..Default::default()
        }];
        look
    }

    #[test]
    fn a_picture_reads_as_tables() {
        let picture = Picture::new(Some(&look(100, 5)), &look(1100, 25), Duration::from_secs(2));
        let batch = Batch {
            looks: 1,
            interval: Duration::from_secs(2),
            service: None,
            order: Order::default(),
        };
        assert_eq!(
            batch.text(&picture),
            "\
agent        1.2.3, up 0s, state 0
consul       not configured
flows        0, 0.0% of the table
packets/s    10.0
new flows/s  0
drops/s      10.0
✗ something is wrong

SERVICE  VIP               PROTO  PKT/S    BIT/S  NEW/S  FLOWS  HEALTHY  SPLIT
echo     198.51.100.10:80  tcp      500  500kbit      0      3      1/2  -

REASON   PKT/S  PACKETS  MEANING
blocked   10.0       25  its source is blocked"
        );
    }
}
