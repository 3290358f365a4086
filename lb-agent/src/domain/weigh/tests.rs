//! Tests of `weigh`.

mod fallback;
mod families;
mod health;
mod ports;
use std::{path::PathBuf, time::SystemTime};

use super::*;
use crate::domain::{
    backend::CatalogHealth,
    passive::Witness,
    service::{Catalog, Forwarding, HealthPolicy, Origin, Protocol},
    split::SplitSource,
};

/// A row: address, subset, registered weight, and what is special about it.
#[derive(Clone, Copy)]
enum Special {
    None,
    Critical,
    /// It does not answer.
    ProbeFails,
    /// It answers that it is ill.
    Ill,
    Maintenance,
    Drained,
    Ejected,
    /// At so many tenths of its share.
    Starting(u32),
}
use Special::{Critical, Drained, Ejected, Ill, Maintenance, ProbeFails, Starting};

fn by_hand(shares: Shares, fallback: Vec<Shares>) -> ActiveSplit {
    ActiveSplit {
        shares,
        source: SplitSource::Cli,
        origin: "by hand".into(),
        fallback,
    }
}

/// Instances that nobody has observed or drained.
fn unobserved(instances: Vec<(Instance, Option<Held>)>, splits: SplitStack) -> Inputs<'static> {
    Inputs {
        instances,
        observed: &|_| Observed::Unknown,
        answers: &|_| false,
        ejected: &|_| None,
        ramp: &|_| None,
        replaced: BTreeSet::new(),
        drains: None,
        splits,
        shift: None,
    }
}

fn weights(rows: &[(&str, u32, Special)], file: Option<&str>, cli: Option<&str>) -> ServiceState {
    let shares = |text: Option<&str>| {
        text.map(|text| Shares::parse(&text.split(' ').collect::<Vec<_>>()).unwrap())
    };
    let spec = Arc::new(ServiceSpec {
        name: "echo".into(),
        vips: vec!["198.51.100.10:80".parse().unwrap()],
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Nat,
        affinity: Default::default(),
        allow: None,
        catalog: Catalog::Static(Vec::new()),
        subsets: ["a", "b", "c", "v1", "v2", "v3"]
            .map(|name| (name.to_owned(), Default::default()))
            .into(),
        split: shares(file),
        probe: None,
        gate: Default::default(),
        health: Default::default(),
        http: Default::default(),
        origin: Origin {
            file: PathBuf::from("test"),
            line: 1,
        },
    });
    let mut drains = BTreeMap::new();
    let instances = rows
        .iter()
        .enumerate()
        .map(|(index, (subset, weight, special))| {
            let id = InstanceId(format!("n/{index}").into());
            if matches!(special, Drained) {
                drains.insert(id.clone(), Drain::begun(SystemTime::UNIX_EPOCH));
            }
            let instance = Instance {
                id,
                address: ([10, 0, 0, index as u8], 80).into(),
                weight: *weight,
                tags: Default::default(),
                meta: Default::default(),
                subset: (!subset.is_empty()).then(|| (*subset).to_owned()),
                detail: None,
                health: match special {
                    Critical => CatalogHealth::Critical("serfHealth".into()),
                    Maintenance => CatalogHealth::Maintenance("kernel upgrade".into()),
                    _ => CatalogHealth::Passing,
                },
            };
            (instance, None)
        })
        .collect();
    let failing: Vec<bool> = rows
        .iter()
        .map(|row| matches!(row.2, ProbeFails | Ill))
        .collect();
    let observed = |instance: &Instance| {
        let index: usize = instance.id.0[2..].parse().unwrap();
        if failing[index] {
            Observed::Unhealthy {
                since: SystemTime::UNIX_EPOCH,
                reason: "connection refused".into(),
            }
        } else {
            Observed::Unknown
        }
    };
    let special = |instance: &Instance| {
        let index: usize = instance.id.0[2..].parse().unwrap();
        rows[index].2
    };
    let ejected = |instance: &Instance| {
        matches!(special(instance), Ejected).then(|| Ejection {
            since: SystemTime::UNIX_EPOCH,
            until: SystemTime::UNIX_EPOCH,
            nth: 1,
            reason: "5 connections in a row failed".into(),
            witness: Witness::Flows,
        })
    };
    let ramp = |instance: &Instance| match special(instance) {
        Starting(part) => Some(part),
        _ => None,
    };
    let cli = shares(cli).map(|shares| by_hand(shares, Vec::new()));
    weigh(
        &spec,
        Inputs {
            instances,
            observed: &observed,
            answers: &|instance| matches!(special(instance), Ill),
            ejected: &ejected,
            ramp: &ramp,
            replaced: Default::default(),
            drains: Some(&drains),
            splits: SplitStack::of(&spec, cli),
            shift: None,
        },
    )
}

