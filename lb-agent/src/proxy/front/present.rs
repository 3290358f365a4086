//! Whom connections count with, until they are dropped.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{admission::Admitted, ending::Elder};
use crate::proxy::telemetry::counts::OfListener;

/// A connection that is there.
#[derive(Debug)]
pub(super) struct Present {
    _admitted: Admitted,
    /// From before a stop.
    elder: Option<Elder>,
    /// On this thread.
    open: Arc<AtomicUsize>,
    counts: Arc<OfListener>,
}

impl Present {
    pub(super) fn new(
        admitted: Admitted,
        elder: Option<Elder>,
        open: &Arc<AtomicUsize>,
        counts: &Arc<OfListener>,
    ) -> Self {
        open.fetch_add(1, Relaxed);
        counts.open.fetch_add(1, Relaxed);
        Self {
            _admitted: admitted,
            elder,
            open: Arc::clone(open),
            counts: Arc::clone(counts),
        }
    }

    /// It was there before a stop.
    pub(super) fn is_elder(&self) -> bool {
        self.elder.is_some()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
        self.counts.open.fetch_sub(1, Relaxed);
    }
}
