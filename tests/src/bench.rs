//! What the benchmarks share: samples, goals, the table, the file of results, the progress line.

mod goal;
mod progress;
mod results;
mod samples;
mod table;

pub use self::{
    goal::Goal,
    progress::Progress,
    results::{Row, write},
    samples::Samples,
    table::Table,
};
