//! What a person takes out of service without cutting it off: a backend, or the whole node.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use lb_common::flow::State;
use serde::{Deserialize, Serialize};

/// A backend taken out by a person: it gets no new flows, and keeps those it has until they end or
/// the deadline passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Since when.
    pub since: SystemTime,
    /// When the flows that are left are cut; `None`: never.
    #[serde(default)]
    pub deadline: Option<SystemTime>,
    /// Who drains it, as in `root`; `None`: not known.
    #[serde(default)]
    pub by: Option<String>,
    /// Where it listened then: it may leave its catalog before its flows end.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// How many flows were cut at the deadline; `None`: it has not passed.
    #[serde(default)]
    pub cut: Option<u64>,
}

impl Drain {
    /// A drain without a deadline, by nobody in particular.
    pub fn begun(since: SystemTime) -> Self {
        Self {
            since,
            deadline: None,
            by: None,
            address: None,
            cut: None,
        }
    }

    /// When its flows are to be cut, if they have not been.
    pub fn due(&self) -> Option<SystemTime> {
        self.deadline.filter(|_| self.cut.is_none())
    }

    /// Why the backend gets no new flows.
    pub fn reason(&self) -> String {
        let Some(by) = &self.by else {
            return "drained by an operator".into();
        };
        let time = |at| humantime::format_rfc3339_seconds(at);
        let text = format!("drained by {by} since {}", time(self.since));
        match (self.deadline, self.cut) {
            (None, _) => text,
            (Some(deadline), None) => format!("{text}, what is left is cut at {}", time(deadline)),
            (Some(deadline), Some(_)) => {
                format!("{text}, what was left was cut at {}", time(deadline))
            }
        }
    }

    /// Gives it another deadline, before which nothing is cut again.
    pub fn set_deadline(&mut self, deadline: SystemTime) {
        self.deadline = Some(deadline);
        self.cut = None;
    }
}

/// The node taken out by a person: it tells whoever sends traffic to it, and forwards what comes
/// all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDrain {
    /// Since when `/readyz` fails.
    pub since: SystemTime,
    /// From then to when VIPs are no longer announced.
    pub grace: Duration,
    /// When whoever waits for its flows gives up; nothing is cut.
    #[serde(default)]
    pub deadline: Option<SystemTime>,
    /// Who drains it; `None`: not known.
    #[serde(default)]
    pub by: Option<String>,
}

impl NodeDrain {
    /// When VIPs are no longer announced.
    pub fn leaves(&self) -> SystemTime {
        self.since + self.grace
    }

    /// Whether the grace is over.
    pub fn has_left(&self, now: SystemTime) -> bool {
        now >= self.leaves()
    }
}

/// How a person wants it done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainOrder {
    /// From now to the deadline; `None`: there is none, or the one there is stays.
    pub deadline: Option<Duration>,
    /// Who gives it.
    pub by: Option<String>,
    /// Even the last backend that takes new flows.
    pub force: bool,
}

/// Where a drain is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Whoever sends traffic is to notice that the node is not ready.
    Grace,
    /// Flows are to end.
    Draining,
    /// None is left.
    Empty,
    /// The deadline passed, and what was left of the backend was cut.
    Cut,
    /// The deadline passed, and the node still has flows.
    Expired,
    /// It is not drained any more.
    Undrained,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Grace,
        Self::Draining,
        Self::Empty,
        Self::Cut,
        Self::Expired,
        Self::Undrained,
    ];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grace => "grace",
            Self::Draining => "draining",
            Self::Empty => "empty",
            Self::Cut => "cut",
            Self::Expired => "expired",
            Self::Undrained => "undrained",
        }
    }

    /// Nothing follows.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Grace | Self::Draining)
    }
}

/// Whether somebody would notice that a flow in this state is cut: both sides have not said
/// goodbye yet. What is kept of others only keeps their ports from being used again too soon.
pub fn is_open(state: State) -> bool {
    match state {
        State::HalfOpen
        | State::Answered
        | State::Established
        | State::ClosingByClient
        | State::ClosingByBackend => true,
        State::Free | State::Claimed | State::Finished | State::Reset | State::Refused => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an older agent saved has only its beginning.
    #[test]
    fn older_states_are_read() {
        let begun = Drain::begun(SystemTime::UNIX_EPOCH);
        let old = r#"{"since":{"secs_since_epoch":0,"nanos_since_epoch":0}}"#;
        assert_eq!(serde_json::from_str::<Drain>(old).unwrap(), begun);
    }

    #[test]
    fn flows_are_cut_once_for_each_deadline() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut drain = Drain::begun(at(0));
        assert_eq!(drain.due(), None);
        drain.set_deadline(at(9));
        assert_eq!(drain.due(), Some(at(9)));
        drain.cut = Some(3);
        assert_eq!(drain.due(), None);
        drain.set_deadline(at(20));
        assert_eq!((drain.due(), drain.cut), (Some(at(20)), None));
    }

    #[test]
    fn the_reason_says_who_and_until_when() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut drain = Drain::begun(at(0));
        assert_eq!(drain.reason(), "drained by an operator");
        drain.by = Some("root".into());
        assert_eq!(drain.reason(), "drained by root since 1970-01-01T00:00:00Z");
        drain.set_deadline(at(60));
        let cut = "drained by root since 1970-01-01T00:00:00Z, what is left is cut at 1970-01-01T00:01:00Z";
        assert_eq!(drain.reason(), cut);
        drain.cut = Some(0);
        assert!(drain.reason().contains("what was left was cut"));
    }

    #[test]
    fn a_node_leaves_after_its_grace() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let node = NodeDrain {
            since: at(100),
            grace: Duration::from_secs(10),
            deadline: None,
            by: None,
        };
        assert!(!node.has_left(at(109)));
        assert!(node.has_left(at(110)));
    }
}
