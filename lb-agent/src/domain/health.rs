//! Rise and fall: from single probe results to a backend's observed health.

use std::time::{Duration, SystemTime};

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

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// `Err` carries what went wrong, in words for people.
    pub result: Result<(), String>,
    /// How long it took.
    pub took: Duration,
}
