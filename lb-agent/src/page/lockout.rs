//! Wrong tokens, counted by where they come from: after a few, that address has to wait, whatever
//! it offers then.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Wrong tokens within [`WINDOW`] that are answered.
const FAILURES: u32 = 5;
/// From the first wrong token until the address may try again.
const WINDOW: Duration = Duration::from_secs(30);
/// Addresses that are remembered; those beyond count as one.
const ADDRESSES: usize = 1024;

/// Who has offered wrong tokens.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    failures: HashMap<Option<IpAddr>, Failures>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Lockout {
    /// How long this address must wait before it may offer another token; `None`: not at all.
    pub(super) fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.failures.get(&self.key(from))?;
        let wait = WINDOW.checked_sub(now.duration_since(failures.since))?;
        (failures.count >= FAILURES && !wait.is_zero()).then_some(wait)
    }

    /// Takes note of a wrong token.
    pub(super) fn note(&mut self, from: IpAddr, now: Instant) {
        self.failures
            .retain(|_, failures| now.duration_since(failures.since) < WINDOW);
        let failures = self.failures.entry(self.key(from)).or_insert(Failures {
            since: now,
            count: 0,
        });
        failures.count += 1;
    }

    fn key(&self, from: IpAddr) -> Option<IpAddr> {
        let known = self.failures.contains_key(&Some(from));
        (known || self.failures.len() < ADDRESSES).then_some(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn an_address_waits_after_a_few_and_others_do_not() {
        let (mut lockout, start) = (Lockout::default(), Instant::now());
        let (one, other) = (address(1), address(2));
        for failed in 0..FAILURES {
            assert_eq!(lockout.wait(one, start), None, "after {failed}");
            lockout.note(one, start);
        }
        assert_eq!(lockout.wait(one, start), Some(WINDOW));
        assert_eq!(lockout.wait(other, start), None);
        let later = start + WINDOW - Duration::from_secs(1);
        assert_eq!(lockout.wait(one, later), Some(Duration::from_secs(1)));
        assert_eq!(lockout.wait(one, start + WINDOW), None);
        lockout.note(one, start + WINDOW);
        assert_eq!(lockout.wait(one, start + WINDOW), None, "a new window");
    }

    #[test]
    fn memory_is_bounded() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        for n in 0..10 * ADDRESSES as u32 {
            lockout.note(address(n), now);
        }
        assert!(lockout.failures.len() <= ADDRESSES + 1);
        assert_eq!(lockout.wait(address(3), now), None, "one failure only");
        assert!(lockout.wait(address(u32::MAX), now).is_some(), "as one");
        lockout.note(address(3), now + WINDOW);
        assert_eq!(lockout.failures.len(), 1);
    }
}
