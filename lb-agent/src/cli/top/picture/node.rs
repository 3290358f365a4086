//! The agent as a whole.

use std::time::Duration;

use serde::Serialize;

use super::super::{look::Look, rate::per_second};
use crate::api::proto::{StatusResponse, VerdictCount, Watch};

/// The agent as a whole, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli::top) struct Node {
    /// The agent's clock.
    pub(in crate::cli::top) at_unix_ms: i64,
    /// Of the agent's program.
    pub(in crate::cli::top) version: String,
    /// Counts up with every change of the desired state.
    pub(in crate::cli::top) state_version: u64,
    /// Since the agent started.
    pub(in crate::cli::top) uptime_ms: u64,
    /// What a person should know, each a sentence.
    pub(in crate::cli::top) problems: Vec<String>,
    /// How the agent and Consul stand; absent: none is configured.
    pub(in crate::cli::top) consul: Option<Consul>,
    /// Whether the node is drained.
    pub(in crate::cli::top) drained: bool,
    /// Services with a healthy backend, of all.
    pub(in crate::cli::top) services_healthy: u32,
    pub(in crate::cli::top) services: u32,
    /// Healthy backends, of all.
    pub(in crate::cli::top) backends_healthy: u32,
    pub(in crate::cli::top) backends: u32,
    /// In the tables of both address families.
    pub(in crate::cli::top) flows: u64,
    /// How full the fuller table is.
    pub(in crate::cli::top) flow_table_percent: f64,
    /// Rules on the block list.
    pub(in crate::cli::top) block_rules: u64,
    /// Packets that the programs saw, whatever became of them.
    pub(in crate::cli::top) packets_per_second: Option<f64>,
    /// Those of them that were forwarded.
    pub(in crate::cli::top) forwarded_per_second: Option<f64>,
    /// Those of them that were dropped.
    pub(in crate::cli::top) drops_per_second: Option<f64>,
    /// Flows that services were given.
    pub(in crate::cli::top) new_flows_per_second: Option<f64>,
}

/// How the agent and Consul stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli::top) struct Consul {
    /// Where it is asked.
    pub(in crate::cli::top) address: String,
    /// Questions that are kept open.
    pub(in crate::cli::top) watches: usize,
    /// Those of them whose last try failed.
    pub(in crate::cli::top) failing: usize,
    /// The age of the oldest last trusted answer; absent: one has never come, or there are no
    /// watches.
    pub(in crate::cli::top) oldest_answer_ms: Option<u64>,
}

impl Node {
    pub(super) fn new(before: Option<&Look>, look: &Look, elapsed: Duration) -> Self {
        let status = &look.status;
        let catalog = status.catalog.unwrap_or_default();
        let rate = |count: fn(&Look) -> u64| per_second(before.map(count), count(look), elapsed);
        Self {
            at_unix_ms: status.now_unix_ms,
            version: status.agent_version.clone(),
            state_version: status.snapshot_version,
            uptime_ms: age(Some(status.started_unix_ms), status.now_unix_ms).unwrap_or(0),
            problems: status.problems.clone(),
            consul: consul(status),
            drained: status.node_drain.is_some(),
            services_healthy: catalog.services_healthy,
            services: catalog.services,
            backends_healthy: catalog.backends_healthy,
            backends: catalog.backends,
            // A flow takes two slots.
            flows: status.flow_tables.iter().map(|table| table.used / 2).sum(),
            flow_table_percent: status
                .flow_tables
                .iter()
                .filter(|table| table.slots > 0)
                .map(|table| table.used as f64 * 100.0 / table.slots as f64)
                .fold(0.0, f64::max),
            block_rules: status.block_rules,
            packets_per_second: rate(|look| packets(look, |_| true)),
            forwarded_per_second: rate(|look| packets(look, |of| of.action == "forward")),
            drops_per_second: rate(|look| packets(look, |of| of.action == "drop")),
            new_flows_per_second: rate(|look| {
                let counters = look.services.iter().filter_map(|of| of.counters.as_ref());
                counters.map(|counters| counters.flows_created).sum()
            }),
        }
    }
}

