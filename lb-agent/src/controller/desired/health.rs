//! What is known of the backends' health besides single probes: who is ejected, who starts slowly,
//! and what has happened.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use tracing::{info, warn};

use super::Desired;
use crate::{
    controller::OperatorError,
    domain::{
        backend::{Instance, InstanceId},
        health::Observed,
        history::{Change, History, Source},
        passive::{Ejection, Member, Outliers, Return, Verdict, Witness},
        ramp::Ramps,
        service::{Forwarding, Protocol, ServiceSpec},
        signal::Signal,
        snapshot::{Held, ServiceState},
        weigh::illness,
    },
    probe::HealthEvent,
};

/// By service.
#[derive(Debug, Default)]
pub(super) struct HealthFacts {
    outliers: BTreeMap<String, Outliers>,
    ramps: BTreeMap<String, Ramps>,
    /// When the next ejection or step of a slow start ends; made anew with each judgement.
    deadlines: BTreeMap<String, SystemTime>,
    ejections: BTreeMap<String, u64>,
    pub(super) history: History,
}

impl HealthFacts {
    /// Judges a service's backends, and notes who begins to start slowly.
    pub(super) fn judge(
        &mut self,
        spec: &ServiceSpec,
        instances: &[(Instance, Option<Held>)],
        observed: &dyn Fn(&Instance) -> Observed,
        now: SystemTime,
    ) {
        let name = &spec.name;
        let mut members: Vec<(Member, bool)> = instances
            .iter()
            .map(|(instance, _)| {
                let ill = illness(&instance.health, &observed(instance), None).is_some();
                (member(instance), ill)
            })
            .collect();
        let outliers = self.outliers.entry(name.clone()).or_default();
        match &spec.health.passive {
            Some(passive) => {
                for verdict in outliers.judge(passive, &members, now) {
                    note(name, verdict, &mut self.ejections, &mut self.history, now);
                }
            }
            None => outliers.clear(),
        }
        for (member, ill) in &mut members {
            *ill |= outliers.ejection(member).is_some();
        }
        let (ramps, length) = (
            self.ramps.entry(name.clone()).or_default(),
            spec.health.slow_start,
        );
        ramps.update(&members, length, now);
        let next = [outliers.next_deadline(), ramps.next_deadline(length, now)];
        match next.into_iter().flatten().min() {
            Some(at) => self.deadlines.insert(name.clone(), at),
            None => self.deadlines.remove(name),
        };
    }

    pub(super) fn ejection(&self, service: &str, instance: &Instance) -> Option<Ejection> {
        let outliers = self.outliers.get(service)?;
        outliers.ejection(&member(instance)).cloned()
    }

    pub(super) fn ramp(
        &self,
        spec: &ServiceSpec,
        instance: &Instance,
        now: SystemTime,
    ) -> Option<u32> {
        let ramps = self.ramps.get(&spec.name)?;
        ramps.part(&member(instance), spec.health.slow_start, now)
    }

    pub(super) fn next_deadline(&self) -> Option<SystemTime> {
        self.deadlines.values().min().copied()
    }

    /// The services of which one has ended.
    pub(super) fn due(&self, now: SystemTime) -> Vec<String> {
        let due = self.deadlines.iter().filter(|(_, at)| **at <= now);
        due.map(|(service, _)| service.clone()).collect()
    }

    /// Drops what is known of services that are gone.
    pub(super) fn forget_but<T>(&mut self, services: &BTreeMap<String, Arc<T>>) {
        self.outliers.retain(|name, _| services.contains_key(name));
        self.ramps.retain(|name, _| services.contains_key(name));
        self.deadlines.retain(|name, _| services.contains_key(name));
        self.ejections.retain(|name, _| services.contains_key(name));
    }
}

fn member(instance: &Instance) -> Member {
    (instance.id.clone(), instance.address)
}

