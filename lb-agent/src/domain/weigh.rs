//! The effective weight of each backend, and the sentence that explains it.
//!
//! Effective weight = registered weight × split share × health × drain. A subset's share is
//! divided among its usable backends by their registered weights, so that a 90/10 split is 90/10
//! whatever the number of backends on either side.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    backend::{CatalogHealth, Instance, InstanceId},
    health::Observed,
    service::ServiceSpec,
    snapshot::{BackendState, Drain, Held, ServiceState},
    split::{ActiveSplit, Shares, SplitSource},
};

/// Everything that decides on the weights of one service, besides its specification.
pub struct Inputs<'a> {
    /// The instances in use; those that the catalog no longer lists carry why they are kept.
    pub instances: Vec<(Instance, Option<Held>)>,
    /// What the agent's probes say.
    pub observed: &'a dyn Fn(&Instance) -> Observed,
    /// Backends that a person drains.
    pub drains: Option<&'a BTreeMap<InstanceId, Drain>>,
    /// Shares that a person set.
    pub cli_split: Option<&'a Shares>,
}

/// Units that one percent point of a hundred is divided into among a subset's backends. Times
/// [`Shares::MAX`] it fits a weight.
const SHARE_UNITS: u64 = 100_000;

/// Weighs the backends of a service.
pub fn weigh(spec: &Arc<ServiceSpec>, inputs: Inputs<'_>) -> ServiceState {
    let split = match (inputs.cli_split, &spec.split) {
        (Some(shares), _) => Some(ActiveSplit {
            shares: shares.clone(),
            source: SplitSource::Cli,
        }),
        (None, Some(shares)) => Some(ActiveSplit {
            shares: shares.clone(),
            source: SplitSource::File,
        }),
        (None, None) => None,
    };
    let mut backends: Vec<BackendState> = inputs
        .instances
        .into_iter()
        .map(|(instance, held)| BackendState {
            subset: spec.subset_of(&instance),
            observed: (inputs.observed)(&instance),
            drain: inputs
                .drains
                .and_then(|drains| drains.get(&instance.id))
                .cloned(),
            held,
            weight: 0,
            reason: String::new(),
            instance,
        })
        .collect();
    backends.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));

    let standings: Vec<Standing> = backends
        .iter()
        .map(|backend| standing(spec, split.as_ref(), backend))
        .collect();
    // Each family's VIPs have their own backends: they are counted, and panic, apart.
    let in_panic = [false, true].map(|v6| {
        let family = || {
            let all = backends.iter().zip(&standings);
            all.filter(move |(backend, _)| backend.address().is_ipv6() == v6)
                .map(|(_, standing)| standing)
        };
        !family().any(|standing| matches!(standing, Standing::Usable))
            && family().any(|standing| matches!(standing, Standing::Unhealthy(_)))
    });
    let takes = |backend: &BackendState, standing: &Standing| match standing {
        Standing::Usable => true,
        Standing::Unhealthy(_) => in_panic[usize::from(backend.address().is_ipv6())],
        Standing::Out(_) => false,
    };

    // Registered weight that each subset has to give its share to, by family.
    let mut subset_weight: BTreeMap<(String, bool), u64> = BTreeMap::new();
    for (backend, standing) in backends.iter().zip(&standings) {
        if takes(backend, standing) {
            let subset = backend.subset.clone().unwrap_or_default();
            *subset_weight
                .entry((subset, backend.address().is_ipv6()))
                .or_default() += u64::from(backend.instance.weight);
        }
    }
    for (backend, standing) in backends.iter_mut().zip(&standings) {
        if !takes(backend, standing) {
            backend.reason = match standing {
                Standing::Out(reason) | Standing::Unhealthy(reason) => reason.clone(),
                Standing::Usable => String::new(),
            };
            continue;
        }
        let registered = backend.instance.weight;
        let base = match (&split, &backend.subset) {
            (Some(split), Some(subset)) => {
                let total = subset_weight[&(subset.clone(), backend.address().is_ipv6())];
                let share = split.shares.get(subset).unwrap_or(0);
                let units = u64::from(share) * SHARE_UNITS * u64::from(registered) / total;
                backend.weight = u32::try_from(units.max(1)).unwrap_or(u32::MAX);
                format!(
                    "subset {subset} has {share} of {}, weight {registered} of {total} in it",
                    split.shares.total()
                )
            }
            _ => {
                backend.weight = registered;
                format!("weight {registered}")
            }
        };
        backend.reason = match standing {
            Standing::Unhealthy(reason) => {
                format!("{base}; {reason}, but no backend is healthy, so all are used")
            }
            _ => base,
        };
        if backend.held.is_some() {
            backend.reason.push_str("; gone from the catalog together with most others, kept until its probes fail or the hold ends");
        }
    }
    ServiceState {
        spec: spec.clone(),
        backends,
        split,
        panic: in_panic[0] || in_panic[1],
        pending: false,
    }
}

/// Whether a backend may take new flows.
enum Standing {
    /// Yes.
    Usable,
    /// Only if nobody else can. Why.
    Unhealthy(String),
    /// No. Why.
    Out(String),
}

