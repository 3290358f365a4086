//! The retry budget: retries in proportion to requests, so that they never become the load that
//! keeps a service down.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seconds that are looked at.
const WINDOW: u64 = 10;

/// Requests and retries of the last ten seconds, counted by all threads.
#[derive(Debug, Default)]
pub struct RetryBudget {
    seconds: [Second; WINDOW as usize],
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

    fn within(&self, second: u64) -> u64 {
        let held = self.0.load(Relaxed);
        let age = (second & MASK).wrapping_sub(held >> BITS);
        if age < WINDOW { held & MASK } else { 0 }
    }
}

impl RetryBudget {
    /// Counts a request, in second `now` since any fixed beginning.
    pub fn request(&self, now: u64) {
        self.at(now).requests.add(now);
    }

    /// Takes one retry, if `percent` of the requests and `floor` a second allow it.
    pub fn take(&self, now: u64, percent: u32, floor: u32) -> bool {
        let allowed = self.left(now, percent, floor) >= 1;
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
