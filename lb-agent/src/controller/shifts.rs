//! Splits as people set, shift, promote and roll them back, and as the agent gives them back.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use super::{Controller, Counters, OperatorError, desired::Desired, steady, vanished};
use crate::domain::{
    dtab::{self, Dentry},
    gate::{Outcomes, Readings},
    kernel::Kernel,
    shift::{Phase, Shift, ShiftOrder, ShiftState, Steering, Turn},
    snapshot::ServiceState,
    split::{ActiveSplit, Shares},
};

/// How long a slow disk may keep clients from the good shares.
const DISK: Duration = Duration::from_secs(1);

impl<K: Kernel> Controller<K> {
    /// Lets the gates look, and tells what came of it; answers whether shares have changed.
    pub(super) fn steer(&mut self, now: SystemTime) -> bool {
        let counted = self.kernel.census().pass;
        let requests = self.desired.watched_requests();
        let (kernel, witnesses) = (&mut self.kernel, &self.setup.witnesses);
        let readings = |state: &ServiceState| -> Readings {
            let by_address = kernel.outcomes(&state.spec.name);
            let mut readings = Readings::new();
            let requests = requests.get(&state.spec.name);
            for backend in &state.backends {
                let address = backend.address();
                let connections = by_address.get(&address).copied();
                let requests = requests.and_then(|all| all.get(&address)).copied();
                if let Some(outcomes) = connections
                    .into_iter()
                    .chain(requests)
                    .reduce(Outcomes::plus)
                {
                    readings.insert((backend.id().clone(), address), outcomes);
                }
            }
            for witness in witnesses {
                for (backend, outcomes) in witness.outcomes(&state.spec.name) {
                    let sum = readings.entry(backend).or_default();
                    *sum = sum.plus(outcomes);
                }
            }
            readings
        };
        let turns = self.desired.look(now, counted, readings);
        for (service, turn) in &turns {
            let Some(shift) = self.desired.shifts.get(service).map(Steering::shift) else {
                continue;
            };
            let (subset, shares) = (&shift.subset, &shift.shares);
            match turn {
                Turn::Stepped => info!(service, subset, %shares, "traffic shifted by a step"),
                Turn::WindowFailed(failed, reason) => {
                    warn!(
                        service,
                        subset, failed, "a window of the gate failed: {reason}"
                    );
                }
                Turn::Returned(reason) => warn!(
                    service, subset, %shares,
                    "traffic taken back, to the last good shares, until acknowledged: {reason}"
                ),
            }
        }
        turns
            .iter()
            .any(|(_, turn)| !matches!(turn, Turn::WindowFailed(..)))
    }

    /// Waits until the shifts are on disk. A return that only this agent remembers would end with
    /// it, and the next agent would shift traffic to the bad subset again.
    pub(super) async fn wait_for_disk(&mut self) {
        let shifts = self.desired.shifts_to_save();
        let saved = self.channels.saved.wait_for(|saved| *saved == shifts);
        // An error: nobody saves anything, at the agent's end.
        if tokio::time::timeout(DISK, saved).await.is_err() {
            warn!("traffic is taken back before that is on disk, which takes too long");
        }
    }

    pub(super) fn counters(&self, only: Option<&str>) -> Result<Counters, OperatorError> {
        let mut counters = self.kernel.counters(&self.desired.snapshot(), only)?;
        counters.returns = self.desired.returns.clone();
        counters.ejections = self.desired.ejections();
        Ok(counters)
    }

    pub(super) async fn set_split(
        &mut self,
        service: &str,
        shares: Shares,
    ) -> Result<Option<ActiveSplit>, OperatorError> {
        self.desired.check_split(service, &shares)?;
        self.desired.check_latch(service)?;
        info!(service, %shares, "split set on the command line");
        self.desired.shifts.remove(service);
        self.desired.fallbacks.remove(service);
        self.desired.splits.insert(service.to_owned(), shares);
        self.after_change(service, Desired::split_of).await
    }

    pub(super) async fn reset_split(
        &mut self,
        service: &str,
    ) -> Result<Option<ActiveSplit>, OperatorError> {
        self.desired.check_service(service)?;
        self.desired.check_latch(service)?;
        info!(service, "split of the command line forgotten");
        self.forget_split(service);
        self.after_change(service, Desired::split_of).await
    }

