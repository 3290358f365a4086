//! The harness tested by itself: what the other tests take for granted. Needs root.

mod agent;
mod hosts;
mod leftovers;
mod peers;
mod traffic;

use std::time::Duration;

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(20);