/// Each backend's share of the whole, in tenths of a percent.
fn permille(state: &ServiceState) -> Vec<u64> {
    let total: u64 = state
        .backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    state
        .backends
        .iter()
        .map(|backend| u64::from(backend.weight) * 1000 / total.max(1))
        .collect()
}

/// Rows: backends, file split, CLI split, expected shares in permille, panic, a word from the
/// reason of the last backend.
type Row<'a> = (
    &'a [(&'a str, u32, Special)],
    Option<&'a str>,
    Option<&'a str>,
    &'a [u64],
    bool,
    &'a str,
);

fn check(rows: &[Row<'_>]) {
    for (index, (backends, file, cli, expected, panic, word)) in rows.iter().enumerate() {
        let state = weights(backends, *file, *cli);
        assert_eq!(permille(&state), *expected, "row {index}");
        assert_eq!(state.panic, *panic, "row {index}");
        let reason = &state.backends.last().unwrap().reason;
        assert!(reason.contains(word), "row {index}: {reason}");
    }
}

#[test]
fn shares_by_the_table() {
    let n = Special::None;
    let rows: &[Row<'_>] = &[
        (
            &[("", 1, n), ("", 3, n)],
            None,
            None,
            &[250, 750],
            false,
            "weight 3",
        ),
        (
            &[("", 1, n), ("", 3, ProbeFails)],
            None,
            None,
            &[1000, 0],
            false,
            "connection refused",
        ),
        (
            &[("", 1, n), ("", 3, Critical)],
            None,
            None,
            &[1000, 0],
            false,
            "serfHealth",
        ),
        (
            &[("", 1, n), ("", 3, Maintenance)],
            None,
            None,
            &[1000, 0],
            false,
            "kernel upgrade",
        ),
        (
            &[("", 1, n), ("", 3, Drained)],
            None,
            None,
            &[1000, 0],
            false,
            "drained",
        ),
        (
            &[("", 1, n), ("", 0, n)],
            None,
            None,
            &[1000, 0],
            false,
            "weight 0",
        ),
        (
            &[("", 1, Critical), ("", 1, ProbeFails)],
            None,
            None,
            &[500, 500],
            true,
            "so all are used",
        ),
        (
            &[("", 1, Drained), ("", 1, ProbeFails)],
            None,
            None,
            &[0, 1000],
            true,
            "so all are used",
        ),
        (
            &[("", 1, Drained), ("", 1, Drained)],
            None,
            None,
            &[0, 0],
            false,
            "drained",
        ),
        (
            &[("a", 1, n), ("a", 1, n), ("b", 1, n)],
            Some("a=90 b=10"),
            None,
            &[450, 450, 100],
            false,
            "10 of 100",
        ),
        (
            &[("a", 1, n), ("a", 2, n), ("b", 1, n)],
            Some("a=90 b=10"),
            None,
            &[300, 600, 100],
            false,
            "10 of 100",
        ),
        (
            &[("a", 1, n), ("b", 1, n)],
            Some("a=90 b=10"),
            Some("a=1 b=1"),
            &[500, 500],
            false,
            "1 of 2",
        ),
        (
            &[("a", 1, n), ("b", 1, n)],
            None,
            Some("a=100"),
            &[1000, 0],
            false,
            "no share",
        ),
        (
            &[("a", 1, n), ("b", 1, n)],
            None,
            Some("a=1 b=0"),
            &[1000, 0],
            false,
            "share of 0",
        ),
        (
            &[("a", 1, n), ("", 1, n)],
            None,
            Some("a=100"),
            &[1000, 0],
            false,
            "no subset",
        ),
        // A dead subset's share goes to the living.
        (
            &[("a", 1, n), ("b", 1, ProbeFails)],
            Some("a=10 b=90"),
            None,
            &[1000, 0],
            false,
            "refused",
        ),
        (
            &[("a", 1, n), ("a", 1, Critical), ("b", 1, n)],
            Some("a=50 b=50"),
            None,
            &[500, 0, 500],
            false,
            "50 of 100",
        ),
        // All subsets dead: all that have a share are used.
        (
            &[("a", 1, ProbeFails), ("b", 1, ProbeFails), ("c", 1, n)],
            Some("a=50 b=50"),
            None,
            &[500, 500, 0],
            true,
            "no share",
        ),
    ];
    check(rows);
}
