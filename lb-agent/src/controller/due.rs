//! What comes by itself when its time has come: rules and holds that end, steps of shifts.

use std::time::{Duration, SystemTime};

use tracing::error;

use super::{Controller, TICK};
use crate::domain::kernel::Kernel;

/// Between two looks at what is due.
const SOONEST: Duration = Duration::from_millis(10);

impl<K: Kernel> Controller<K> {
    /// Sleeps until the next rule or hold ends.
    pub(super) fn sleep_until_deadline(&self) -> impl Future<Output = ()> + use<K> {
        let next = [self.blocks.next_expiry(), self.desired.next_deadline()]
            .into_iter()
            .flatten()
            .min();
        async move {
            match next {
                Some(at) => {
                    let wait = at.duration_since(SystemTime::now()).unwrap_or_default();
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
        if self.desired.next_deadline().is_some_and(|at| at <= now) {
            self.reconcile().await;
        }
    }
}
