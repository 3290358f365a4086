//! Rise and fall: from single probe results to a backend's observed health.

use std::{
    mem,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{backend::InstanceId, service::ProbeSpec};

/// What the agent's own probes have found out about a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Not decided yet: no probe has come back. The catalog's word counts meanwhile.
    Unknown,
    /// Up since.
    Healthy {
        /// When it became so.
        since: SystemTime,
    },
    /// Down since, with the last failure.
    Unhealthy {
        /// When it became so.
        since: SystemTime,
        /// What the last failed probe met, e.g. `connection refused`.
        reason: String,
    },
}

/// A backend that the probes found down, as it is remembered over a restart of the agent: an
/// agent that has just started must not send traffic where its predecessor knew better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Identity within the service.
    pub id: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Since when.
    pub since: SystemTime,
    /// What the last failed probe met.
    pub reason: String,
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// `Err` carries what went wrong, in words for people.
    pub result: Result<(), String>,
    /// How long it took.
    pub took: Duration,
}

impl Observed {
    /// The state in one word, for logs and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Observed::Unknown => "unknown",
            Observed::Healthy { .. } => "healthy",
            Observed::Unhealthy { .. } => "unhealthy",
        }
    }
}

/// A change of a backend's observed health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it was. An unhealthy backend carries the reason of its latest failure.
    pub from: Observed,
    /// What it is now.
    pub to: Observed,
    /// Why, in words for people, e.g. `3 probes in a row failed: connection refused`.
    pub reason: String,
}

/// Decides from the results of one backend's probes whether it is healthy.
///
/// A healthy backend becomes unhealthy after `fall` failures in a row, an unhealthy one healthy
/// after `rise` successes in a row. An unknown one becomes healthy with its first success, but
/// unhealthy only after `fall` failures: until then the catalog's word counts, so that an agent
/// that has just started never judges worse than the catalog on the strength of one lost packet.
#[derive(Clone, Debug)]
pub struct HealthMachine {
    rise: u32,
    fall: u32,
    observed: Observed,
    /// Results in a row that speak against `observed` (or, while unknown, failures in a row).
    contrary: u32,
}

impl HealthMachine {
    /// A machine that starts from `initial`: [`Observed::Unknown`] for a new backend, or what was
    /// known before. A `rise` or `fall` of 0 counts as 1.
    pub fn new(spec: &ProbeSpec, initial: Observed) -> Self {
        Self {
            rise: spec.rise.max(1),
            fall: spec.fall.max(1),
            observed: initial,
            contrary: 0,
        }
    }

    /// The state at present.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Takes in the result of one probe that ended at `now`; answers with the change it made.
    ///
    /// A further failure of an unhealthy backend is no change, but its reason is remembered.
    pub fn on_outcome(&mut self, outcome: &ProbeOutcome, now: SystemTime) -> Option<Transition> {
        let needed = match (&mut self.observed, &outcome.result) {
            (Observed::Unknown, Ok(())) => 1,
            (Observed::Unknown | Observed::Healthy { .. }, Err(_)) => self.fall,
            (Observed::Unhealthy { .. }, Ok(())) => self.rise,
            (Observed::Healthy { .. }, Ok(())) => {
                self.contrary = 0;
                return None;
            }
            (Observed::Unhealthy { reason, .. }, Err(latest)) => {
                self.contrary = 0;
                reason.clone_from(latest);
                return None;
            }
        };
        self.contrary += 1;
        if self.contrary < needed {
            return None;
        }
        self.contrary = 0;
        let (to, reason) = match &outcome.result {
            Ok(()) => (
                Observed::Healthy { since: now },
                in_a_row(needed, "succeeded"),
            ),
            Err(failure) => (
                Observed::Unhealthy {
                    since: now,
                    reason: failure.clone(),
                },
                format!("{}: {failure}", in_a_row(needed, "failed")),
            ),
        };
        let from = mem::replace(&mut self.observed, to.clone());
        Some(Transition { from, to, reason })
    }
}

