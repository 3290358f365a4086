//! What traffic tells of backends, in one form whoever has seen it: the sweeps of the flow tables
//! tell of connections, the proxy of requests. Ejection goes by these alone.

use std::net::SocketAddr;

use super::{
    gate::Timed,
    kernel::Attempts,
    passive::{Tally, Witness},
};

/// What somebody has seen of a backend's answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The service.
    pub service: String,
    /// Where the backend listens.
    pub backend: SocketAddr,
    /// What became of attempts on it since it was last told.
    pub tally: Tally,
    /// What those took that were timed: requests alone.
    pub timed: Timed,
}

impl Signal {
    /// What the flow tables show of connections.
    pub fn of_connections(service: String, backend: SocketAddr, found: &Attempts) -> Self {
        let failure = if found.refused >= found.unanswered {
            "refused"
        } else {
            "not answered"
        };
        Self {
            service,
            backend,
            tally: Tally {
                witness: Witness::Flows,
                succeeded: found.accepted,
                failed: found.failed(),
                failure: failure.into(),
            },
            timed: Timed::default(),
        }
    }

    /// What came of requests that were sent on: `failure` says what most of those met that failed,
    /// as in `status 502`; `timed` what those took that got as far as waiting for an answer.
    pub fn of_requests(
        service: String,
        backend: SocketAddr,
        (succeeded, failed): (u64, u64),
        failure: impl Into<String>,
        timed: Timed,
    ) -> Self {
        Self {
            service,
            backend,
            tally: Tally {
                witness: Witness::Proxy,
                succeeded,
                failed,
                failure: failure.into(),
            },
            timed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_by_what_most_of_them_met() {
        let backend = ([10, 0, 0, 1], 80).into();
        for (accepted, refused, unanswered, expected) in [
            (9, 0, 0, (9, 0, "refused")),
            (1, 3, 2, (1, 5, "refused")),
            (0, 2, 2, (0, 4, "refused")),
            (0, 1, 4, (0, 5, "not answered")),
        ] {
            let found = Attempts {
                accepted,
                refused,
                unanswered,
                reset: 7,
            };
            let signal = Signal::of_connections("a".into(), backend, &found);
            assert_eq!((signal.service.as_str(), signal.backend), ("a", backend));
            let Tally {
                witness,
                succeeded,
                failed,
                failure,
            } = signal.tally;
            assert_eq!(witness, Witness::Flows);
            assert_eq!((succeeded, failed, failure.as_str()), expected);
        }
    }

    #[test]
    fn requests() {
        let backend = ([10, 0, 0, 1], 80).into();
        let timed = Timed {
            count: 8,
            took_us: 4000,
        };
        let signal = Signal::of_requests("a".into(), backend, (7, 2), "status 502", timed);
        let expected = Tally {
            witness: Witness::Proxy,
            succeeded: 7,
            failed: 2,
            failure: "status 502".into(),
        };
        assert_eq!((signal.tally, signal.timed), (expected, timed));
    }
}
