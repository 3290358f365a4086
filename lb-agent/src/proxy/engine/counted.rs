//! What is counted as long as it is there.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::{
    upstream::Pool,
    view::{Backend, Held, Life},
};

/// One more of something that is counted by all threads, as long as it lives.
#[derive(Debug)]
pub(super) struct Counted<T: AsRef<AtomicU32>>(T);

impl<T: AsRef<AtomicU32>> Counted<T> {
    /// Counts it in any case.
    pub(super) fn add(counter: T) -> Self {
        counter.as_ref().fetch_add(1, Relaxed);
        Self(counter)
    }

    /// Counts it, unless there are `limit` already.
    pub(super) fn below(counter: T, limit: u32) -> Option<Self> {
        let before = counter.as_ref().fetch_add(1, Relaxed);
        let counted = Self(counter);
        (before < limit).then_some(counted)
    }
}

impl<T: AsRef<AtomicU32>> Drop for Counted<T> {
    fn drop(&mut self) {
        self.0.as_ref().fetch_sub(1, Relaxed);
    }
}

/// Names one counter of what is shared.
macro_rules! counter {
    ($name:ident, $of:ty, $held:ident => $counter:expr) => {
        #[derive(Clone, Debug)]
        pub(super) struct $name(pub(super) $of);

        impl AsRef<AtomicU32> for $name {
            fn as_ref(&self) -> &AtomicU32 {
                let $held = &self.0;
                &$counter
            }
        }
    };
}

counter!(OfService, Rc<Held>, held => held.life.requests);
counter!(OfPending, Arc<Life>, held => held.pending);
counter!(OfBackend, Rc<Pool>, held => held.backend.requests);
counter!(OfConnections, Arc<Backend>, held => held.connections);
counter!(OfWanted, Arc<Backend>, held => held.wanted);
