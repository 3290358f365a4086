//! What comes by itself when its time has come: rules, holds and drains that end, steps of shifts.

use std::time::{Duration, SystemTime};

use tracing::error;

use super::{Controller, TICK, steady};
use crate::domain::kernel::Kernel;

/// Between two looks at what is due.
const SOONEST: Duration = Duration::from_millis(10);

impl<K: Kernel> Controller<K> {
    /// Sleeps until the next rule, hold or drain ends.
    pub(super) fn sleep_until_deadline(&self) -> impl Future<Output = ()> + use<K> {
        // Each by its own clock.
        let until = |at: SystemTime, now| at.duration_since(now).unwrap_or_default();
        let ends = [self.blocks.next_expiry(), self.next_drain()];
        let ends = ends.into_iter().flatten().min();
        let ends = ends.map(|at| until(at, SystemTime::now()));
        let hold = self.desired.next_deadline();
        let hold = hold.map(|at| until(at, steady::now()));
        let next = [ends, hold].into_iter().flatten().min();
        async move {
            match next {
                Some(wait) => {
                    // The wall clock may step: look again from time to time. What cannot be ended
                    // stays due: no tight loop.
                    tokio::time::sleep(wait.clamp(SOONEST, TICK)).await;
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Ends what has come to its end.
    pub(super) async fn expire(&mut self) {
        let now = SystemTime::now();
        match self.blocks.expire(&mut self.kernel.kernel, now) {
            Ok(0) => {}
            Ok(_) => self.save(),
            Err(error) => error!(%error, "an expired block rule could not be removed"),
        }
        let drains_end = self.next_drain().is_some_and(|at| at <= now);
        if drains_end {
            self.end_drains(now);
        }
        if drains_end {
            self.reconcile().await;
        } else if self.desired.touch_due(steady::now()) {
            self.follow().await;
        }
    }
}