/// Logs and records what a judgement has changed.
fn note(
    service: &str,
    verdict: Verdict,
    ejections: &mut BTreeMap<String, u64>,
    history: &mut History,
    now: SystemTime,
) {
    let change = |(id, address): Member, from, to, reason, witness: Witness| Change {
        at: now,
        service: service.to_owned(),
        id,
        address,
        from,
        to,
        reason,
        source: witness.into(),
    };
    let span = |from: SystemTime, to: SystemTime| {
        humantime::format_duration(to.duration_since(from).unwrap_or_default()).to_string()
    };
    let change = match verdict {
        Verdict::Ejected(member, ejection) => {
            *ejections.entry(service.to_owned()).or_default() += 1;
            let lasts = span(ejection.since, ejection.until);
            let reason = format!("{}; out for {lasts}", ejection.reason);
            change(member, "in", "ejected", reason, ejection.witness)
        }
        Verdict::Returned(member, ejection, why) => {
            let lasted = span(ejection.since, ejection.until);
            let reason = match why {
                Return::Time => format!("its time of {lasted} is over"),
                Return::Recovery => "found dead by other signs, and alive again".to_owned(),
            };
            change(member, "ejected", "in", reason, ejection.witness)
        }
        Verdict::Spared(member, reason, witness) => {
            let reason = format!("{reason}; not ejected, for half of the service is out already");
            change(member, "in", "in", reason, witness)
        }
    };
    record(history, change);
}

/// The one place where a change of a backend is logged.
pub(super) fn record(history: &mut History, change: Change) {
    let Change {
        service,
        id,
        address,
        from,
        to,
        reason,
        source,
        ..
    } = &change;
    let source = source.name();
    if matches!(*to, "unhealthy" | "ejected" | "critical") {
        warn!(service, backend = %address, %id, from, to, reason, source, "a backend has changed");
    } else {
        info!(service, backend = %address, %id, from, to, reason, source, "a backend has changed");
    }
    history.record(change);
}

impl Desired {
    /// Takes in what a probe has found.
    pub(crate) fn note_probe(&mut self, event: HealthEvent, now: SystemTime) {
        let key = (event.service, event.id, event.address);
        // After a restart the probes begin anew, with what was known before still in force.
        let before = self.observed.get(&key).unwrap_or(&event.previous).name();
        if before != event.observed.name() {
            let change = Change {
                at: now,
                service: key.0.clone(),
                id: key.1.clone(),
                address: key.2,
                from: before,
                to: event.observed.name(),
                reason: event.reason,
                source: Source::Probe,
            };
            record(&mut self.health.history, change);
        }
        self.touched.services.insert(key.0.clone());
        if event.answers {
            self.answers.insert(key.clone());
        } else {
            self.answers.remove(&key);
        }
        self.observed.insert(key, event.observed);
    }

    /// Takes in what traffic tells, be it connections or requests; answers whether it may change
    /// anything.
    pub(crate) fn note_signals(&mut self, signals: &[Signal], now: SystemTime) -> bool {
        let mut news = false;
        let mut known: HashMap<&str, HashMap<SocketAddr, InstanceId>> = HashMap::new();
        for Signal {
            service,
            backend,
            tally,
            timed,
        } in signals
        {
            let Some(state) = self.snapshot.services.get(service) else {
                continue;
            };
            if tally.witness == Witness::Flows && !is_judged_by_flows(&state.spec) {
                continue;
            }
            // Of a backend that is gone by now nothing more need be known.
            let ids = known.entry(service).or_insert_with(|| ids(state));
            let Some(id) = ids.get(backend) else {
                continue;
            };
            self.requests.note(service, *backend, tally, *timed);
            if tally.failed > 0 {
                news = true;
                self.touched.services.insert(service.clone());
            }
            let outliers = self.health.outliers.entry(service.clone()).or_default();
            outliers.note((id.clone(), *backend), tally, now);
        }
        news
    }

    /// Ejections since the agent started, by service.
    pub(crate) fn ejections(&self) -> BTreeMap<String, u64> {
        self.health.ejections.clone()
    }

    /// What has happened, oldest first; see [`History::of`].
    pub(crate) fn history(&self, of: Option<&str>) -> Result<Vec<Change>, OperatorError> {
        let changes: Vec<Change> = self.health.history.of(of).cloned().collect();
        if let (true, Some(name)) = (changes.is_empty(), of) {
            let address: Option<SocketAddr> = name.parse().ok();
            let known = self.snapshot.services.iter().any(|(service, state)| {
                let mut backends = state.backends.iter();
                service == name
                    || backends.any(|each| *each.id().0 == *name || Some(each.address()) == address)
            });
            if !known {
                return Err(OperatorError::UnknownSubject(name.to_owned()));
            }
        }
        Ok(changes)
    }
}

/// Whether the flow tables see both directions of the service's connections, and every host must
/// answer.
fn is_judged_by_flows(spec: &ServiceSpec) -> bool {
    spec.protocol == Protocol::Tcp && spec.forwarding == Forwarding::Nat
}

fn ids(state: &ServiceState) -> HashMap<SocketAddr, InstanceId> {
    let backends = state.backends.iter();
    backends
        .map(|backend| (backend.address(), backend.id().clone()))
        .collect()
}
