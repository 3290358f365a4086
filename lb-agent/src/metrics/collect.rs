//! What a scrape asks the controller, and the text it makes of the answers.

use std::{sync::Arc, time::SystemTime};

use ipnet::IpNet;
use lb_common::entry::Counter;
use prometheus::{TextEncoder, proto::MetricFamily};

use super::{Sources, blocks, fragments, node, process, proxy, registrar, services, trace};
use crate::{
    controller::{OperatorError, Status, handle::Counters},
    domain::snapshot::Snapshot,
    fragments::FragmentStats,
    probe::ProbeStats,
    proxy::telemetry::counts::Counts,
    watch::WatchStats,
};

/// Everything that one scrape shows.
pub(super) struct Reading {
    pub(super) status: Status,
    pub(super) counters: Counters,
    /// The rules that dropped most.
    pub(super) blocks: Vec<(IpNet, Counter)>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) probes: Arc<ProbeStats>,
    pub(super) watch: Arc<WatchStats>,
    pub(super) fragments: Arc<FragmentStats>,
    pub(super) proxy: Arc<Counts>,
}

/// Asks the controller for all of it.
pub(super) async fn read(
    Sources {
        handle,
        probes,
        watch,
        fragments,
        proxy,
    }: &Sources,
) -> Result<Reading, OperatorError> {
    let (status, counters, blocks) = tokio::try_join!(
        handle.status(),
        handle.counters(),
        handle.block_top(blocks::MAX_SERIES)
    )?;
    Ok(Reading {
        status,
        counters,
        blocks,
        snapshot: handle.snapshot(),
        probes: Arc::clone(probes),
        watch: Arc::clone(watch),
        fragments: Arc::clone(fragments),
        proxy: Arc::clone(proxy),
    })
}

/// The reading in the text format.
pub(super) fn text(reading: &Reading, now: SystemTime) -> prometheus::Result<String> {
    let families: Vec<MetricFamily> = node::families(&reading.status, &reading.probes, now)
        .into_iter()
        .chain(process::families())
        .chain(registrar::families(&reading.status, now))
        .chain(services::families(&reading.snapshot, &reading.counters))
        .chain(blocks::families(reading.status.blocks, &reading.blocks))
        .chain(trace::families(&reading.watch))
        .chain([fragments::family(&reading.fragments)])
        .chain(proxy::families(&reading.proxy))
        .filter_map(|family| family.finish())
        .collect();
    TextEncoder::new().encode_to_string(&families)
}
