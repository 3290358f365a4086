//! The effective weight of each backend, and the sentence that explains it.
//!
//! Effective weight = registered weight × slow start × split share × health × drain. A subset's share is
//! divided among its usable backends by their registered weights, so that a 90/10 split is 90/10
//! whatever the number of backends on either side.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    backend::{CatalogHealth, Instance, InstanceId},
    health::Observed,
    passive::{Ejection, Witness},
    ramp,
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
    /// Which of them answer their probes, be it with a failure.
    pub answers: &'a dyn Fn(&Instance) -> bool,
    /// Which of them traffic speaks against.
    pub ejected: &'a dyn Fn(&Instance) -> Option<Ejection>,
    /// How many of [`ramp::STEPS`] parts those take that start slowly.
    pub ramp: &'a dyn Fn(&Instance) -> Option<u32>,
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
            ejection: (inputs.ejected)(&instance),
            ramp: (inputs.ramp)(&instance),
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
        .map(|backend| {
            let answers = (inputs.answers)(&backend.instance);
            standing(spec, split.as_ref(), backend, answers)
        })
        .collect();
    let panic = Panic::of(spec, split.is_some(), &backends, &standings);
    let ramps = backends.iter().any(|backend| backend.ramp.is_some());
    let takes = |backend: &BackendState, standing: &Standing| match standing {
        Standing::Usable => true,
        Standing::Unhealthy { answers, .. } => panic.covers(backend, *answers),
        Standing::Out(_) => false,
    };

    // Registered weight that each subset has to give its share to, by family.
    let mut subset_weight: BTreeMap<(String, bool), u64> = BTreeMap::new();
    for (backend, standing) in backends.iter().zip(&standings) {
        if takes(backend, standing) {
            let subset = backend.subset.clone().unwrap_or_default();
            *subset_weight
                .entry((subset, backend.address().is_ipv6()))
                .or_default() += ramped(backend, ramps);
        }
    }
    for (backend, standing) in backends.iter_mut().zip(&standings) {
        if !takes(backend, standing) {
            backend.reason = match standing {
                Standing::Out(reason) | Standing::Unhealthy { reason, .. } => reason.clone(),
                Standing::Usable => String::new(),
            };
            continue;
        }
        let registered = backend.instance.weight;
        let own = ramped(backend, ramps);
        let mut base = match (&split, &backend.subset) {
            (Some(split), Some(subset)) => {
                let total = subset_weight[&(subset.clone(), backend.address().is_ipv6())];
                let share = split.shares.get(subset).unwrap_or(0);
                let units = u64::from(share) * SHARE_UNITS * own / total;
                backend.weight = u32::try_from(units.max(1)).unwrap_or(u32::MAX);
                format!(
                    "subset {subset} has {share} of {}, weight {registered} of {} in it",
                    split.shares.total(),
                    total.div_ceil(if ramps { ramp::STEPS.into() } else { 1 })
                )
            }
            _ => {
                backend.weight = u32::try_from(own).unwrap_or(u32::MAX);
                format!("weight {registered}")
            }
        };
        if let Some(part) = backend.ramp {
            base.push_str(&format!(
                "; starting slowly, at {} % of its share",
                part * 100 / ramp::STEPS
            ));
        }
        backend.reason = match standing {
            Standing::Unhealthy { reason, .. } => {
                format!("{base}; {reason}, but too few backends are healthy, so all are used")
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
        panic: panic.reigns(),
        pending: false,
    }
}

/// Where too few backends are healthy, so that those that are not are used as well.
///
/// Each family's VIPs have their own backends: they are counted, and panic, apart. Under a split
/// the subsets are apart as well: one that is dead altogether gives its share to the living, which
/// is better than to use it. A backend that does not even answer, by our own probes or by what
/// traffic met, is no help to the few: it is used only where nobody is healthy at all.
struct Panic {
    by_subset: bool,
    /// Families without a healthy backend: all are used.
    none: [bool; 2],
    /// Groups with too few: those that answer are used.
    few: BTreeSet<(bool, String)>,
}

/// Healthy ones, those that are not, and those of them that answer.
#[derive(Clone, Copy, Default)]
struct Count {
    usable: usize,
    unhealthy: usize,
    answering: usize,
}

impl Panic {
    fn of(
        spec: &ServiceSpec,
        by_subset: bool,
        backends: &[BackendState],
        standings: &[Standing],
    ) -> Self {
        let mut panic = Self {
            by_subset,
            none: [false; 2],
            few: BTreeSet::new(),
        };
        let mut groups: BTreeMap<(bool, String), Count> = BTreeMap::new();
        let mut families = [Count::default(); 2];
        for (backend, standing) in backends.iter().zip(standings) {
            let group = groups.entry(panic.group(backend)).or_default();
            let family = &mut families[usize::from(backend.address().is_ipv6())];
            for count in [group, family] {
                match standing {
                    Standing::Usable => count.usable += 1,
                    Standing::Unhealthy { answers, .. } => {
                        count.unhealthy += 1;
                        count.answering += usize::from(*answers);
                    }
                    Standing::Out(_) => {}
                }
            }
        }
        panic.none = families.map(|count| count.usable == 0 && count.unhealthy > 0);
        let few = groups.iter().filter(|(_, count)| {
            let all = count.usable + count.unhealthy;
            let few = count.usable * 100 < all * spec.health.panic as usize;
            few && count.usable > 0 && count.answering > 0
        });
        panic.few = few.map(|(group, _)| group.clone()).collect();
        panic
    }

    fn group(&self, backend: &BackendState) -> (bool, String) {
        let subset = backend.subset.as_ref().filter(|_| self.by_subset);
        (
            backend.address().is_ipv6(),
            subset.cloned().unwrap_or_default(),
        )
    }

    /// Whether an unhealthy backend is used.
    fn covers(&self, backend: &BackendState, answers: bool) -> bool {
        self.none[usize::from(backend.address().is_ipv6())]
            || answers && !self.few.is_empty() && self.few.contains(&self.group(backend))
    }

    fn reigns(&self) -> bool {
        self.none != [false; 2] || !self.few.is_empty()
    }
}

/// Whether a backend may take new flows.
enum Standing {
    /// Yes.
    Usable,
    /// Only if too few others can.
    Unhealthy {
        /// Why.
        reason: String,
        /// It is there to answer, as far as is known.
        answers: bool,
    },
    /// No. Why.
    Out(String),
}

fn standing(
    spec: &ServiceSpec,
    split: Option<&ActiveSplit>,
    backend: &BackendState,
    answers: bool,
) -> Standing {
    let instance = &backend.instance;
    if !spec
        .vips
        .iter()
        .any(|vip| vip.is_ipv6() == instance.address.is_ipv6())
    {
        return Standing::Out("the service has no VIP of its address family".into());
    }
    if let Some(port) = spec
        .kept_port()
        .filter(|port| *port != instance.address.port())
    {
        return Standing::Out(format!(
            "listens on port {}, but {} cannot translate the VIP's port {port}",
            instance.address.port(),
            spec.forwarding.name()
        ));
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
    let ejection = backend.ejection.as_ref();
    let Some(reason) = illness(&instance.health, &backend.observed, ejection) else {
        return Standing::Usable;
    };
    let silent = matches!(backend.observed, Observed::Unhealthy { .. }) && !answers;
    // The flow tables tell of connections that were not accepted, the proxy of requests.
    let refuses = ejection.is_some_and(|ejection| ejection.witness == Witness::Flows);
    Standing::Unhealthy {
        reason,
        answers: !silent && !refuses,
    }
}

/// Why a backend counts as unhealthy; `None`: it does not.
pub fn illness(
    catalog: &CatalogHealth,
    observed: &Observed,
    ejection: Option<&Ejection>,
) -> Option<String> {
    if let Observed::Unhealthy { reason, .. } = observed {
        return Some(with_detail("its probes fail", reason));
    }
    if let CatalogHealth::Critical(detail) = catalog {
        return Some(with_detail("critical in the catalog", detail));
    }
    ejection.map(|ejection| with_detail("ejected for a while", &ejection.reason))
}

/// Registered weight, in parts if any backend of the service starts slowly.
fn ramped(backend: &BackendState, ramps: bool) -> u64 {
    let parts = if ramps { ramp::STEPS } else { 1 };
    u64::from(backend.instance.weight) * u64::from(backend.ramp.unwrap_or(parts))
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() {
        what.into()
    } else {
        format!("{what}: {detail}")
    }
}

#[cfg(test)]
mod tests;
