//! Shifts among the facts: which split each service has, and what the gates see.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use super::{super::OperatorError, Desired, consul_name};
use crate::domain::{
    backend::CatalogHealth,
    gate::{Readings, Sight},
    precedence::SplitStack,
    service::ServiceSpec,
    shift::{Phase, Shift, Steering, Turn},
    snapshot::{BackendState, ServiceState},
    split::{ActiveSplit, SplitSource},
};

/// Shifts of a former agent.
pub(super) fn resumed(saved: &BTreeMap<String, Shift>) -> BTreeMap<String, Steering> {
    let now = SystemTime::now();
    let resume =
        |(name, shift): (&String, &Shift)| (name.clone(), Steering::resumed(shift.clone(), now));
    saved.iter().map(resume).collect()
}

impl Desired {
    /// All that is said of a service's split: the one place where sources of splits come together.
    pub(super) fn stack(&self, spec: &ServiceSpec) -> SplitStack {
        let name = &spec.name;
        let fallback = || self.fallbacks.get(name).cloned().unwrap_or_default();
        let shift = self.shifts.get(name).map(|steering| {
            let shift = steering.shift();
            ActiveSplit {
                shares: shift.shares.clone(),
                source: SplitSource::Cli,
                origin: format!("shift to {}, {}", shift.subset, shift.phase.name()),
                fallback: fallback(),
            }
        });
        let by_hand = self.splits.get(name).map(|shares| ActiveSplit {
            shares: shares.clone(),
            source: SplitSource::Cli,
            origin: "split set".into(),
            fallback: fallback(),
        });
        let of_catalog = |source, name: Option<&str>| {
            let splits = self.catalog.splits.get(&source)?;
            splits.get(name?).cloned()
        };
        let said = [
            shift,
            by_hand,
            of_catalog(SplitSource::Kv, Some(name)),
            of_catalog(SplitSource::Splitter, consul_name(spec)),
        ];
        SplitStack::of(spec, said.into_iter().flatten())
    }

    /// Services whose gates look.
    pub(crate) fn watched(&self) -> BTreeSet<String> {
        let watched = self
            .shifts
            .iter()
            .filter(|(_, steering)| steering.shift().is_watched());
        watched.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn shifts_to_save(&self) -> BTreeMap<String, Shift> {
        let shifts = self.shifts.iter();
        shifts
            .map(|(name, steering)| (name.clone(), steering.shift().clone()))
            .collect()
    }

    /// Lets every gate look; answers with what came of it.
    pub(crate) fn look(
        &mut self,
        now: SystemTime,
        counted: u64,
        mut readings: impl FnMut(&ServiceState) -> Readings,
    ) -> Vec<(String, Turn)> {
        let snapshot = self.snapshot.clone();
        let mut turns = Vec::new();
        for (name, steering) in &mut self.shifts {
            if !steering.shift().is_watched() {
                continue;
            }
            // While its split is not in force, nothing is to be learned of it.
            let shares = &steering.shift().shares;
            let in_force = snapshot.services.get(name).filter(|state| {
                let split = state.split.as_ref();
                !state.pending && split.is_some_and(|split| split.shares == *shares)
            });
            let Some(state) = in_force else {
                steering.pause();
                continue;
            };
            let sight = Sight {
                counted,
                ..sight(state, &steering.shift().subset, readings(state))
            };
            if let Some(turn) = steering.look(&state.spec.gate, now, &sight) {
                if matches!(turn, Turn::Returned(_)) {
                    *self.returns.entry(name.clone()).or_default() += 1;
                }
                turns.push((name.clone(), turn));
            }
        }
        turns
    }

    /// Refuses to change the split of a service whose traffic was given back.
    pub(crate) fn check_latch(&self, service: &str) -> Result<(), OperatorError> {
        match self.shifts.get(service).map(Steering::shift) {
            Some(shift) if shift.is_latched() => Err(OperatorError::Refused(format!(
                "not done: the traffic of service `{service}` was taken back from {}; \
                 acknowledge that first with `lb-agent split ack {service}`",
                shift.subset
            ))),
            _ => Ok(()),
        }
    }

    /// Traffic that was given back, each in a sentence.
    pub(crate) fn returned(&self) -> impl Iterator<Item = String> {
        self.shifts.iter().filter_map(|(name, steering)| {
            let shift = steering.shift();
            let Phase::Returned { reason, .. } = &shift.phase else {
                return None;
            };
            Some(format!(
                "service {name}: traffic was taken back from {}, to the last good shares {}: {reason}; they stay until `lb-agent split ack {name}`",
                shift.subset, shift.base
            ))
        })
    }
}

/// A service as seen from one of its subsets.
fn sight(state: &ServiceState, subset: &str, mut readings: Readings) -> Sight {
    let is_own = |backend: &BackendState| backend.subset.as_deref() == Some(subset);
    let mut sight = Sight::default();
    let (mut healthy, mut all) = (0_u64, 0_u64);
    for backend in &state.backends {
        let key = (backend.id().clone(), backend.address());
        let outcomes = readings.remove(&key).unwrap_or_default();
        if !is_own(backend) {
            if backend.weight > 0 {
                sight.rest.insert(key, outcomes);
            }
            continue;
        }
        sight.subset.insert(key, outcomes);
        // What a person takes out says nothing of the subset.
        let maintained = matches!(backend.instance.health, CatalogHealth::Maintenance(_));
        if backend.drain.is_none() && !maintained {
            let weight = u64::from(backend.instance.weight);
            all += weight;
            healthy += if backend.is_dead() { 0 } else { weight };
        }
    }
    if all > 0 {
        sight.healthy = healthy as f64 / all as f64;
    }
    sight
}
