//! In what order rows stand.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::picture::{BackendRow, ServiceRow, Traffic};

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Key {
    // Not doc comments: the option's own help says it, and stays on one line without them.
    #[default]
    Packets,
    Bytes,
    NewFlows,
    Flows,
    Healthy,
    Name,
}

/// A key, and which end is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) key: Key,
    /// Numbers stand with the highest first and names from A to Z, unless reversed.
    pub(super) reversed: bool,
}

/// Services in order; equal ones by name.
pub(super) fn services(rows: &[ServiceRow], order: Order) -> Vec<&ServiceRow> {
    let mut rows: Vec<&ServiceRow> = rows.iter().collect();
    rows.sort_by(|a, b| {
        let first = match order.key {
            Key::Name => a.name.cmp(&b.name),
            // The worst first: that is what a person looks for.
            Key::Healthy => healthy(a).total_cmp(&healthy(b)),
            key => by_traffic(key, &a.traffic, &b.traffic),
        };
        turned(first, order).then_with(|| a.name.cmp(&b.name))
    });
    rows
}

/// Backends in order; equal ones by id.
pub(super) fn backends(rows: &[BackendRow], order: Order) -> Vec<&BackendRow> {
    let mut rows: Vec<&BackendRow> = rows.iter().collect();
    rows.sort_by(|a, b| {
        let by_name = || (&a.id, &a.address).cmp(&(&b.id, &b.address));
        let first = match order.key {
            Key::Name => by_name(),
            Key::Healthy => fitness(a).cmp(&fitness(b)),
            key => by_traffic(key, &a.traffic, &b.traffic),
        };
        turned(first, order).then_with(by_name)
    });
    rows
}

fn turned(ordering: Ordering, order: Order) -> Ordering {
    if order.reversed {
        ordering.reverse()
    } else {
        ordering
    }
}

/// The highest first; what cannot be said counts as nothing.
fn by_traffic(key: Key, a: &Traffic, b: &Traffic) -> Ordering {
    let value = |of: &Traffic| match key {
        Key::Packets => of.packets_per_second.unwrap_or(0.0),
        Key::Bytes => of.bytes_per_second.unwrap_or(0.0),
        Key::NewFlows => of.new_flows_per_second.unwrap_or(0.0),
        Key::Flows => of.flows as f64,
        Key::Healthy | Key::Name => 0.0,
    };
    value(b).total_cmp(&value(a))
}

/// Part of the backends that are healthy; none is the worst.
fn healthy(of: &ServiceRow) -> f64 {
    f64::from(of.backends_healthy) / f64::from(of.backends.max(1))
}

fn fitness(of: &BackendRow) -> u8 {
    match (of.health.as_str(), of.condition.as_str()) {
        ("unhealthy", _) => 0,
        ("ejected", _) | (_, "ejected") => 1,
        ("unknown", _) => 2,
        (_, "draining" | "maintenance") => 3,
        ("warning", _) => 4,
        (_, "") => 6,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_stand_by_their_key() {
        let row = |name: &str, packets, flows, healthy| ServiceRow {
            name: name.into(),
            traffic: Traffic {
                packets_per_second: packets,
                flows,
                ..Traffic::default()
            },
            backends: 4,
            backends_healthy: healthy,
            ..ServiceRow::default()
        };
        let all = [
            row("a", Some(5.0), 1, 4),
            row("b", None, 3, 0),
            row("c", Some(7.5), 2, 2),
            row("d", Some(0.0), 2, 4),
        ];
        let rows = [
            (Key::Packets, false, "cabd"),
            (Key::Packets, true, "bdac"),
            (Key::Flows, false, "bcda"),
            (Key::Healthy, false, "bcad"),
            (Key::Name, false, "abcd"),
            (Key::Name, true, "dcba"),
            (Key::Bytes, false, "abcd"),
        ];
        for (key, reversed, expected) in rows {
            let sorted = services(&all, Order { key, reversed });
            let names: String = sorted.iter().map(|row| row.name.as_str()).collect();
            assert_eq!(names, expected, "{key:?} {reversed}");
        }
    }

    #[test]
    fn the_worst_backend_stands_first_by_health() {
        let row = |id: &str, health: &str, condition: &str| BackendRow {
            id: id.into(),
            health: health.into(),
            condition: condition.into(),
            ..BackendRow::default()
        };
        let all = [
            row("fine", "healthy", ""),
            row("slow", "healthy", "slow start 40%"),
            row("out", "unhealthy", ""),
            row("drained", "healthy", "draining"),
            row("kicked", "ejected", "ejected"),
        ];
        let order = Order {
            key: Key::Healthy,
            reversed: false,
        };
        let ids: Vec<&str> = backends(&all, order)
            .iter()
            .map(|row| row.id.as_str())
            .collect();
        assert_eq!(ids, ["out", "kicked", "drained", "slow", "fine"]);
    }
}
