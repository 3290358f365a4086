//! How long connections may be at something.

use std::time::Duration;

use super::Stage;
use crate::{
    config::proxy::Bounds,
    proxy::front::ending::{LINGER, LINGER_NEW},
};

/// How long connections may be at something, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::front) struct Pace {
    /// A request's head, from its first byte or from the connection's beginning.
    pub(in crate::proxy::front) head: u64,
    /// Without a request.
    pub(in crate::proxy::front) keep_alive: u64,
    /// Without a request at a stop: so that what is on its way arrives.
    pub(in crate::proxy::front) linger: u64,
    /// The same of connections that began after it.
    pub(in crate::proxy::front) linger_new: u64,
    /// Between two rounds.
    pub(in crate::proxy::front) grain: u64,
}

impl Pace {
    /// As the bounds say. Each is kept to a quarter of it, or better.
    pub(in crate::proxy::front) fn new(bounds: &Bounds) -> Self {
        let head = milliseconds(bounds.head_timeout);
        let keep_alive = milliseconds(bounds.keep_alive);
        let linger_new = milliseconds(LINGER_NEW);
        Self {
            head,
            keep_alive,
            linger: milliseconds(LINGER),
            linger_new,
            grain: (head.min(keep_alive).min(linger_new) / 4).clamp(1, 250),
        }
    }

    /// How long it may be at this.
    pub(super) fn of(&self, stage: Stage) -> Option<u64> {
        match stage {
            Stage::Opening | Stage::Head | Stage::Leaving => Some(self.head),
            Stage::Busy => None,
            Stage::Rest | Stage::Idle => Some(self.keep_alive),
        }
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4)
}
