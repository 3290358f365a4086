//! The agent beside the programs in the kernel.
//!
//! # Code map
//!
//! - [`domain`]: the decisions, pure: services, health, splits, Maglev tables, snapshot, plan.
//! - [`probe`]: asks the backends how they are.
//! - [`controller`]: desired state, plan, apply; the only one that changes anything.

pub mod controller;
pub mod domain;
pub mod probe;
