//! What flows there are, and what has become of connections.

use std::collections::BTreeMap;

use lb_common::flow::State;

/// Connections of one backend that were opened since the last count, by how its host answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Accepted.
    pub accepted: u64,
    /// Answered with a reset.
    pub refused: u64,
    /// Not answered at all, and old enough for that to mean something.
    pub unanswered: u64,
    /// Reset by either side later on, whenever they were opened.
    pub reset: u64,
}

impl Attempts {
    /// Adds those of another time.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.reset += other.reset;
    }

    /// Those that came to nothing.
    pub fn failed(&self) -> u64 {
        self.refused + self.unanswered
    }
}

/// What flows there are, counted in one pass over the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Counts the passes; 0: none yet.
    pub pass: u64,
    /// Slots of each table.
    pub slots: u64,
    /// IPv4 slots in use, by [`lb_common::flow::State`].
    pub used4: [u64; State::COUNT],
    /// IPv6 slots in use.
    pub used6: [u64; State::COUNT],
    /// Live flows by backend id.
    pub backends: BTreeMap<u32, u64>,
    /// What has become of the connections that were opened since the last pass, by backend id.
    pub attempts: BTreeMap<u32, Attempts>,
    /// Slots that this pass freed because their flow was idle beyond its time.
    pub expired: u64,
}
