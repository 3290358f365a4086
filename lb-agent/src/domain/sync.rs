//! What a source of instances has delivered, and how fresh it is.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{backend::Instance, precedence::SplitsOfSource, split::SplitSource};

/// Everything a dynamic source knows at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogState {
    /// Instances by the service name in the source. A service that has never been answered for
    /// is absent; one that was answered with nothing has an empty list.
    pub services: BTreeMap<String, Arc<Vec<Instance>>>,
    /// Splits by who says so. Those of [`SplitSource::Splitter`] are by the service name in the
    /// source, those of [`SplitSource::Kv`] by the name in the configuration.
    pub splits: BTreeMap<SplitSource, SplitsOfSource>,
    /// One entry per watch, by its name (for Consul: `health/SERVICE`).
    pub watches: BTreeMap<String, WatchStatus>,
}

/// How one watch is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchStatus {
    /// When the source last gave a trusted answer, changed or not. `None`: never.
    pub last_success: Option<SystemTime>,
    /// When an answer last differed from the one before.
    pub last_change: Option<SystemTime>,
    /// The source's index of the last trusted answer.
    pub index: u64,
    /// What went wrong with the last try; `None`: nothing.
    pub error: Option<String>,
    /// Failed tries since the watch began.
    pub errors: u64,
}
