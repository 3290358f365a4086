//! `backend history`: what has happened to backends, and who said so.

use super::{
    client::{self, Agent},
    failure::Failure,
    output::{Printer, between, span},
    table::{Column, Table},
};
use crate::api::proto::{BackendHistoryRequest, BackendHistoryResponse};

/// Which changes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of a service, or id or address of a backend; all if left out
    #[arg(value_name = "SERVICE|ADDRESS")]
    of: Option<String>,
    /// At most so many of the latest changes; 0: all that are kept
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: u32,
}

pub(super) async fn execute(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let Args { of, limit } = args;
    let mut client = agent.connect().await?;
    let request = BackendHistoryRequest { of, limit };
    let reply = client::reply(client.backend_history(request)).await?;
    printer.print(&reply, text)?;
    Ok(())
}

fn text(reply: &BackendHistoryResponse) -> String {
    if reply.changes.is_empty() {
        return "nothing has changed since the agent started\n".into();
    }
    let mut table = Table::new(&[
        Column::Words("WHEN"),
        Column::Words("SERVICE"),
        Column::Words("ADDRESS"),
        Column::Words("FROM"),
        Column::Words("TO"),
        Column::Words("BY"),
        Column::Words("WHY"),
    ]);
    for change in &reply.changes {
        table.row([
            format!(
                "{} ago",
                span(between(change.at_unix_ms, reply.now_unix_ms))
            ),
            change.service.clone(),
            change.address.clone(),
            change.from.clone(),
            change.to.clone(),
            change.source.clone(),
            change.reason.clone(),
        ]);
    }
    let mut text = table.render();
    if reply.older > 0 {
        text.push_str(&format!(
            "{} older ones are not shown; --limit 0 shows all\n",
            reply.older
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::BackendChange;

    #[test]
    fn changes_oldest_first() {
        let change = |at_unix_ms, from: &str, to: &str, source: &str, reason: &str| BackendChange {
            at_unix_ms,
            service: "echo".into(),
            id: "node1/echo-1".into(),
            address: "10.1.0.2:8080".into(),
            from: from.into(),
            to: to.into(),
            reason: reason.into(),
            source: source.into(),
        };
        let reply = BackendHistoryResponse {
            changes: vec![
                change(40_000, "healthy", "unhealthy", "probe", "refused"),
                change(100_000, "enabled", "draining", "operator", "by hand"),
            ],
            older: 3,
            now_unix_ms: 160_000,
        };
        assert_eq!(
            text(&reply),
            "\
WHEN    SERVICE  ADDRESS        FROM     TO         BY        WHY
2m ago  echo     10.1.0.2:8080  healthy  unhealthy  probe     refused
1m ago  echo     10.1.0.2:8080  enabled  draining   operator  by hand
3 older ones are not shown; --limit 0 shows all
"
        );
        let nothing = text(&BackendHistoryResponse::default());
        assert_eq!(nothing, "nothing has changed since the agent started\n");
    }
}
