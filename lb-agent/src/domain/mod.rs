//! The decisions of the control plane: pure, without clock, network or kernel.
//!
//! Nothing here knows tokio, aya, hyper or tonic; `now` is always an argument. `cargo xtask tidy`
//! keeps it so.

pub mod author;
pub mod backend;
pub(crate) mod backoff;
pub mod block;
pub mod block_list;
#[cfg(test)]
pub(crate) mod chance;
pub mod config_entry;
pub mod detail;
pub mod drain;
pub mod drift;
pub mod dtab;
pub mod explain;
pub mod filter;
pub mod fleet;
pub mod flow;
pub mod fragment;
pub mod gate;
pub mod guard;
pub mod health;
pub mod history;
pub mod http;
pub mod kernel;
pub mod maglev;
pub mod offer;
pub mod passive;
pub mod plan;
pub mod precedence;
pub mod ramp;
pub mod registration;
pub mod route;
pub mod schedule;
pub mod service;
pub mod shift;
pub mod signal;
pub mod snapshot;
pub mod split;
pub mod sync;
pub mod tag_route;
pub mod trace;
pub mod vanished;
pub mod weigh;
