//! What the benchmarks share: samples, goals, the table, the file of results, the progress line, HTTP load.

mod goal;
mod progress;
mod requests;
mod results;
mod samples;
mod table;

pub use self::{
    goal::Goal,
    progress::Progress,
    requests::{Effort, Measured, Over, request},
    results::{Row, write},
    samples::Samples,
    table::Table,
};