fn packets(look: &Look, which: impl Fn(&&VerdictCount) -> bool) -> u64 {
    let verdicts = look.status.verdicts.iter().filter(which);
    verdicts.map(|verdict| verdict.packets).sum()
}

fn consul(status: &StatusResponse) -> Option<Consul> {
    let ages: Option<Vec<u64>> = status
        .watches
        .iter()
        .map(|watch: &Watch| age(watch.last_success_unix_ms, status.now_unix_ms))
        .collect();
    Some(Consul {
        address: status.consul_address.clone()?,
        watches: status.watches.len(),
        failing: status.watches.iter().filter(|w| w.error.is_some()).count(),
        oldest_answer_ms: ages.and_then(|ages| ages.into_iter().max()),
    })
}

fn age(at: Option<i64>, now: i64) -> Option<u64> {
    Some(u64::try_from(now.saturating_sub(at?)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::{Counters, FlowTable, Service};

    fn verdict(action: &str, packets: u64) -> VerdictCount {
        VerdictCount {
            action: action.into(),
            packets,
            ..Default::default()
        }
    }

    fn look(passed: u64, forwarded: u64, dropped: u64, flows: &[u64]) -> Look {
        let mut look = Look::default();
        look.status.verdicts = vec![
            verdict("pass", passed),
            verdict("forward", forwarded),
            verdict("drop", dropped),
        ];
        look.services = flows
            .iter()
            .map(|flows_created| Service {
                counters: Some(Counters {
                    flows_created: *flows_created,
                    ..Default::default()
                }),
                ..Default::default()
            })
            .collect();
        look
    }

    #[test]
    fn rates_are_of_all_packets_and_all_services() {
        let before = look(100, 1000, 10, &[5, 5]);
        let after = look(120, 1100, 14, &[9, 11]);
        let node = Node::new(Some(&before), &after, Duration::from_secs(2));
        let rates = [
            node.packets_per_second,
            node.forwarded_per_second,
            node.drops_per_second,
            node.new_flows_per_second,
        ];
        assert_eq!(rates, [Some(62.0), Some(50.0), Some(2.0), Some(5.0)]);
        let first = Node::new(None, &after, Duration::ZERO);
        assert_eq!(first.packets_per_second, None);
        assert_eq!(first.new_flows_per_second, None);
    }

    #[test]
    fn flows_are_halves_of_slots_and_the_fuller_table_counts() {
        let table = |used, slots| FlowTable {
            used,
            slots,
            ..Default::default()
        };
        let mut look = Look::default();
        look.status.flow_tables = vec![table(20, 1000), table(500, 1000), table(0, 0)];
        let node = Node::new(None, &look, Duration::ZERO);
        assert_eq!((node.flows, node.flow_table_percent), (260, 50.0));
    }

    #[test]
    fn consul_is_as_old_as_its_oldest_answer() {
        let watch = |last: Option<i64>, error: Option<&str>| Watch {
            last_success_unix_ms: last,
            error: error.map(str::to_owned),
            ..Default::default()
        };
        let rows = [
            (vec![], 0, None),
            (vec![watch(Some(9_000), None)], 0, Some(1_000)),
            (
                vec![watch(Some(9_000), None), watch(Some(2_000), Some("gone"))],
                1,
                Some(8_000),
            ),
            (
                vec![watch(Some(9_000), None), watch(None, Some("x"))],
                1,
                None,
            ),
        ];
        for (watches, failing, oldest) in rows {
            let mut status = StatusResponse {
                now_unix_ms: 10_000,
                watches,
                ..Default::default()
            };
            assert_eq!(consul(&status), None);
            status.consul_address = Some("a".into());
            let consul = consul(&status).unwrap();
            assert_eq!((consul.failing, consul.oldest_answer_ms), (failing, oldest));
        }
    }
}
