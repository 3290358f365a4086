//! The key `gate` of a service.

use std::time::Duration;

use toml::de::DeValue;

use super::{locate::Report, scalar, table::Table};
use crate::domain::gate::GateSpec;

const MIN_WINDOW: Duration = Duration::from_secs(1);
const MAX_WINDOW: Duration = Duration::from_secs(3600);
const MAX_COOLDOWN: Duration = Duration::from_secs(24 * 3600);
const MIN_LATENCY: Duration = Duration::from_micros(1);
const MAX_LATENCY: Duration = Duration::from_secs(3600);

/// Reads a gate table. What it returns counts only if nothing was found.
pub(super) fn gate(mut table: Table, report: &mut Report) -> GateSpec {
    let defaults = GateSpec::default();
    let percent = |value: &DeValue| scalar::integer(value, 0..=100);
    let spec = GateSpec {
        window: table
            .get("window", report, |value| {
                scalar::duration(value, MIN_WINDOW..=MAX_WINDOW)
            })
            .unwrap_or(defaults.window),
        fail: table
            .get("fail", report, |value| scalar::integer(value, 1..=100))
            .unwrap_or(defaults.fail),
        healthy: table
            .get("healthy", report, percent)
            .unwrap_or(defaults.healthy),
        errors: table
            .get("errors", report, percent)
            .unwrap_or(defaults.errors),
        latency: table.get("latency", report, |value| {
            scalar::duration(value, MIN_LATENCY..=MAX_LATENCY)
        }),
        connections: table
            .get("connections", report, |value| {
                scalar::integer(value, 1..=1_000_000)
            })
            .unwrap_or(defaults.connections),
        cooldown: table
            .get("cooldown", report, |value| {
                scalar::duration(value, Duration::ZERO..=MAX_COOLDOWN)
            })
            .unwrap_or(defaults.cooldown),
    };
    table.close(report);
    spec
}
