//! What the benchmarks share: samples, goals, the table, the file of results, the progress line, HTTP load,
//! and the driver program of those that make packets.

mod block_list;
mod driver;
mod goal;
mod progress;
mod requests;
mod results;
mod samples;
mod table;
mod traffic;

pub use self::{
    block_list::{block_rule, block_rule6, blocked_sources},
    driver::{Bare, Driver},
    goal::Goal,
    progress::Progress,
    requests::{Effort, Measured, Over, request},
    results::{Row, write},
    samples::Samples,
    table::Table,
    traffic::{Ingress, Part, Traffic},
};
