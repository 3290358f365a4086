//! Where services and backends come from: the configuration file, and streams of what a catalog
//! holds, as [`crate::domain::sync`] has it.

pub mod consul;
pub mod consul_agent;
mod consul_answer;
mod consul_client;
mod consul_entries;
mod consul_failure;
pub mod consul_keys;
mod consul_options;
mod consul_token;
pub mod consul_visit;
mod consul_wire;
pub mod file;
