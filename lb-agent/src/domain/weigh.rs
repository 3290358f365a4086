//! The effective weight of each backend, and the sentence that explains it.
//!
//! Effective weight = registered weight × slow start × split share × health × drain. A subset's share is
//! divided among its usable backends by their registered weights, so that a 90/10 split is 90/10
//! whatever the number of backends on either side.

mod panic;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::standing::illness;
pub(super) use self::standing::with_detail;
use self::{
    panic::Panic,
    standing::{Standing, standing},
};
use super::{
    backend::{Instance, InstanceId},
    drain::Drain,
    health::Observed,
    passive::Ejection,
    precedence::SplitStack,
    ramp,
    service::ServiceSpec,
    shift::ShiftState,
    snapshot::{BackendState, Held, ServiceState},
    split::{ActiveSplit, Shares},
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
    /// Those that others have taken over from: ill, they are not used however few those are.
    pub replaced: BTreeSet<InstanceId>,
    /// Backends that a person drains.
    pub drains: Option<&'a BTreeMap<InstanceId, Drain>>,
    /// What was said of the split, by whom.
    pub splits: SplitStack,
    /// A shift between subsets, and how it goes.
    pub shift: Option<ShiftState>,
}

/// Units that one percent point of a hundred is divided into among a subset's backends. Times
/// [`Shares::MAX`] it fits a weight.
const SHARE_UNITS: u64 = 100_000;

/// The latest sentence: most backends of a service have the same one.
#[derive(Default)]
struct Said(Arc<str>);

impl Said {
    fn say(&mut self, reason: &str) -> Arc<str> {
        if *self.0 != *reason {
            self.0 = reason.into();
        }
        self.0.clone()
    }
}

/// Weighs the backends of a service.
pub fn weigh(spec: &Arc<ServiceSpec>, inputs: Inputs<'_>) -> ServiceState {
    let split = inputs.splits.in_force().cloned();
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
            reason: Arc::default(),
            instance,
        })
        .collect();
    backends.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));

    // Each family's VIPs have their own backends, and fall back apart.
    let shares = [false, true].map(|v6| {
        let family = backends
            .iter()
            .filter(|backend| backend.address().is_ipv6() == v6);
        split
            .as_ref()
            .map(|split| shares_in_use(spec, split, family))
    });
    let shares_of = |backend: &BackendState| shares[usize::from(backend.address().is_ipv6())];
    let standings: Vec<Standing> = backends
        .iter()
        .map(|backend| {
            let answers = (inputs.answers)(&backend.instance);
            let standing = standing(spec, shares_of(backend), backend, answers);
            match standing {
                Standing::Unhealthy { reason, .. } if inputs.replaced.contains(backend.id()) => {
                    Standing::Out(reason)
                }
                standing => standing,
            }
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
    let mut said = Said::default();
    for (backend, standing) in backends.iter_mut().zip(&standings) {
        if !takes(backend, standing) {
            backend.reason = match standing {
                Standing::Out(reason) | Standing::Unhealthy { reason, .. } => said.say(reason),
                Standing::Usable => Arc::default(),
            };
            continue;
        }
        let registered = backend.instance.weight;
        let own = ramped(backend, ramps);
        let mut base = match (
            shares[usize::from(backend.address().is_ipv6())],
            &backend.subset,
        ) {
            (Some(shares), Some(subset)) => {
                let total = subset_weight[&(subset.clone(), backend.address().is_ipv6())];
                let share = shares.get(subset).unwrap_or(0);
                let units = u64::from(share) * SHARE_UNITS * own / total;
                backend.weight = u32::try_from(units.max(1)).unwrap_or(u32::MAX);
                format!(
                    "subset {subset} has {share} of {}, weight {registered} of {} in it",
                    shares.total(),
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
        let mut reason = match standing {
            Standing::Unhealthy { reason, .. } => {
                format!("{base}; {reason}, but too few backends are healthy, so all are used")
            }
            _ => base,
        };
        if backend.held.is_some() {
            reason.push_str("; gone from the catalog together with most others, kept until its probes fail or the hold ends");
        }
        backend.reason = said.say(&reason);
    }
    ServiceState {
        spec: spec.clone(),
        backends,
        split,
        splits: inputs.splits,
        shift: inputs.shift,
        panic: panic.reigns(),
        pending: false,
        notes: Vec::new(),
        routes: Default::default(),
        steering: Default::default(),
        router: Default::default(),
    }
}

/// The shares of a split that count among these backends: the first, unless none of its backends
/// is usable and there is one of a fallback's.
fn shares_in_use<'a, 'b>(
    spec: &ServiceSpec,
    split: &'a ActiveSplit,
    family: impl Iterator<Item = &'b BackendState> + Clone,
) -> &'a Shares {
    let all = std::iter::once(&split.shares).chain(&split.fallback);
    // Whether an unhealthy one answers makes it no more usable here.
    let is_usable = |shares: &Shares, backend: &BackendState| {
        matches!(
            standing(spec, Some(shares), backend, true),
            Standing::Usable
        )
    };
    all.clone()
        .find(|shares| family.clone().any(|backend| is_usable(shares, backend)))
        .unwrap_or(&split.shares)
}

/// Registered weight, in parts if any backend of the service starts slowly.
fn ramped(backend: &BackendState, ramps: bool) -> u64 {
    let parts = if ramps { ramp::STEPS } else { 1 };
    u64::from(backend.instance.weight) * u64::from(backend.ramp.unwrap_or(parts))
}

#[cfg(test)]
mod tests;
