//! `flow`: the flows there are, listed or counted.

use std::{collections::BTreeMap, time::Duration};

use clap::{Subcommand, ValueEnum, builder::PossibleValuesParser};
use serde::Serialize;

use super::{
    client::{self, Agent},
    failure::Failure,
    output::{Printer, counted, span},
    table::{Column, Table},
};
use crate::{
    api::proto::{CountFlowsRequest, Flow, FlowCount, FlowFilter, ListFlowsRequest},
    domain::{
        block::parse_prefix,
        flow::{FLOW_STATES, FlowOrder},
    },
};

/// What can be asked of flows.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List flows: at most 100 unless told otherwise, and how many more there are
    ///
    /// SOURCE is the address and port of this node that the backend sees as the client. IDLE is
    /// exact to about a second.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many flows, up to 1000000; 0: all
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
        /// Order; `active` begins with the shortest idle time, `idle` with the longest
        /// [default: client, and none with `--limit 0`]
        #[arg(long, value_name = "ORDER", value_parser = PossibleValuesParser::new(
            FlowOrder::ALL.map(FlowOrder::name)
        ))]
        sort: Option<String>,
    },
    /// Count flows
    Count {
        #[command(flatten)]
        filter: Filter,
        /// What to count them by
        #[arg(long, value_name = "WHAT", value_delimiter = ',', value_enum,
            default_values_t = [Group::Service, Group::State])]
        by: Vec<Group>,
    },
}

/// Which flows.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// To this backend: address, with or without its port
    #[arg(long, value_name = "ADDR")]
    backend: Option<String>,
    /// From this address or prefix
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// In this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(
        FLOW_STATES.map(|state| state.name())
    ))]
    state: Option<String>,
    /// Of this protocol
    #[arg(long, value_name = "PROTOCOL", value_parser = ["tcp", "udp"])]
    proto: Option<String>,
}

/// What flows are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    Service,
    Backend,
    Protocol,
    State,
}

impl Filter {
    fn request(self) -> Result<FlowFilter, Failure> {
        let client = self.client.as_deref().map(parse_prefix).transpose();
        Ok(FlowFilter {
            service: self.service,
            backend: self.backend,
            client: client.map_err(Failure::invalid)?.map(|net| net.to_string()),
            state: self.state,
            protocol: self.proto,
        })
    }
}

/// A whole list, as JSON shows it.
#[derive(Serialize)]
struct List {
    flows: Vec<Flow>,
    total: u64,
}

impl Command {
    pub(super) async fn execute(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        match self {
            Command::List {
                filter,
                limit,
                sort,
            } => {
                let request = ListFlowsRequest {
                    filter: Some(filter.request()?),
                    limit,
                    sort: sort.unwrap_or_default(),
                };
                let mut client = agent.connect().await?;
                let mut parts = client::reply(client.list_flows(request)).await?;
                let mut list = List {
                    flows: Vec::new(),
                    total: 0,
                };
                while let Some(part) = parts.message().await? {
                    list.flows.extend(part.flows);
                    list.total = part.total.unwrap_or(list.total);
                }
                printer.print(&list, |list| table(&list.flows, list.total))?;
            }
            Command::Count { filter, by } => {
                let request = CountFlowsRequest {
                    filter: Some(filter.request()?),
                };
                let mut client = agent.connect().await?;
                let reply = client::reply(client.count_flows(request)).await?;
                printer.print(&reply, |reply| counts(&reply.counts, &by))?;
            }
        }
        Ok(())
    }
}

fn table(flows: &[Flow], total: u64) -> String {
    if total == 0 {
        return "there are no such flows\n".into();
    }
    let mut table = Table::new(&[
        Column::Words("PROTO"),
        Column::Words("CLIENT"),
        Column::Words("VIP"),
        Column::Words("SOURCE"),
        Column::Words("BACKEND"),
        Column::Words("STATE"),
        Column::Number("IDLE"),
        Column::Words("SERVICE"),
    ]);
    for flow in flows {
        table.row([
            flow.protocol.clone(),
            flow.client.clone(),
            flow.vip.clone(),
            flow.source.clone(),
            flow.backend.clone(),
            flow.state.clone(),
            span(Duration::from_millis(flow.idle_ms)),
            flow.service.clone().unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    let more = total.saturating_sub(flows.len() as u64);
    if more > 0 {
        text.push_str(&format!(
            "and {}; --limit shows them\n",
            counted(more, "more flow")
        ));
    }
    text
}

fn counts(counts: &[FlowCount], by: &[Group]) -> String {
    if counts.is_empty() {
        return "there are no such flows\n".into();
    }
    let mut columns: Vec<Column> = by
        .iter()
        .map(|group| {
            Column::Words(match group {
                Group::Service => "SERVICE",
                Group::Backend => "BACKEND",
                Group::Protocol => "PROTO",
                Group::State => "STATE",
            })
        })
        .collect();
    columns.push(Column::Number("FLOWS"));
    let mut sums: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for count in counts {
        let key = by.iter().map(|group| match group {
            Group::Service => count.service.clone().unwrap_or_default(),
            Group::Backend => count.backend.clone().unwrap_or_default(),
            Group::Protocol => count.protocol.clone(),
            Group::State => count.state.clone(),
        });
        *sums.entry(key.collect()).or_default() += count.flows;
    }
    let mut table = Table::new(&columns);
    for (mut cells, flows) in sums {
        cells.push(flows.to_string());
        table.cells(&cells);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow {
            protocol: "tcp".into(),
            client: "10.0.0.2:4000".into(),
            vip: "198.51.100.10:80".into(),
            source: "10.1.0.1:4000".into(),
            backend: "10.1.0.2:8080".into(),
            state: "established".into(),
            idle_ms: 61_000,
            service: None,
        }
    }

    #[test]
    fn flows_are_rows_and_what_is_left_out_is_said() {
        let expected = "\
PROTO  CLIENT         VIP               SOURCE         BACKEND        STATE         IDLE  SERVICE
tcp    10.0.0.2:4000  198.51.100.10:80  10.1.0.1:4000  10.1.0.2:8080  established  1m 1s  -
";
        assert_eq!(table(&[flow()], 1), expected);
        let more = format!("{expected}and 9 more flows; --limit shows them\n");
        assert_eq!(table(&[flow()], 10), more);
        assert_eq!(table(&[], 0), "there are no such flows\n");
    }

    #[test]
    fn counts_are_summed_by_what_was_asked_for() {
        let count = |service: &str, backend: &str, state: &str, flows| FlowCount {
            service: Some(service.into()),
            backend: Some(backend.into()),
            protocol: "tcp".into(),
            state: state.into(),
            flows,
        };
        let all = [
            count("echo", "10.1.0.2:80", "established", 2),
            count("echo", "10.1.0.3:80", "established", 3),
            count("echo", "10.1.0.3:80", "reset", 4),
        ];
        assert_eq!(
            counts(&all, &[Group::Service, Group::State]),
            "SERVICE  STATE        FLOWS\necho     established      5\necho     reset            4\n"
        );
        assert_eq!(
            counts(&all, &[Group::Backend]),
            "BACKEND      FLOWS\n10.1.0.2:80      2\n10.1.0.3:80      7\n"
        );
        assert_eq!(counts(&[], &[Group::State]), "there are no such flows\n");
    }
}
