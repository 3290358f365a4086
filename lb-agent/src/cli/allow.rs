//! `block allow`: who is never dropped, whatever the block list says.

use clap::Subcommand;

use super::{
    block::{canonical, with_notes},
    client::{self, Agent},
    failure::Failure,
    output::{Printer, between, counted, span},
    table::{Column, Table},
};
use crate::api::proto::{
    AddAllowedRequest, DeleteAllowedRequest, ListAllowedRequest, ListAllowedResponse,
};

/// What can be done with the allow list.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Allow addresses or prefixes; all of them or, if one is wrong, none
    Add {
        /// Address (192.0.2.7) or prefix (2001:db8::/32)
        #[arg(required = true, value_name = "CIDR")]
        prefixes: Vec<String>,
    },
    /// Take addresses or prefixes off, as `block allow list` shows them; all of them or none
    Del {
        /// Address or prefix
        #[arg(required = true, value_name = "CIDR")]
        prefixes: Vec<String>,
    },
    /// List who is allowed, and by whom
    List,
}

impl Command {
    pub(super) async fn execute(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        match self {
            Command::Add { prefixes } => {
                let prefixes = canonical(&prefixes)?;
                let mut client = agent.connect().await?;
                let request = AddAllowedRequest { prefixes };
                let reply = client::reply(client.add_allowed(request)).await?;
                printer.print(&reply, |reply| {
                    let line = |prefix: &String| format!("{prefix} is allowed\n");
                    with_notes(reply.prefixes.iter().map(line).collect(), &reply.notes)
                })?;
            }
            Command::Del { prefixes } => {
                let prefixes = canonical(&prefixes)?;
                let mut client = agent.connect().await?;
                let request = DeleteAllowedRequest { prefixes };
                let reply = client::reply(client.delete_allowed(request)).await?;
                printer.print(&reply, |reply| {
                    format!("{} deleted", counted(reply.deleted, "exception"))
                })?;
            }
            Command::List => {
                let mut client = agent.connect().await?;
                let reply = client::reply(client.list_allowed(ListAllowedRequest {})).await?;
                printer.print(&reply, list)?;
            }
        }
        Ok(())
    }
}

fn list(reply: &ListAllowedResponse) -> String {
    if reply.allowed.is_empty() {
        return "the allow list is empty".into();
    }
    let mut table = Table::new(&[
        Column::Words("PREFIX"),
        Column::Words("BY"),
        Column::Number("SINCE"),
    ]);
    for allowed in &reply.allowed {
        table.row([
            allowed.prefix.clone(),
            match (allowed.configured, allowed.added_unix_ms) {
                (true, None) => "configuration".into(),
                (true, Some(_)) => "configuration, command".into(),
                (false, _) => "command".into(),
            },
            match allowed.added_unix_ms {
                Some(added) => format!("{} ago", span(between(added, reply.now_unix_ms))),
                None => String::new(),
            },
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::AllowedPrefix;

    #[test]
    fn exceptions_are_listed_with_their_origin() {
        let allowed = |prefix: &str, configured, added_unix_ms| AllowedPrefix {
            prefix: prefix.into(),
            configured,
            added_unix_ms,
        };
        let reply = ListAllowedResponse {
            allowed: vec![
                allowed("192.0.2.7/32", false, Some(100_000)),
                allowed("2001:db8::/32", true, None),
            ],
            now_unix_ms: 160_000,
        };
        assert_eq!(
            list(&reply),
            "\
PREFIX         BY              SINCE
192.0.2.7/32   command        1m ago
2001:db8::/32  configuration       -
"
        );
        let empty = ListAllowedResponse::default();
        assert_eq!(list(&empty), "the allow list is empty");
    }
}
