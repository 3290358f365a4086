//! Whom connections count with, until they are dropped.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    admission::{Admission, Admitted},
    ending::Elder,
};
use crate::proxy::telemetry::counts::OfListener;

/// A connection that is there.
#[derive(Debug)]
pub(super) struct Present {
    admitted: Admitted,
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
            admitted,
            elder,
            open: Arc::clone(open),
            counts: Arc::clone(counts),
        }
    }

    /// Counts for a client that was told later; `false`: it has as many as it may.
    pub(super) fn is_of(&self, admission: &Arc<Admission>, client: IpAddr) -> bool {
        self.admitted.is_of(admission, client)
    }

    /// Those of its listener.
    pub(super) fn counts(&self) -> &OfListener {
        &self.counts
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
