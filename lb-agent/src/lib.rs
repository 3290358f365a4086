//! The agent beside the programs in the kernel.
//!
//! # Code map
//!
//! - [`domain`]: the decisions, pure: services, health, splits, Maglev tables, snapshot, plan.
//! - [`controller`]: desired state, plan, apply; the only one that changes anything.
//! - [`api`]: the gRPC service on the agent's Unix socket.
//! - [`cli`]: the command line, the other end of that socket.
//! - [`run`]: the agent as a whole, put together.

pub mod api;
pub mod cli;
pub mod controller;
pub mod domain;
pub mod run;
