//! The pools of one thread.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Shared, upstream::Pool, view::Backend};

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

    /// Closes the pools of backends that are gone.
    fn keep_only(&self, keys: &HashSet<u64>) {
        self.0.borrow_mut().retain(|key, pool| {
            let stays = keys.contains(key);
            if !stays {
                pool.close();
            }
            stays
        });
    }
}

/// Keeps the pools tidy as long as there is an engine.
pub(super) async fn keep(pools: Weak<Pools>, shared: Arc<Shared>) {
    let mut version = 0;
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pools) = pools.upgrade() else { return };
        let view = shared.view.load();
        if view.version != version {
            version = view.version;
            pools.keep_only(&view.keys().collect());
        }
        drop(view);
        let now = Instant::now();
        let all: Vec<Rc<Pool>> = pools.0.borrow().values().cloned().collect();
        for pool in all {
            pool.sweep(now);
        }
    }
}
