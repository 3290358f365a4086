//! The retry budget: retries in proportion to requests, so that they never become the load that
//! keeps a service down.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Seconds that are looked at.
const WINDOW: u64 = 10;

/// Requests and retries of the last ten seconds, counted by all threads.
#[derive(Debug, Default)]
pub struct RetryBudget {
    seconds: [Second; WINDOW as usize],
    /// Who holds this takes retries: of two threads that see the last one, one gets it.
    taking: Mutex<()>,
}

/// Counts of one second; the second stands above the count, so that one exchange resets both.
#[derive(Debug, Default)]
struct Second {
    requests: Count,
    retries: Count,
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

const BITS: u32 = 32;
const MASK: u64 = (1 << BITS) - 1;

impl Count {
    fn add(&self, second: u64) {
        let mut held = self.0.load(Relaxed);
        loop {
            if held >> BITS == second & MASK {
                // Late ones of a second that has just ended may count for the next: no matter.
                self.0.fetch_add(1, Relaxed);
                return;
            }
            let fresh = (second & MASK) << BITS | 1;
            match self.0.compare_exchange_weak(held, fresh, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => held = now,
            }
        }
    }

    /// What another thread counted in a second that has not begun for this one belongs to it too.
    fn within(&self, second: u64) -> u64 {
        let held = self.0.load(Relaxed);
        let age = (second as u32).wrapping_sub((held >> BITS) as u32) as i32;
        let is_within = u64::from(age.unsigned_abs()) < WINDOW;
        if is_within { held & MASK } else { 0 }
    }
}

impl RetryBudget {
    /// Counts a request, in second `now` since any fixed beginning.
    pub fn request(&self, now: u64) {
        self.at(now).requests.add(now);
    }

    /// Takes one retry, if `percent` of the requests and `floor` a second allow it; never one more,
    /// whatever other threads take at the same time. Nobody waits to be refused.
    pub fn take(&self, now: u64, percent: u32, floor: u32) -> bool {
        let is_left = || self.left(now, percent, floor) >= 1;
        if !is_left() {
            return false;
        }
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = is_left();
        if allowed {
            self.at(now).retries.add(now);
        }
        allowed
    }

    /// Retries that would be allowed now.
    pub fn left(&self, now: u64, percent: u32, floor: u32) -> u64 {
        let (mut requests, mut retries) = (0, 0);
        for second in &self.seconds {
            requests += second.requests.within(now);
            retries += second.retries.within(now);
        }
        let allowed = requests * u64::from(percent) / 100 + u64::from(floor) * WINDOW;
        allowed.saturating_sub(retries)
    }

    /// Whether there was a request in the last ten seconds.
    pub fn is_asked(&self, now: u64) -> bool {
        let mut seconds = self.seconds.iter();
        seconds.any(|second| second.requests.within(now) > 0)
    }

    fn at(&self, now: u64) -> &Second {
        &self.seconds[(now % WINDOW) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn percent_and_floor_of_ten_seconds() {
        for (requests, percent, floor, expected) in [
            (0, 20, 0, 0),
            (0, 20, 1, 10),
            (100, 20, 0, 20),
            (100, 20, 1, 30),
            (100, 0, 0, 0),
        ] {
            let budget = RetryBudget::default();
            for one in 0..requests {
                budget.request(100 + one % 10);
            }
            let now = 109;
            let taken = (0..1000)
                .filter(|_| budget.take(now, percent, floor))
                .count();
            assert_eq!(taken, expected, "{requests} {percent} {floor}");
        }
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        for round in 0..500 {
            let budget = RetryBudget::default();
            let start = Barrier::new(4);
            let takes = |thread: u64| {
                start.wait();
                // Some see the next second already.
                let now = 100 + (round + thread) % 2;
                (0..20).filter(|_| budget.take(now, 0, 1)).count()
            };
            let taken: usize = std::thread::scope(|scope| {
                let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || takes(thread)));
                threads.map(|thread| thread.join().unwrap()).iter().sum()
            });
            assert_eq!(taken, WINDOW as usize, "round {round}");
        }
    }

    #[test]
    fn what_is_older_is_forgotten() {
        let budget = RetryBudget::default();
        for _ in 0..50 {
            budget.request(5);
        }
        assert_eq!(budget.left(14, 10, 0), 5);
        assert_eq!(budget.left(15, 10, 0), 0);
        budget.request(15);
        assert_eq!(budget.left(15, 100, 0), 1);
        assert!(budget.take(15, 100, 0));
        assert!(!budget.take(16, 100, 0));
        assert_eq!(budget.left(25, 100, 0), 0);
        for (second, expected) in [
            (15, true),
            (24, true),
            (25, false),
            (u64::from(u32::MAX), false),
        ] {
            assert_eq!(budget.is_asked(second), expected, "{second}");
        }
        assert!(!RetryBudget::default().is_asked(3));
    }
}
