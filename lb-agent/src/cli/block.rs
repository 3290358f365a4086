//! `block`: who may not send to anything behind this node.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use ipnet::IpNet;

use super::{
    allow,
    client::{self, Agent},
    failure::Failure,
    import::{self, Progress},
    output::{Printer, between, bytes, counted, span},
    table::{Column, Table},
};
use crate::{
    api::proto::{
        AddBlocksRequest, AddBlocksResponse, BlockOptions, BlockRule, DeleteBlocksRequest,
        ImportBlocksRequest, ImportBlocksResponse, ListBlocksRequest, ListBlocksResponse,
    },
    domain::block::parse_prefix,
};

/// Prefixes in one message of an import; far below what a message may hold.
const BATCH: usize = 4096;

/// What can be done with the block list.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Block addresses or prefixes; all of them or, if one is wrong, none
    Add {
        /// Address (192.0.2.7) or prefix (2001:db8::/32)
        #[arg(required = true, value_name = "CIDR")]
        prefixes: Vec<String>,
        #[command(flatten)]
        options: Options,
        /// On every node that follows the same Consul
        #[arg(long)]
        fleet: bool,
    },
    /// Unblock addresses or prefixes, as `block list` shows them; all of them or none
    Del {
        /// Address or prefix
        #[arg(required = true, value_name = "CIDR")]
        prefixes: Vec<String>,
        /// What `block add --fleet` added, on every node
        #[arg(long)]
        fleet: bool,
    },
    /// List what is blocked, and what each rule has dropped
    List,
    /// Block what a file lists; all of it or, if one line is wrong, nothing
    Import {
        /// One address or prefix a line, `#` for comments; `-` for standard input
        file: PathBuf,
        /// Put the list in the place of all that was imported before, in one step; what
        /// `block add` added stays
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Except addresses or prefixes: what comes from there is not dropped, whatever is blocked
    #[command(subcommand)]
    Allow(allow::Command),
}

/// How rules are added.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// End by itself after this time, as in 15m or 2h30m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Why, for whoever reads the list
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    /// Block even what would cut off this node itself
    #[arg(long)]
    force: bool,
}

impl From<Options> for BlockOptions {
    fn from(options: Options) -> Self {
        Self {
            ttl_ms: options
                .ttl
                .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            reason: options.reason,
            force: options.force,
        }
    }
}

impl Command {
    pub(super) async fn execute(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        match self {
            Command::Add {
                prefixes,
                options,
                fleet,
            } => {
                let request = AddBlocksRequest {
                    fleet,
                    prefixes: canonical(&prefixes)?,
                    options: Some(options.into()),
                };
                let mut client = agent.connect().await?;
                let reply = client::reply(client.add_blocks(request)).await?;
                printer.print(&reply, added)?;
            }
            Command::Del { prefixes, fleet } => {
                let prefixes = canonical(&prefixes)?;
                let mut client = agent.connect().await?;
                let request = DeleteBlocksRequest { prefixes, fleet };
                let reply = client::reply(client.delete_blocks(request)).await?;
                printer.print(&reply, |reply| {
                    format!("{} deleted", counted(reply.deleted, "rule"))
                })?;
            }
            Command::List => {
                let mut client = agent.connect().await?;
                let parts = client::reply(client.list_blocks(ListBlocksRequest::default())).await?;
                let reply = joined(parts).await?;
                printer.print(&reply, list)?;
            }
            Command::Import {
                file,
                replace,
                options,
            } => {
                let prefixes = import::read(&file)?;
                let mut client = agent.connect().await?;
                let mut progress = Progress::new(prefixes.len());
                let parts = batches(prefixes, options, replace)
                    .inspect(move |part| progress.sent(part.prefixes.len()));
                let call = client.import_blocks(tokio_stream::iter(parts));
                let reply = client::reply_within(call, import::PATIENCE).await?;
                printer.print(&reply, imported)?;
            }
            Command::Allow(command) => command.execute(agent, printer).await?,
        }
        Ok(())
    }
}

/// Each as it will stand on the list, or everything that is wrong.
pub(super) fn canonical(texts: &[String]) -> Result<Vec<String>, Failure> {
    let mut prefixes = Vec::new();
    let mut findings = Vec::new();
    for text in texts {
        match parse_prefix(text) {
            Ok(prefix) => prefixes.push(prefix.to_string()),
            Err(error) => findings.push(error.to_string()),
        }
    }
    if findings.is_empty() {
        Ok(prefixes)
    } else {
        Err(Failure::Invalid(findings))
    }
}

fn batches(
    prefixes: Vec<IpNet>,
    options: Options,
    replace: bool,
) -> impl Iterator<Item = ImportBlocksRequest> {
    // Read from the first message only.
    let mut options = Some(options.into());
    let count = prefixes.len().div_ceil(BATCH);
    let mut prefixes = prefixes.into_iter();
    (0..count).map(move |_| ImportBlocksRequest {
        prefixes: prefixes
            .by_ref()
            .take(BATCH)
            .map(|prefix| prefix.to_string())
            .collect(),
        options: options.take(),
        replace,
    })
}

