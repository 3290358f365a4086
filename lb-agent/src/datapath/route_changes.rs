//! Whether the node's routes have changed: the resolver hears of it from the kernel, and whoever
//! asked the routes anything asks again only then.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A count of changes, shared by who notes them and who follows. 0: nobody watches the routes.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteChanges(Arc<AtomicU64>);

impl RouteChanges {
    /// A number that changes with the routes; `None` while nobody watches them, and so anything may
    /// have changed.
    pub(super) fn count(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|count| *count > 0)
    }

    /// Somebody watches the routes from now on.
    pub(super) fn begin(&self) {
        self.note();
    }

    /// They have changed, or may have.
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Nobody watches them any more.
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_only_while_somebody_watches() {
        let changes = RouteChanges::default();
        let reader = changes.clone();
        assert_eq!(reader.count(), None);
        changes.begin();
        let first = reader.count();
        assert!(first.is_some());
        assert_eq!(reader.count(), first);
        changes.note();
        assert_ne!(reader.count(), first);
        changes.end();
        assert_eq!(reader.count(), None);
    }
}
