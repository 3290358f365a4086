//! `split`: the shares of a service's subsets.

use std::{collections::BTreeMap, time::Duration};

use clap::Subcommand;

use super::{
    client::{self, Agent},
    failure::Failure,
    output::{Printer, percent},
    shift,
    table::{Column, Table},
};
use crate::{
    api::proto::{
        AckSplitRequest, PromoteSplitRequest, ResetSplitRequest, RollbackSplitRequest,
        ServiceSplit, SetSplitRequest, Shift, ShiftSplitRequest, ShowSplitRequest,
        ShowSplitResponse, Split,
    },
    domain::split::Shares,
};

/// What can be done with splits.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Set the shares of a service, as in `split set echo v1=90 v2=10`
    ///
    /// They need not sum to 100, and count until `split reset`, over restarts of the agent.
    /// Subsets that are not named get nothing.
    Set {
        /// Name of the service
        service: String,
        /// Share of a subset, a whole number from 0 to 10000
        #[arg(required = true, value_name = "SUBSET=SHARE")]
        shares: Vec<String>,
        /// On every node that follows the same Consul; a split of a node's own goes before it
        #[arg(long)]
        fleet: bool,
    },
    /// Show the splits in force, and what each subset takes as things are
    Show {
        /// Name of the service; all that have subsets if left out
        service: Option<String>,
    },
    /// Shift traffic to a subset step by step, while its gate looks
    ///
    /// The first step is taken at once, each later one after `--every` and a good window of the
    /// gate. If windows fail, traffic goes back to the shares from before by itself, and stays
    /// there until `split ack`. The gate looks until `split promote`, `rollback`, `set` or `reset`.
    /// Of a shift under way this changes goal and pace.
    Shift {
        /// Name of the service
        service: String,
        /// The subset that traffic goes to
        subset: String,
        /// Its part in the end, in percent
        #[arg(long, value_name = "PERCENT", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=100))]
        to: u32,
        /// Percent points of one step
        #[arg(long, value_name = "PERCENT", default_value_t = 10,
              value_parser = clap::value_parser!(u32).range(1..=100))]
        step: u32,
        /// Time from one step to the next, as in `30s` or `5m`
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
        every: Duration,
    },
    /// Give the subset of a shift everything, and end the watch over it
    Promote {
        /// Name of the service
        service: String,
    },
    /// End a shift, promoted or not: the shares from before it count again
    Rollback {
        /// Name of the service
        service: String,
    },
    /// Take note that traffic was taken back; until then its split cannot be changed
    Ack {
        /// Name of the service
        service: String,
    },
    /// Forget what `split set` said; the configured shares count again
    Reset {
        /// Name of the service
        service: String,
        /// What `split set --fleet` said, on every node
        #[arg(long)]
        fleet: bool,
    },
}

impl Command {
    pub(super) async fn execute(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        match self {
            Command::Set {
                service,
                shares,
                fleet,
            } => {
                let shares = Shares::parse(&shares).map_err(Failure::invalid)?.into();
                let mut client = agent.connect().await?;
                let request = SetSplitRequest {
                    service,
                    shares,
                    fleet,
                };
                let reply = client::reply(client.set_split(request)).await?;
                printer.print(&reply, |reply| {
                    sentence(&reply.service, reply.split.as_ref())
                })?;
            }
            Command::Show { service } => {
                let mut client = agent.connect().await?;
                let request = ShowSplitRequest { service };
                let reply = client::reply(client.show_split(request)).await?;
                printer.print(&reply, splits)?;
            }
            Command::Shift {
                service,
                subset,
                to,
                step,
                every,
            } => {
                let mut client = agent.connect().await?;
                let request = ShiftSplitRequest {
                    service,
                    subset,
                    to_percent: to,
                    step_percent: step,
                    every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
                };
                let reply = client::reply(client.shift_split(request)).await?;
                printer.print(&reply, |reply| {
                    shifted(&reply.service, reply.split.as_ref(), reply.shift.as_ref())
                })?;
            }
            Command::Promote { service } => {
                let mut client = agent.connect().await?;
                let request = PromoteSplitRequest { service };
                let reply = client::reply(client.promote_split(request)).await?;
                printer.print(&reply, |reply| {
                    shifted(&reply.service, reply.split.as_ref(), reply.shift.as_ref())
                })?;
            }
            Command::Rollback { service } => {
                let mut client = agent.connect().await?;
                let request = RollbackSplitRequest { service };
                let reply = client::reply(client.rollback_split(request)).await?;
                printer.print(&reply, |reply| {
                    sentence(&reply.service, reply.split.as_ref())
                })?;
            }
            Command::Ack { service } => {
                let mut client = agent.connect().await?;
                let request = AckSplitRequest { service };
                let reply = client::reply(client.ack_split(request)).await?;
                printer.print(&reply, |reply| {
                    sentence(&reply.service, reply.split.as_ref())
                })?;
            }
            Command::Reset { service, fleet } => {
                let mut client = agent.connect().await?;
                let request = ResetSplitRequest { service, fleet };
                let reply = client::reply(client.reset_split(request)).await?;
                printer.print(&reply, |reply| {
                    sentence(&reply.service, reply.split.as_ref())
                })?;
            }
        }
        Ok(())
    }
}