/// The list, out of the parts that it comes in.
async fn joined(
    mut parts: tonic::Streaming<ListBlocksResponse>,
) -> Result<ListBlocksResponse, Failure> {
    let mut list = ListBlocksResponse::default();
    while let Some(part) = client::next(&mut parts).await? {
        list.now_unix_ms = part.now_unix_ms;
        list.blocks.extend(part.blocks);
    }
    Ok(list)
}

fn imported(reply: &ImportBlocksResponse) -> String {
    let mut text = format!("{} imported", counted(reply.imported, "rule"));
    if reply.total != reply.imported {
        text += &format!("; {} on the block list", counted(reply.total, "rule"));
    }
    with_notes(text, &reply.notes)
}

/// What is to be said, and under it what the person should know.
pub(super) fn with_notes(mut text: String, notes: &[String]) -> String {
    for note in notes {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("note: {note}\n");
    }
    text
}

fn added(reply: &AddBlocksResponse) -> String {
    let line = |rule: &BlockRule| match rule.expires_unix_ms {
        Some(expires) => {
            let rest = span(between(reply.now_unix_ms, expires));
            format!("{} is blocked for {rest}\n", rule.prefix)
        }
        None => format!("{} is blocked until it is deleted\n", rule.prefix),
    };
    with_notes(reply.rules.iter().map(line).collect(), &reply.notes)
}

fn list(reply: &ListBlocksResponse) -> String {
    if reply.blocks.is_empty() {
        return "the block list is empty".into();
    }
    let mut table = Table::new(&[
        Column::Words("PREFIX"),
        Column::Number("SINCE"),
        Column::Number("ENDS"),
        Column::Number("PACKETS"),
        Column::Number("BYTES"),
        Column::Words("REASON"),
    ]);
    for entry in &reply.blocks {
        let rule = entry.rule.clone().unwrap_or_default();
        table.row([
            rule.prefix,
            format!(
                "{} ago",
                span(between(rule.added_unix_ms, reply.now_unix_ms))
            ),
            match rule.expires_unix_ms {
                Some(expires) => format!("in {}", span(between(reply.now_unix_ms, expires))),
                None => "never".into(),
            },
            entry.dropped_packets.to_string(),
            bytes(entry.dropped_bytes),
            rule.reason,
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::BlockEntry;

    fn rules() -> [BlockRule; 2] {
        [
            BlockRule {
                prefix: "192.0.2.7/32".into(),
                reason: "port scan".into(),
                added_unix_ms: 100_000,
                expires_unix_ms: Some(1_060_000),
                ..Default::default()
            },
            BlockRule {
                prefix: "2001:db8::/32".into(),
                added_unix_ms: 40_000,
                ..Default::default()
            },
        ]
    }

    #[test]
    fn rules_are_listed_with_what_they_caught() {
        let [first, second] = rules();
        let entry = |rule, dropped_packets| BlockEntry {
            rule: Some(rule),
            dropped_packets,
            dropped_bytes: dropped_packets * 64,
        };
        let reply = ListBlocksResponse {
            blocks: vec![entry(first, 32), entry(second, 0)],
            now_unix_ms: 160_000,
        };
        assert_eq!(
            list(&reply),
            "\
PREFIX          SINCE    ENDS  PACKETS     BYTES  REASON
192.0.2.7/32   1m ago  in 15m       32  2.00 KiB  port scan
2001:db8::/32  2m ago   never        0       0 B  -
"
        );
        assert_eq!(
            list(&ListBlocksResponse::default()),
            "the block list is empty"
        );
    }

    #[test]
    fn what_was_added_is_said_with_its_end() {
        let reply = AddBlocksResponse {
            rules: rules().into(),
            now_unix_ms: 160_000,
            notes: vec!["192.0.2.7/32 is not dropped".into()],
        };
        assert_eq!(
            added(&reply),
            "192.0.2.7/32 is blocked for 15m\n2001:db8::/32 is blocked until it is deleted\n\
             note: 192.0.2.7/32 is not dropped\n"
        );
    }

    #[test]
    fn options_travel_with_the_first_batch_only() {
        let prefixes = vec!["192.0.2.7/32".parse().unwrap(); 2 * BATCH + 1];
        let options = Options {
            ttl: Some(Duration::from_secs(900)),
            reason: "list".into(),
            force: true,
        };
        let parts: Vec<ImportBlocksRequest> = batches(prefixes, options, true).collect();
        assert!(parts[0].replace);
        let sizes: Vec<usize> = parts.iter().map(|part| part.prefixes.len()).collect();
        assert_eq!(sizes, [BATCH, BATCH, 1]);
        assert_eq!(
            parts[0].options,
            Some(BlockOptions {
                ttl_ms: Some(900_000),
                reason: "list".into(),
                force: true,
            })
        );
        assert!(parts[1..].iter().all(|part| part.options.is_none()));
    }
}
