//! Who gave the orders that are in force, and when.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

/// Who gave an order, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Name of the user on the other side of the socket, or its number.
    pub user: String,
    /// When.
    pub at: SystemTime,
}

/// The authors of what is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authors {
    /// Of splits and shifts, by service.
    pub splits: BTreeMap<String, Author>,
}

impl Authors {
    /// Forgets those of whom nothing is in force any more.
    pub fn retain(&mut self, has_split: impl Fn(&str) -> bool) {
        self.splits.retain(|service, _| has_split(service));
    }
}
