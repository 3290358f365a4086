//! With which rights the agent works: as which user, with which capabilities, in which directories.
//!
//! - [`capability`]: those that it takes, each with its reason.
//! - [`drop`]: root gives up being root, before the first thread is started.
//! - `places`: the directories that the user without rights must be able to write to.

pub mod capability;
pub mod drop;
mod places;
