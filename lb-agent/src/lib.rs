//! The agent beside the programs in the kernel.
//!
//! # Code map
//!
//! - [`domain`]: the decisions, pure: services, health, splits, Maglev tables, snapshot, plan.
//! - [`config`]: the configuration file, checked as a whole before any of it counts.
//! - [`source`]: where services and backends come from.
//! - [`probe`]: asks the backends how they are.
//! - [`state`]: what outlives the agent, on disk.
//! - [`controller`]: desired state, plan, apply; the only one that changes anything.
//! - [`metrics`]: the Prometheus endpoint.
//! - [`datapath`]: the kernel half; the only place that names aya.

pub mod config;
pub mod controller;
pub mod datapath;
pub mod domain;
pub mod metrics;
pub mod probe;
pub mod source;
pub mod state;
