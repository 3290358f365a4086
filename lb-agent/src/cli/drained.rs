//! What is drained, as `status` shows it.

use std::time::Duration;

use super::{
    output::{between, counted, span},
    table::{Column, Table},
};
use crate::api::proto::{DrainedBackend, NodeDrain, StatusResponse};

/// The node's drain in a sentence, and the drained backends as a table; `None`: nothing is drained.
pub(super) fn text(status: &StatusResponse) -> Option<String> {
    let now = status.now_unix_ms;
    let node = status.node_drain.iter().map(|drain| node(drain, now));
    let backends = (!status.drains.is_empty()).then(|| table(&status.drains, now));
    let parts: Vec<String> = node.chain(backends).collect();
    (!parts.is_empty()).then(|| parts.join("\n"))
}

fn node(drain: &NodeDrain, now: i64) -> String {
    let by = drain.by.as_ref().map(|by| format!(" by {by}"));
    let announced = match between(now, drain.leaves_unix_ms) {
        Duration::ZERO => "VIPs are not announced".to_owned(),
        grace => format!("VIPs are announced for another {}", seconds(grace)),
    };
    format!(
        "the node is drained{} since {}: /readyz fails, {announced}\n",
        by.unwrap_or_default(),
        seconds(between(drain.since_unix_ms, now)),
    )
}

fn table(drains: &[DrainedBackend], now: i64) -> String {
    let mut table = Table::new(&[
        Column::Words("DRAINED"),
        Column::Words("BACKEND"),
        Column::Number("SINCE"),
        Column::Words("BY"),
        Column::Number("FLOWS"),
        Column::Words("DEADLINE"),
    ]);
    for drain in drains {
        let deadline = match (drain.deadline_unix_ms, drain.cut_flows) {
            (None, _) => String::new(),
            (Some(_), Some(cut)) => format!("passed, {} cut", counted(cut, "flow")),
            (Some(at), None) => format!("in {}", seconds(between(now, at))),
        };
        table.row([
            drain.service.clone(),
            drain.backend_id.clone(),
            format!("{} ago", seconds(between(drain.since_unix_ms, now))),
            drain.by.clone().unwrap_or_default(),
            (drain.flows + drain.local_connections).to_string(),
            deadline,
        ]);
    }
    table.render()
}

/// Without milliseconds, which would only flicker.
fn seconds(time: Duration) -> String {
    span(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drained_is_shown() {
        let drained = |deadline_unix_ms, cut_flows| DrainedBackend {
            service: "echo".into(),
            backend_id: "n1/echo".into(),
            since_unix_ms: 40_000,
            deadline_unix_ms,
            cut_flows,
            by: Some("root".into()),
            flows: 2,
            local_connections: 1,
            ..Default::default()
        };
        let mut status = StatusResponse {
            now_unix_ms: 100_000,
            ..Default::default()
        };
        assert_eq!(text(&status), None);
        status.drains = vec![
            drained(None, None),
            drained(Some(130_000), None),
            drained(Some(90_000), Some(4)),
        ];
        status.node_drain = Some(NodeDrain {
            since_unix_ms: 95_000,
            leaves_unix_ms: 105_000,
            deadline_unix_ms: None,
            by: Some("root".into()),
        });
        assert_eq!(
            text(&status).unwrap(),
            "\
the node is drained by root since 5s: /readyz fails, VIPs are announced for another 5s

DRAINED  BACKEND   SINCE  BY    FLOWS  DEADLINE
echo     n1/echo  1m ago  root      3  -
echo     n1/echo  1m ago  root      3  in 30s
echo     n1/echo  1m ago  root      3  passed, 4 flows cut
"
        );
    }
}
