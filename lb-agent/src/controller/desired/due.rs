//! What has an end by itself: holds, ejections, slow starts, shifts; and whom that end concerns.

use std::time::SystemTime;

use super::Desired;
use crate::domain::{guard::Guard, shift::Steering, vanished::Believed};

impl Desired {
    /// When a hold, an ejection or a step of a slow start ends.
    pub(crate) fn next_deadline(&self) -> Option<SystemTime> {
        let all = [
            self.listings_due(),
            self.said_due(),
            self.health.next_deadline(),
        ];
        all.into_iter().flatten().min()
    }

    /// The same of what guards look at again with every snapshot, and of shifts, which are part of
    /// each.
    fn listings_due(&self) -> Option<SystemTime> {
        let guards = self.guards.values().filter_map(Guard::next_deadline);
        let unremembered = self.unremembered.values().flatten().copied();
        let shifts = self.shifts.values().filter_map(Steering::next_deadline);
        guards.chain(unremembered).chain(shifts).min()
    }

    /// The same of what counts for any service.
    fn said_due(&self) -> Option<SystemTime> {
        let entries = self.entries.values().filter_map(Believed::next_deadline);
        entries.chain(self.keys.next_deadline()).min()
    }

    /// Notes of which services something has come to its end; answers whether of any.
    pub(crate) fn touch_due(&mut self, now: SystemTime) -> bool {
        let is_due = |at: Option<SystemTime>| at.is_some_and(|at| at <= now);
        if is_due(self.said_due()) {
            self.touched.all = true;
            return true;
        }
        let services = self.health.due(now);
        let due = !services.is_empty() || is_due(self.listings_due());
        self.touched.services.extend(services);
        due
    }
}
