//! From what is wanted to what the kernel does: the only writer of both.
//!
//! [`Handle`] is how everybody else (API, metrics, tests) asks and commands.

pub mod handle;

pub use handle::{
    BackendCounters, BlockEntry, Command, FlowTableUse, Handle, InterfaceStatus, OperatorError,
    Status,
};