/// Shares as they are typed, as in `v1=90 v2=10`.
pub(super) fn shares(shares: &BTreeMap<String, u32>) -> String {
    let words: Vec<String> = shares
        .iter()
        .map(|(subset, share)| format!("{subset}={share}"))
        .collect();
    words.join(" ")
}

fn sentence(service: &str, split: Option<&Split>) -> String {
    match split {
        Some(split) => format!(
            "{service} is split {} (set by {})",
            shares(&split.shares),
            split.source
        ),
        None => format!("{service} is not split; its backends share by their weights"),
    }
}

fn shifted(service: &str, split: Option<&Split>, shift: Option<&Shift>) -> String {
    let split = sentence(service, split);
    match shift {
        // The agent answers at once, so the next step is as far off as it can be.
        Some(shift) => format!("{split}\n{}", shift::sentence(shift, 0)),
        None => split,
    }
}

fn splits(reply: &ShowSplitResponse) -> String {
    if reply.services.is_empty() {
        return "no service has subsets".into();
    }
    let mut table = Table::new(&[
        Column::Words("SERVICE"),
        Column::Words("SUBSET"),
        Column::Number("SHARE"),
        Column::Number("SHARE%"),
        Column::Number("BACKENDS"),
        Column::Words("SET BY"),
        Column::Words("CONFIGURED"),
    ]);
    for service in &reply.services {
        rows(service, &mut table);
    }
    let mut text = table.render();
    for service in &reply.services {
        if let Some(others) = shift::others(&service.layers) {
            text.push_str(&format!("{}: not in force: {others}\n", service.service));
        }
        if let Some(shift) = &service.shift {
            let sentence = shift::sentence(shift, reply.now_unix_ms);
            text.push_str(&format!("{}: {sentence}\n", service.service));
        }
    }
    text
}

fn rows(service: &ServiceSplit, table: &mut Table) {
    let source = || {
        let split = service.split.as_ref();
        split.map_or("-".to_owned(), |split| split.source.clone())
    };
    let name = || service.service.clone();
    if service.subsets.is_empty() {
        let empty = String::new;
        table.row([
            name(),
            empty(),
            empty(),
            empty(),
            empty(),
            source(),
            empty(),
        ]);
    }
    for subset in &service.subsets {
        let configured = service.configured_shares.get(&subset.subset);
        table.row([
            name(),
            subset.subset.clone(),
            subset.share.map(|n| n.to_string()).unwrap_or_default(),
            percent(subset.share_percent),
            format!("{}/{}", subset.backends_active, subset.backends),
            source(),
            configured.map(u32::to_string).unwrap_or_default(),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::{SplitLayer, SubsetShare};

    fn split(words: &[&str], source: &str) -> Split {
        Split {
            shares: Shares::parse(words).unwrap().into(),
            source: source.into(),
            origin: "split set".into(),
        }
    }

    #[test]
    fn a_subset_without_backends_shows_where_its_share_went() {
        let subset = |name: &str, share, share_percent, backends| SubsetShare {
            subset: name.into(),
            share: Some(share),
            share_percent,
            backends,
            backends_active: backends,
        };
        let reply = ShowSplitResponse {
            now_unix_ms: 0,
            services: vec![
                ServiceSplit {
                    service: "dns".into(),
                    ..Default::default()
                },
                ServiceSplit {
                    service: "echo".into(),
                    split: Some(split(&["v1=90", "v2=10"], "cli")),
                    configured_shares: BTreeMap::from([("v1".into(), 100)]),
                    subsets: vec![subset("v1", 90, 100.0, 2), subset("v2", 10, 0.0, 0)],
                    layers: vec![SplitLayer {
                        split: Some(split(&["v1=100"], "file")),
                        ..Default::default()
                    }],
                    shift: Some(Shift {
                        subset: "v2".into(),
                        phase: "promoted".into(),
                        ..Default::default()
                    }),
                },
            ],
        };
        assert_eq!(
            splits(&reply),
            "\
SERVICE  SUBSET  SHARE  SHARE%  BACKENDS  SET BY  CONFIGURED
dns      -           -       -         -  -       -
echo     v1         90  100.0%       2/2  cli     100
echo     v2         10    0.0%       0/0  cli     -
echo: not in force: v1=100 by file (split set)
echo: v2 was promoted; `split rollback` goes back to 
"
        );
        assert_eq!(
            splits(&ShowSplitResponse::default()),
            "no service has subsets"
        );
    }

    #[test]
    fn a_split_reads_as_a_sentence() {
        assert_eq!(
            sentence("echo", Some(&split(&["v2=10", "v1=90"], "cli"))),
            "echo is split v1=90 v2=10 (set by cli)"
        );
        assert_eq!(
            sentence("echo", None),
            "echo is not split; its backends share by their weights"
        );
    }
}
