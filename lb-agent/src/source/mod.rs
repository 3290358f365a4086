//! Where services and backends come from: the configuration file, and streams of what a catalog
//! holds, as [`crate::domain::sync`] has it.

mod backoff;
pub mod consul;
mod consul_answer;
mod consul_client;
mod consul_entries;
mod consul_failure;
pub mod consul_keys;
mod consul_options;
mod consul_token;
mod consul_wire;
pub mod file;
