//! The agent beside the programs in the kernel.
//!
//! # Code map
//!
//! - [`domain`]: the decisions, pure: services, health, splits, Maglev tables, snapshot, plan.
//! - [`controller`]: desired state, plan, apply; the only one that changes anything.
//! - [`api`]: the gRPC service on the agent's Unix socket.

pub mod api;
pub mod controller;
pub mod domain;
