//! The agent beside the programs in the kernel.
//!
//! # Code map
//!
//! - [`domain`]: the decisions, pure: services, health, splits, Maglev tables, snapshot, plan.
//! - [`source`]: where instances come from: Consul.
//! - [`controller`]: desired state, plan, apply; the only one that changes anything.

pub mod controller;
pub mod domain;
pub mod source;
