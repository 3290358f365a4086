//! The agent beside the programs in the kernel.
//!
//! # Code map
//!
//! - [`domain`]: the decisions, pure: services, health, splits, Maglev tables, snapshot, plan.
//! - [`probe`]: asks the backends how they are.
//! - [`metrics`]: everything as Prometheus text, read at scrape time.
//! - [`controller`]: desired state, plan, apply; the only one that changes anything.

pub mod controller;
pub mod domain;
pub mod metrics;
pub mod probe;
