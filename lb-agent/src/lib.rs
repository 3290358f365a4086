//! The agent beside the programs in the kernel.
//!
//! # Code map
//!
//! - [`domain`]: the decisions, pure: services, health, splits, Maglev tables, snapshot, plan.
//! - [`config`]: the configuration file, checked as a whole before any of it counts.
//! - [`source`]: where services and backends come from.
//! - [`registrar`]: registers the node's containers in Consul.
//! - [`probe`]: asks the backends how they are.
//! - [`proxy`]: serves requests of HTTP and gRPC services.
//! - [`state`]: what outlives the agent, on disk.
//! - [`controller`]: desired state, plan, apply; the only one that changes anything.
//! - [`api`]: the agent's gRPC service on a Unix socket. [`cli`]: the command line.
//! - [`doctor`]: whether the node has what the agent needs.
//! - [`dtab`]: splits over HTTP, in the manner of namerd.
//! - [`privilege`]: with which rights it works.
//! - [`run`]: makes every part and wires them.
//! - [`logging`]: structured logs on stderr.
//! - [`metrics`]: the Prometheus endpoint. [`page`]: the status page beside it.
//! - [`watch`]: hands single packets' events to those who trace.
//! - [`fragments`]: keeps fragments that come before the first one of their packet.
//! - [`datapath`]: the kernel half; the only place that names aya.

pub mod api;
pub mod cli;
pub mod config;
pub mod controller;
pub mod datapath;
pub mod doctor;
pub mod domain;
pub mod dtab;
pub mod fragments;
pub mod logging;
pub mod metrics;
pub mod page;
pub mod privilege;
pub mod probe;
pub mod proxy;
#[cfg(test)]
mod reference;
pub mod registrar;
pub mod run;
pub mod source;
pub mod state;
mod surroundings;
mod tls;
pub mod watch;
