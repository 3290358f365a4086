//! Where services and backends come from.

pub mod file;