    fn forget_split(&mut self, service: &str) {
        self.desired.shifts.remove(service);
        self.desired.fallbacks.remove(service);
        self.desired.splits.remove(service);
    }

    pub(super) async fn shift(
        &mut self,
        service: &str,
        order: &ShiftOrder,
    ) -> Result<ShiftState, OperatorError> {
        order.check()?;
        let all_of_it = Shares::new([(order.subset.clone(), 1)].into())
            .map_err(|error| OperatorError::Refused(error.to_string()))?;
        self.desired.check_split(service, &all_of_it)?;
        self.desired.check_latch(service)?;
        let now = steady::now();
        let in_force = self.desired.split_of(service).ok_or_else(|| {
            OperatorError::Refused(format!(
                "not done: service `{service}` has no split that could be shifted; set one first, \
                 such as `lb-agent split set {service} OLD=100 {}=0`",
                order.subset
            ))
        })?;
        match self.desired.shifts.get_mut(service) {
            Some(steering) if steering.shift().is_watched() => {
                let under_way = steering.shift().subset.clone();
                if under_way != order.subset {
                    return Err(OperatorError::Refused(format!(
                        "not done: traffic of service `{service}` is being shifted to {under_way}; \
                         end that first with `lb-agent split promote {service}` or `… rollback {service}`"
                    )));
                }
                steering.try_change(|shift| shift.head_for(order, now))?;
            }
            _ => {
                let shift = Shift::begin(order, &in_force.shares, now)?;
                self.settle(service);
                self.desired
                    .shifts
                    .insert(service.to_owned(), Steering::new(shift));
            }
        }
        info!(
            service,
            subset = order.subset,
            to = order.to,
            "a shift begins"
        );
        self.after_change(service, shift_of)
            .await?
            .ok_or_else(vanished)
    }

    /// Makes the shares of a promoted shift, which is about to be replaced, an ordinary split.
    fn settle(&mut self, service: &str) {
        let Some(steering) = self.desired.shifts.remove(service) else {
            return;
        };
        let Shift { shares, phase, .. } = steering.shift().clone();
        if matches!(phase, Phase::Promoted { .. }) {
            self.desired.splits.insert(service.to_owned(), shares);
        }
    }

    pub(super) async fn promote(&mut self, service: &str) -> Result<ShiftState, OperatorError> {
        self.desired.check_service(service)?;
        self.desired.check_latch(service)?;
        let now = steady::now();
        let steering = under_way(&mut self.desired, service)?;
        steering.change(|shift| shift.promote(now));
        info!(service, subset = steering.shift().subset, "promoted");
        self.after_change(service, shift_of)
            .await?
            .ok_or_else(vanished)
    }

    pub(super) async fn roll_back(
        &mut self,
        service: &str,
    ) -> Result<Option<ActiveSplit>, OperatorError> {
        self.desired.check_service(service)?;
        self.desired.check_latch(service)?;
        let shift = under_way(&mut self.desired, service)?.shift().clone();
        info!(service, subset = shift.subset, shares = %shift.base, "rolled back on the command line");
        self.desired.shifts.remove(service);
        self.keep_base(service, shift.base);
        self.after_change(service, Desired::split_of).await
    }

    pub(super) async fn acknowledge(
        &mut self,
        service: &str,
    ) -> Result<Option<ActiveSplit>, OperatorError> {
        self.desired.check_service(service)?;
        match self.desired.shifts.get(service).map(Steering::shift) {
            Some(shift) if shift.is_latched() => {
                let base = shift.base.clone();
                info!(service, "the return of its traffic is acknowledged");
                self.desired.shifts.remove(service);
                self.keep_base(service, base);
                self.after_change(service, Desired::split_of).await
            }
            _ => Err(OperatorError::Refused(format!(
                "nothing to acknowledge: the traffic of service `{service}` was not taken back"
            ))),
        }
    }

    /// Keeps the shares in force to which a shift went back. What lies beneath says the same, unless
    /// somebody has changed it meanwhile: then the shares stay, set by hand.
    fn keep_base(&mut self, service: &str, base: Shares) {
        let Ok(state) = self.desired.state_of(service) else {
            return;
        };
        // The shift's own layer comes first.
        let mut layers = state.splits.layers().iter().skip(1);
        let beneath = layers
            .find(|layer| layer.idle.is_none())
            .map(|layer| &layer.split.shares);
        if beneath != Some(&base) {
            self.desired.splits.insert(service.to_owned(), base);
        }
    }

