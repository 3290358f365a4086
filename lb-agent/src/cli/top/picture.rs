//! Two looks and the time between them make a picture: rows with rates. Pure; what the screen, the
//! text and the JSON all show.

mod drops;
mod node;
mod rows;

use std::time::Duration;

use serde::Serialize;

pub(super) use self::{
    drops::DropRow,
    node::Node,
    rows::{BackendRow, BlockRow, EventRow, ServiceRow, Traffic},
};
use super::look::Look;

/// What is known at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Picture {
    /// The agent as a whole.
    pub(super) node: Node,
    /// By name.
    pub(super) services: Vec<ServiceRow>,
    /// Which service `backends` are of.
    pub(super) backends_of: Option<String>,
    /// By id.
    pub(super) backends: Vec<BackendRow>,
    /// Reasons for which packets are dropped, the most frequent now first; those that never were
    /// are left out.
    pub(super) drops: Vec<DropRow>,
    /// Rules, those that dropped most first.
    pub(super) blocks: Vec<BlockRow>,
    /// Changes of backends, the latest first.
    pub(super) events: Vec<EventRow>,
}

impl Picture {
    /// `elapsed` lies between `before` and `look`.
    pub(super) fn new(before: Option<&Look>, look: &Look, elapsed: Duration) -> Self {
        Self {
            node: Node::new(before, look, elapsed),
            services: rows::services(before, look, elapsed),
            backends_of: look.backends_of.clone(),
            backends: rows::backends(before, look, elapsed),
            drops: drops::rows(before, look, elapsed),
            blocks: rows::blocks(before, look, elapsed),
            events: rows::events(look),
        }
    }
}
