//! Shifts among the facts: which split each service has, and what the gates see.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use super::{
    super::{OperatorError, steady},
    Desired,
};
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
    let now = steady::now();
    let resume =
        |(name, shift): (&String, &Shift)| (name.clone(), Steering::resumed(shift.clone(), now));
    saved.iter().map(resume).collect()
}

impl Desired {
    /// All that is said of a service's split, with what Consul says of it: the one place where
    /// sources of splits come together.
    pub(super) fn stack(&self, spec: &ServiceSpec, consul: Vec<ActiveSplit>) -> SplitStack {
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
        let by_person = [shift, by_hand].into_iter().flatten();
        SplitStack::of(spec, by_person.chain(consul))
    }

    /// Services whose gates look.
    pub(crate) fn gated(&self) -> BTreeSet<String> {
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
    // Each family's VIPs have their own backends: the worse one counts.
    let mut families = [(0_u64, 0_u64); 2];
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
            let (healthy, all) = &mut families[usize::from(backend.address().is_ipv6())];
            *all += weight;
            let ill = backend.is_dead() || backend.ejection.is_some();
            *healthy += if ill { 0 } else { weight };
        }
    }
    let shares = families.into_iter().filter(|(_, all)| *all > 0);
    let shares = shares.map(|(healthy, all)| healthy as f64 / all as f64);
    sight.healthy = shares.reduce(f64::min).unwrap_or(0.0);
    sight
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::{
        config::parse_in,
        domain::{
            gate::{Outcomes, Timed},
            shift::ShiftOrder,
            snapshot::Drain,
            split::Shares,
        },
        state::PersistedState,
    };

    const CONFIG: &str = r#"
        [node]
        interfaces = ["eth0"]
        [[service]]
        name = "echo"
        vip = ["198.51.100.10:80"]
        split = { v1 = 100, v2 = 0 }
        gate = { window = "10s", fail = 2, latency = "20ms" }
        backends = [
          { address = "10.0.0.1:80", subset = "v1" },
          { address = "10.0.0.2:80", subset = "v2", weight = 3 },
          { address = "10.0.0.3:80", subset = "v2" },
        ]
    "#;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
    }

    /// The facts, half of the traffic just shifted to v2.
    fn shifted() -> Desired {
        let config = parse_in(CONFIG, Path::new("x.toml"), &|_| None).unwrap();
        let mut desired = Desired::new(&config, &PersistedState::default());
        desired.rebuild(at(0));
        let order = ShiftOrder {
            subset: "v2".into(),
            to: 50,
            step: 50,
            every: Duration::from_secs(60),
        };
        let base = Shares::parse(&["v1=100", "v2=0"]).unwrap();
        let shift = Shift::begin(&order, &base, at(0)).unwrap();
        desired.shifts.insert("echo".into(), Steering::new(shift));
        desired.rebuild(at(0));
        desired
    }

    /// By the last byte of its address, what each backend had until a second, as a function of it.
    fn readings(state: &ServiceState, of: impl Fn(u8) -> Outcomes) -> Readings {
        let backends = state.backends.iter();
        let number = |address: std::net::SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        backends
            .map(|backend| {
                let key = (backend.id().clone(), backend.address());
                (key, of(number(backend.address())))
            })
            .collect()
    }

    /// What a backend had by then: ten connections a second, and answers of so many milliseconds.
    fn outcomes(second: u64, failed: u64, ms: u64) -> Outcomes {
        Outcomes {
            begun: 10 * second,
            failed: failed * second,
            probes: Timed {
                count: second,
                took_us: ms * 1000 * second,
            },
            ..Outcomes::default()
        }
    }

    /// Rows of connections that fail in a second, of v1 and of v2, and of v2's milliseconds to an
    /// answer: why traffic is taken back within two windows.
    #[test]
    fn what_backends_went_through_decides() {
        let rows = [
            (0, 0, 1, None),
            (
                0,
                5,
                1,
                Some("50.0 % of its 200 new connections failed (0.0 % elsewhere)"),
            ),
            (5, 5, 1, None),
            (2, 0, 1, None),
            (
                0,
                0,
                25,
                Some("its answers to probes took 25ms on average, of 20ms at most"),
            ),
        ];
        for (old, new, ms, expected) in rows {
            let mut desired = shifted();
            let mut reasons = Vec::new();
            for second in 0..=20 {
                let turns = desired.look(at(second), second, |state| {
                    readings(state, |number| match number {
                        1 => outcomes(second, old, 1),
                        _ => outcomes(second, new, ms),
                    })
                });
                for (service, turn) in turns {
                    assert_eq!(service, "echo");
                    if let Turn::Returned(reason) = turn {
                        reasons.push(reason);
                    }
                }
            }
            assert_eq!(
                reasons.len(),
                usize::from(expected.is_some()),
                "{old} {new} {ms}"
            );
            if let Some(words) = expected {
                assert!(reasons[0].contains(words), "{reasons:?}");
                assert_eq!(desired.returns["echo"], 1);
                desired.rebuild(at(20));
                let split = desired.snapshot().services["echo"].split.clone().unwrap();
                assert_eq!(split.shares.to_string(), "v1=100 v2=0");
            }
        }
    }

    /// Health counts by registered weight; what a person drains is left out.
    #[test]
    fn the_healthy_part_of_a_subset() {
        let mut desired = shifted();
        let healthy = |desired: &mut Desired| {
            desired.rebuild(at(1));
            let snapshot = desired.snapshot();
            sight(&snapshot.services["echo"], "v2", Readings::new()).healthy
        };
        assert_eq!(healthy(&mut desired), 1.0);
        let id =
            |number: u8| crate::domain::backend::InstanceId(format!("10.0.0.{number}:80").into());
        let drain = Drain::begun(at(0));
        let drains = desired.drains.entry("echo".into()).or_default();
        drains.insert(id(2), drain.clone());
        assert_eq!(healthy(&mut desired), 1.0, "the other one is well");
        let drains = desired.drains.entry("echo".into()).or_default();
        drains.insert(id(3), drain);
        assert_eq!(healthy(&mut desired), 0.0, "nobody is left");
    }

    /// A shift whose subset the configuration has no longer waits, and is not in a hurry.
    #[test]
    fn a_shift_of_a_subset_that_is_gone_rests() {
        let mut desired = shifted();
        desired.look(at(1), 1, |_| Readings::new());
        assert_eq!(desired.next_deadline(), Some(at(11)));
        let without = CONFIG
            .replace("subset = \"v2\"", "subset = \"v3\"")
            .replace("v2 = 0", "v3 = 0");
        let config = parse_in(&without, Path::new("x.toml"), &|_| None).unwrap();
        desired.set_services(&config.services);
        desired.rebuild(at(2));
        assert!(desired.look(at(30), 30, |_| Readings::new()).is_empty());
        assert_eq!(desired.next_deadline(), None);
        let told: Vec<String> = desired.idle_splits().collect();
        assert!(
            told[0].contains("there is no subset v2 any more"),
            "{told:?}"
        );
    }
}