    /// Splits services as a delegation table says. Where one subset gets more than it has, at the
    /// cost of others, its gate looks as it does in a shift.
    pub(super) async fn put_dtab(
        &mut self,
        dentries: Vec<Dentry>,
        version: Option<String>,
    ) -> Result<(), OperatorError> {
        let snapshot = self.desired.snapshot();
        let present = dtab::table(&snapshot);
        let present_version = dtab::version(&present);
        if version.is_some_and(|version| version != present_version) {
            return Err(OperatorError::Changed(present_version));
        }
        let named: BTreeSet<&String> = dentries.iter().map(|dentry| &dentry.service).collect();
        let dropped: Vec<String> = present
            .iter()
            .map(|dentry| &dentry.service)
            .filter(|service| !named.contains(service))
            .cloned()
            .collect();
        let changed: Vec<Dentry> = dentries
            .iter()
            .filter(|dentry| !present.contains(dentry))
            .cloned()
            .collect();
        for dentry in &dentries {
            let all = std::iter::once(&dentry.shares).chain(&dentry.fallback);
            for shares in all {
                self.desired.check_split(&dentry.service, shares)?;
            }
        }
        let touched = changed.iter().map(|dentry| &dentry.service);
        for service in touched.chain(&dropped) {
            self.desired.check_latch(service)?;
        }
        let now = steady::now();
        for dentry in changed {
            info!(service = dentry.service, shares = %dentry.shares, "split set by a delegation table");
            self.place(dentry, now);
        }
        for service in dropped {
            info!(service, "split dropped by a delegation table");
            self.forget_split(&service);
        }
        self.after_change("", |_, _| ()).await
    }

    fn place(&mut self, dentry: Dentry, now: SystemTime) {
        let Dentry {
            service,
            shares,
            fallback,
        } = dentry;
        match fallback.is_empty() {
            true => self.desired.fallbacks.remove(&service),
            false => self.desired.fallbacks.insert(service.clone(), fallback),
        };
        let watched = self.desired.shifts.get_mut(&service);
        let mut base = None;
        match watched.filter(|steering| steering.shift().is_watched()) {
            // All the way back: it is over.
            Some(steering) if is_same(&steering.shift().base, &shares) => {}
            // What was good when the shift began is good still.
            Some(steering)
                if grown(&steering.shift().base, &shares) == Some(&steering.shift().subset) =>
            {
                steering.change(|shift| shift.move_to(&shares));
                return;
            }
            _ => base = self.desired.split_of(&service).map(|split| split.shares),
        }
        self.settle(&service);
        let growing = base
            .as_ref()
            .and_then(|base| Some((base, grown(base, &shares)?)));
        if let Some((base, subset)) = growing {
            let shift = Shift::placed(subset, base, &shares, now);
            self.desired.shifts.insert(service, Steering::new(shift));
        } else {
            self.desired.splits.insert(service, shares);
        }
    }
}

/// The subset that has a larger part than before, if it is the only one and others have a share
/// to go back to.
fn grown<'a>(before: &Shares, after: &'a Shares) -> Option<&'a str> {
    let more = |subset: &str| after.percent(subset) > before.percent(subset) + 1e-9;
    let mut growing = after.iter().map(|(subset, _)| subset).filter(|s| more(s));
    let subset = growing.next()?;
    let alone = growing.next().is_none();
    (alone && before.percent(subset) < 100.0).then_some(subset)
}

/// Whether each subset has the same part in both.
fn is_same(one: &Shares, other: &Shares) -> bool {
    let all = one.iter().chain(other.iter());
    let mut parts = all.map(|(subset, _)| one.percent(subset) - other.percent(subset));
    parts.all(|difference| difference.abs() < 1e-9)
}

fn shift_of(desired: &Desired, service: &str) -> Option<ShiftState> {
    desired.shifts.get(service).map(Steering::state)
}

fn under_way<'a>(
    desired: &'a mut Desired,
    service: &str,
) -> Result<&'a mut Steering, OperatorError> {
    desired.shifts.get_mut(service).ok_or_else(|| {
        OperatorError::Refused(format!(
            "not done: no traffic of service `{service}` is being shifted; \
             `lb-agent split shift {service} SUBSET --to PERCENT` begins"
        ))
    })
}
