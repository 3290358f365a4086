//! The effective weight of each backend, and the sentence that explains it.
//!
//! Effective weight = registered weight × split share × health × drain. A subset's share is
//! divided among its usable backends by their registered weights, so that a 90/10 split is 90/10
//! whatever the number of backends on either side.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    backend::{CatalogHealth, Instance, InstanceId},
    health::Observed,
    precedence::SplitStack,
    service::ServiceSpec,
    shift::ShiftState,
    snapshot::{BackendState, Drain, Held, ServiceState},
    split::{ActiveSplit, Shares},
};

/// Everything that decides on the weights of one service, besides its specification.
pub struct Inputs<'a> {
    /// The instances in use; those that the catalog no longer lists carry why they are kept.
    pub instances: Vec<(Instance, Option<Held>)>,
    /// What the agent's probes say.
    pub observed: &'a dyn Fn(&Instance) -> Observed,
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

/// Weighs the backends of a service.
pub fn weigh(spec: &Arc<ServiceSpec>, inputs: Inputs<'_>) -> ServiceState {
    let split = inputs.splits.in_force().cloned();
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
        .map(|backend| standing(spec, shares_of(backend), backend))
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
        let base = match (
            shares[usize::from(backend.address().is_ipv6())],
            &backend.subset,
        ) {
            (Some(shares), Some(subset)) => {
                let total = subset_weight[&(subset.clone(), backend.address().is_ipv6())];
                let share = shares.get(subset).unwrap_or(0);
                let units = u64::from(share) * SHARE_UNITS * u64::from(registered) / total;
                backend.weight = u32::try_from(units.max(1)).unwrap_or(u32::MAX);
                format!(
                    "subset {subset} has {share} of {}, weight {registered} of {total} in it",
                    shares.total()
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
        splits: inputs.splits,
        shift: inputs.shift,
        panic: in_panic[0] || in_panic[1],
        pending: false,
        notes: Vec::new(),
        routes: Default::default(),
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

/// The shares of a split that count among these backends: the first, unless none of its backends
/// is usable and there is one of a fallback's.
fn shares_in_use<'a, 'b>(
    spec: &ServiceSpec,
    split: &'a ActiveSplit,
    family: impl Iterator<Item = &'b BackendState> + Clone,
) -> &'a Shares {
    let all = std::iter::once(&split.shares).chain(&split.fallback);
    let usable = |shares: &&Shares| {
        family
            .clone()
            .any(|backend| matches!(standing(spec, Some(shares), backend), Standing::Usable))
    };
    all.clone().find(usable).unwrap_or(&split.shares)
}

fn standing(spec: &ServiceSpec, shares: Option<&Shares>, backend: &BackendState) -> Standing {
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
    if let Some(shares) = shares {
        match &backend.subset {
            None => return Standing::Out("belongs to no subset, and a split is in force".into()),
            Some(subset) => match shares.get(subset) {
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
mod tests;