fn in_a_row(probes: u32, what: &str) -> String {
    match probes {
        1 => format!("a probe {what}"),
        _ => format!("{probes} probes in a row {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::service::ProbeKind, *};

    const SPEC: ProbeSpec = ProbeSpec {
        kind: ProbeKind::Tcp,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        port: None,
    };

    /// Second `n` of the test's clock.
    fn at(n: usize) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64)
    }

    /// `+` is a success; anything else a failure whose reason is that character.
    fn outcome(mark: char) -> ProbeOutcome {
        ProbeOutcome {
            result: match mark {
                '+' => Ok(()),
                other => Err(other.to_string()),
            },
            took: Duration::from_millis(1),
        }
    }

    fn initial(mark: char) -> Observed {
        let since = SystemTime::UNIX_EPOCH;
        match mark {
            '?' => Observed::Unknown,
            'H' => Observed::Healthy { since },
            _ => Observed::Unhealthy {
                since,
                reason: "restored".into(),
            },
        }
    }

    /// State at first, results, and after which probe (counted from 1) it changes to what.
    type Row = (char, &'static str, &'static [(usize, &'static str)]);

    /// The whole table: from each state, every kind of run of results.
    #[test]
    fn every_transition() {
        let rows: [Row; 19] = [
            // Unknown: one success decides, one failure does not.
            ('?', "", &[]),
            ('?', "+", &[(1, "healthy")]),
            ('?', "x", &[]),
            ('?', "xx", &[]),
            ('?', "xxx", &[(3, "unhealthy")]),
            ('?', "xx+", &[(3, "healthy")]),
            ('?', "x+xx+xxx", &[(2, "healthy"), (8, "unhealthy")]),
            // Healthy: `fall` failures in a row, and a success starts the count anew.
            ('H', "++++", &[]),
            ('H', "xx", &[]),
            ('H', "xx+xx+", &[]),
            ('H', "xxx", &[(3, "unhealthy")]),
            ('H', "+xxxxxx", &[(4, "unhealthy")]),
            // Unhealthy (as restored or as found): `rise` successes in a row.
            ('U', "xxxx", &[]),
            ('U', "+", &[]),
            ('U', "+x+x+x", &[]),
            ('U', "++", &[(2, "healthy")]),
            ('U', "+x++++", &[(4, "healthy")]),
            // There and back: no count survives a change.
            (
                'H',
                "xxx++xxx",
                &[(3, "unhealthy"), (5, "healthy"), (8, "unhealthy")],
            ),
            ('U', "++xx+", &[(2, "healthy")]),
        ];
        for (start, marks, expected) in rows {
            let mut machine = HealthMachine::new(&SPEC, initial(start));
            let mut seen = Vec::new();
            for (index, mark) in marks.chars().enumerate() {
                let before = machine.observed().clone();
                let change = machine.on_outcome(&outcome(mark), at(index + 1));
                if let Some(change) = change {
                    assert_eq!(change.from, before, "{start} {marks}");
                    assert_eq!(&change.to, machine.observed(), "{start} {marks}");
                    seen.push((index + 1, change.to.name()));
                } else {
                    assert_eq!(before.name(), machine.observed().name(), "{start} {marks}");
                }
            }
            assert_eq!(seen, expected, "from {start} by {marks}");
        }
    }

    /// A change carries the time and the last failure; the state keeps its time, while the
    /// reason of an unhealthy backend follows the latest failure.
    #[test]
    fn time_and_reason() {
        let mut machine = HealthMachine::new(&SPEC, initial('H'));
        for (second, mark) in [(1, 'a'), (2, 'b')] {
            assert_eq!(machine.on_outcome(&outcome(mark), at(second)), None);
        }
        let change = machine.on_outcome(&outcome('c'), at(3)).unwrap();
        assert_eq!(change.reason, "3 probes in a row failed: c");
        let down = |reason: &str| Observed::Unhealthy {
            since: at(3),
            reason: reason.into(),
        };
        assert_eq!(change.to, down("c"));
        machine.on_outcome(&outcome('d'), at(4));
        assert_eq!(machine.observed(), &down("d"));
        machine.on_outcome(&outcome('+'), at(5));
        let change = machine.on_outcome(&outcome('+'), at(6)).unwrap();
        assert_eq!(change.from, down("d"));
        assert_eq!(change.to, Observed::Healthy { since: at(6) });
        assert_eq!(change.reason, "2 probes in a row succeeded");
    }

    /// A threshold of 0 would never or always be met; it counts as 1.
    #[test]
    fn zero_thresholds_count_as_one() {
        let spec = ProbeSpec {
            rise: 0,
            fall: 0,
            ..SPEC
        };
        let mut machine = HealthMachine::new(&spec, Observed::Unknown);
        let down = machine.on_outcome(&outcome('x'), at(1)).unwrap();
        assert_eq!(
            (down.to.name(), &*down.reason),
            ("unhealthy", "a probe failed: x")
        );
        let up = machine.on_outcome(&outcome('+'), at(2)).unwrap();
        assert_eq!(
            (up.to.name(), &*up.reason),
            ("healthy", "a probe succeeded")
        );
    }
}