fn standing(spec: &ServiceSpec, split: Option<&ActiveSplit>, backend: &BackendState) -> Standing {
    let instance = &backend.instance;
    if !spec
        .vips
        .iter()
        .any(|vip| vip.is_ipv6() == instance.address.is_ipv6())
    {
        return Standing::Out("the service has no VIP of its address family".into());
    }
    if backend.drain.is_some() {
        return Standing::Out("drained by an operator".into());
    }
    if let CatalogHealth::Maintenance(reason) = &instance.health {
        return Standing::Out(with_detail("in maintenance", reason));
    }
    if instance.weight == 0 {
        return Standing::Out("registered with weight 0".into());
    }
    if let Some(split) = split {
        match &backend.subset {
            None => return Standing::Out("belongs to no subset, and a split is in force".into()),
            Some(subset) => match split.shares.get(subset) {
                None => {
                    return Standing::Out(format!("the split gives subset {subset} no share"));
                }
                Some(0) => {
                    return Standing::Out(format!("the split gives subset {subset} a share of 0"));
                }
                Some(_) => {}
            },
        }
    }
    if let Observed::Unhealthy { reason, .. } = &backend.observed {
        return Standing::Unhealthy(with_detail("its probes fail", reason));
    }
    if let CatalogHealth::Critical(detail) = &instance.health {
        return Standing::Unhealthy(with_detail("critical in the catalog", detail));
    }
    Standing::Usable
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() {
        what.into()
    } else {
        format!("{what}: {detail}")
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::SystemTime};

    use super::*;
    use crate::domain::service::{Catalog, Forwarding, Origin, Protocol};

    /// A row: address, subset, registered weight, and what is special about it.
    #[derive(Clone, Copy)]
    enum Special {
        None,
        Critical,
        ProbeFails,
        Maintenance,
        Drained,
    }
    use Special::{Critical, Drained, Maintenance, ProbeFails};

    fn weights(
        rows: &[(&str, u32, Special)],
        file: Option<&str>,
        cli: Option<&str>,
    ) -> ServiceState {
        let shares = |text: Option<&str>| {
            text.map(|text| Shares::parse(&text.split(' ').collect::<Vec<_>>()).unwrap())
        };
        let spec = Arc::new(ServiceSpec {
            name: "echo".into(),
            vips: vec!["198.51.100.10:80".parse().unwrap()],
            protocol: Protocol::Tcp,
            forwarding: Forwarding::Nat,
            catalog: Catalog::Static(Vec::new()),
            subsets: BTreeMap::new(),
            split: shares(file),
            probe: None,
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
                let id = InstanceId(format!("n/{index}"));
                if matches!(special, Drained) {
                    drains.insert(
                        id.clone(),
                        Drain {
                            since: SystemTime::UNIX_EPOCH,
                        },
                    );
                }
                let instance = Instance {
                    id,
                    address: ([10, 0, 0, index as u8], 80).into(),
                    weight: *weight,
                    tags: Vec::new(),
                    meta: BTreeMap::new(),
                    subset: (!subset.is_empty()).then(|| (*subset).to_owned()),
                    health: match special {
                        Critical => CatalogHealth::Critical("serfHealth".into()),
                        Maintenance => CatalogHealth::Maintenance("kernel upgrade".into()),
                        _ => CatalogHealth::Passing,
                    },
                };
                (instance, None)
            })
            .collect();
        let failing: Vec<bool> = rows.iter().map(|row| matches!(row.2, ProbeFails)).collect();
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
        let cli = shares(cli);
        weigh(
            &spec,
            Inputs {
                instances,
                observed: &observed,
                drains: Some(&drains),
                cli_split: cli.as_ref(),
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
    #[test]
    fn shares_by_the_table() {
        let n = Special::None;
        type Row<'a> = (
            &'a [(&'a str, u32, Special)],
            Option<&'a str>,
            Option<&'a str>,
            &'a [u64],
            bool,
            &'a str,
        );
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
        for (index, (backends, file, cli, expected, panic, word)) in rows.iter().enumerate() {
            let state = weights(backends, *file, *cli);
            assert_eq!(permille(&state), *expected, "row {index}");
            assert_eq!(state.panic, *panic, "row {index}");
            let reason = &state.backends.last().unwrap().reason;
            assert!(reason.contains(word), "row {index}: {reason}");
        }
    }

    /// Each family's backends share among themselves.
    #[test]
    fn families_are_apart() {
        let mut spec = ServiceSpec::clone(&weights(&[], Some("a=90 b=10"), None).spec);
        spec.vips.push("[2001:db8::1]:80".parse().unwrap());
        let instances = [
            ("a", "10.0.0.1:80"),
            ("a", "10.0.0.2:80"),
            ("b", "10.0.0.3:80"),
        ]
        .into_iter()
        .chain([
            ("a", "[fd00::1]:80"),
            ("b", "[fd00::2]:80"),
            ("b", "[fd00::3]:80"),
        ])
        .map(|(subset, address)| {
            let instance = Instance {
                id: InstanceId(address.into()),
                address: address.parse().unwrap(),
                weight: 1,
                tags: Vec::new(),
                meta: BTreeMap::new(),
                subset: Some(subset.into()),
                health: if address.starts_with('[') {
                    CatalogHealth::Critical(String::new())
                } else {
                    CatalogHealth::Passing
                },
            };
            (instance, None)
        })
        .collect();
        let state = weigh(
            &Arc::new(spec),
            Inputs {
                instances,
                observed: &|_| Observed::Unknown,
                drains: None,
                cli_split: None,
            },
        );
        let of = |v6: bool| -> Vec<u32> {
            let all = state
                .backends
                .iter()
                .filter(|b| b.address().is_ipv6() == v6);
            all.map(|backend| backend.weight / SHARE_UNITS as u32)
                .collect()
        };
        assert_eq!(of(false), [45, 45, 10]);
        assert_eq!(of(true), [90, 5, 5]);
        assert!(state.panic);
    }

    /// The largest shares and weights do not overflow, the smallest do not vanish.
    #[test]
    fn extremes() {
        let state = weights(
            &[("a", 65_535, Special::None), ("a", 1, Special::None)],
            Some("a=10000"),
            None,
        );
        assert!(state.backends[0].weight > 900_000_000);
        assert!(state.backends[1].weight > 0);
    }
}
