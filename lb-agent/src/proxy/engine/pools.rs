//! The pools of one thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Shared,
    upstream::Pool,
    view::Backend,
    warm::{self, Ways},
};

/// Between two looks for connections that are idle for too long.
const SWEEP: Duration = Duration::from_millis(500);

/// By key of the backend.
#[derive(Debug, Default)]
pub(super) struct Pools(RefCell<HashMap<u64, Rc<Pool>>>);

impl Pools {
    pub(super) fn of(&self, backend: &Arc<Backend>) -> Rc<Pool> {
        let mut pools = self.0.borrow_mut();
        let pool = pools.entry(backend.key);
        Rc::clone(pool.or_insert_with(|| Pool::new(Arc::clone(backend))))
    }

    /// Closes what has been idle for too long, and the pools of backends that are gone, which requests
    /// from before may still make. Those that hold nothing are dropped: at rest there is none to look at.
    fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|_, pool| {
            if pool.backend.is_gone() {
                pool.close();
                return false;
            }
            pool.sweep(now);
            Rc::strong_count(pool) > 1 || pool.holds_something(now)
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Keeps the pools tidy and warm as long as there is an engine.
pub(super) async fn keep(pools: Weak<Pools>, shared: Arc<Shared>, ways: Ways) {
    let ways = Rc::new(ways);
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pools) = pools.upgrade() else { return };
        let now = Instant::now();
        pools.sweep(now);
        warm::look(&pools, &shared, &ways, now);
    }
}
