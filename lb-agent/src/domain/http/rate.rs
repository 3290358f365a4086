//! Rates that clients may not exceed: which of a service's limits a request comes under, and whether
//! it may pass.
//!
//! The generic cell rate algorithm of `governor`, by keys that are hashes, so that nobody's header
//! decides on the size of an entry. Memory is bounded: keys that have their whole burst back are
//! forgotten, and where so many are left all the same, they share buckets until there are fewer.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};

use super::{
    plain_path::plain,
    policy::{RateKey, RateLimit},
};

/// Keys of one limit before they share buckets.
const MOST: usize = 65_536;
/// Buckets that are shared; a power of two.
const SHARED: u64 = 4096;
/// Requests between two looks at the number of keys.
const LOOK: u64 = 1024;

/// The limits of one service, with what they have counted. To be kept as long as the policy names
/// the same limits.
#[derive(Debug, Default)]
pub struct Rates {
    limiters: Vec<Limiter>,
    hasher: RandomState,
}

/// What is said to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rated {
    /// It may pass.
    pub allowed: bool,
    /// The limit that is closest, by its place in the policy.
    pub limit: usize,
    /// Requests at once that it allows.
    pub burst: u32,
    /// How many of them are left.
    pub remaining: u32,
    /// Until all of them are there again; for one that may not pass, until it may.
    pub reset: Duration,
}

/// The clock of the domain: it goes where its callers say.
#[derive(Clone, Debug, Default)]
struct Told(Arc<AtomicU64>);

impl Clock for Told {
    type Instant = governor::nanos::Nanos;

    fn now(&self) -> Self::Instant {
        self.0.load(Relaxed).into()
    }
}

type Keyed = RateLimiter<u64, DashMapStateStore<u64>, Told, StateInformationMiddleware>;

#[derive(Debug)]
struct Limiter {
    limit: RateLimit,
    clock: Told,
    keyed: Keyed,
    /// From one request of the even rate to the next.
    interval: Duration,
    asked: AtomicU64,
    crowded: AtomicBool,
}

/// Who counts as one client: an IPv4 address, or a /64 of IPv6, for whoever has an address there has
/// all of it.
pub fn client_network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let net = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(net))
        }
        v4 => v4,
    }
}

impl Rates {
    /// Limits that have counted nothing yet.
    pub fn new(limits: &[RateLimit]) -> Self {
        Self {
            limiters: limits.iter().cloned().map(Limiter::new).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Whether these are the limits that the policy names.
    pub fn are(&self, limits: &[RateLimit]) -> bool {
        let own = self.limiters.iter().map(|one| &one.limit);
        own.eq(limits)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.limiters.is_empty()
    }

    /// Counts a request; `None`: no limit is about it. All limits count until one refuses. `now` is
    /// the time since any fixed moment.
    pub fn check(
        &self,
        client: IpAddr,
        path: &str,
        headers: &HeaderMap,
        now: Duration,
    ) -> Option<Rated> {
        let client = client.to_canonical();
        let mut closest: Option<Rated> = None;
        for (place, limiter) in self.limiters.iter().enumerate() {
            if !limiter.concerns(client, path) {
                continue;
            }
            let key = limiter.key(client, headers, &self.hasher);
            let rated = limiter.check(key, place, now);
            if !rated.allowed {
                return Some(rated);
            }
            if closest.is_none_or(|closest| rated.remaining < closest.remaining) {
                closest = Some(rated);
            }
        }
        closest
    }

    /// Says it to the client: `RateLimit-*` as in draft-ietf-httpapi-ratelimit-headers-06, and
    /// `Retry-After` for one that may not pass.
    pub fn tell(&self, rated: &Rated, headers: &mut HeaderMap) {
        let seconds = rated.reset.as_secs() + u64::from(rated.reset.subsec_nanos() > 0);
        headers.insert("ratelimit-limit", rated.burst.into());
        headers.insert("ratelimit-remaining", rated.remaining.into());
        headers.insert("ratelimit-reset", seconds.into());
        if let Some(limiter) = self.limiters.get(rated.limit) {
            let RateLimit {
                requests,
                per,
                burst,
                ..
            } = &limiter.limit;
            let window = per.as_secs().max(1);
            let policy = format!("{requests};w={window};burst={burst}");
            if let Ok(policy) = HeaderValue::try_from(policy) {
                headers.insert("ratelimit-policy", policy);
            }
        }
        if !rated.allowed {
            headers.insert(RETRY_AFTER, seconds.max(1).into());
        }
    }
}

impl Limiter {
    fn new(limit: RateLimit) -> Self {
        let one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let interval = (limit.per / one(limit.requests).get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval);
        let quota = quota.unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let clock = Told::default();
        Self {
            keyed: RateLimiter::new(
                quota.allow_burst(one(limit.burst)),
                DashMapStateStore::default(),
                clock.clone(),
            ),
            clock,
            interval,
            limit,
            asked: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
        }
    }

    fn concerns(&self, client: IpAddr, path: &str) -> bool {
        let begins = self.limit.path.as_deref();
        begins.is_none_or(|prefix| path.starts_with(prefix) || plain(path).starts_with(prefix))
            && !self.limit.except.iter().any(|net| net.contains(&client))
    }

    fn key(&self, client: IpAddr, headers: &HeaderMap, hasher: &RandomState) -> u64 {
        fn hash(hasher: &RandomState, key: impl Hash) -> u64 {
            hasher.hash_one(key)
        }
        match &self.limit.by {
            RateKey::Everybody => 0,
            RateKey::Client => hash(hasher, client_network(client)),
            RateKey::Header(name) => match headers.get(name) {
                Some(value) => hash(hasher, value.as_bytes()),
                None => 0,
            },
        }
    }

    fn check(&self, key: u64, place: usize, now: Duration) -> Rated {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.clock.0.fetch_max(nanos, Relaxed);
        if self.asked.fetch_add(1, Relaxed) % LOOK == LOOK - 1 {
            self.look();
        }
        let key = match self.crowded.load(Relaxed) {
            true => key % SHARED,
            false => key,
        };
        let burst = self.limit.burst.max(1);
        let rated = |allowed, remaining, reset| Rated {
            allowed,
            limit: place,
            burst,
            remaining,
            reset,
        };
        match self.keyed.check_key(&key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity().min(burst);
                rated(true, remaining, self.interval * (burst - remaining))
            }
            Err(refusal) => {
                let now = self.clock.now();
                rated(false, 0, refusal.wait_time_from(now))
            }
        }
    }

    /// Forgets the keys that have their whole burst back.
    fn look(&self) {
        if self.keyed.len() > MOST / 2 {
            self.keyed.retain_recent();
            self.keyed.shrink_to_fit();
        }
        self.crowded.store(self.keyed.len() > MOST, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32, burst: u32, by: RateKey) -> RateLimit {
        RateLimit {
            requests,
            per: Duration::from_secs(10),
            burst,
            by,
            except: vec!["192.0.2.0/28".parse().unwrap()],
            path: None,
        }
    }

    fn with_key(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !value.is_empty() {
            headers.insert("x-key", value.parse().unwrap());
        }
        headers
    }

    /// Rows of what tells requests apart, and of requests one after the other: when (ms), client,
    /// header, whether it passes and how many are left.
    #[test]
    fn requests_pass_or_wait() {
        type Row<'a> = (u64, &'a str, &'a str, Option<(bool, u32)>);
        let rows: [(RateKey, &[Row]); 3] = [
            (
                RateKey::Client,
                &[
                    (0, "198.51.100.1", "", Some((true, 1))),
                    (0, "198.51.100.1", "", Some((true, 0))),
                    (0, "198.51.100.1", "", Some((false, 0))),
                    // The same client, as a socket of IPv6 names it.
                    (0, "::ffff:198.51.100.1", "", Some((false, 0))),
                    (0, "198.51.100.2", "", Some((true, 1))),
                    (999, "198.51.100.1", "", Some((false, 0))),
                    (1000, "198.51.100.1", "", Some((true, 0))),
                    (1000, "2001:db8::1", "", Some((true, 1))),
                    (1000, "2001:db8::2", "", Some((true, 0))),
                    (1000, "2001:db8:0:1::1", "", Some((true, 1))),
                    (1000, "192.0.2.1", "", None),
                ],
            ),
            (
                RateKey::Header("x-key".into()),
                &[
                    (0, "198.51.100.1", "a", Some((true, 1))),
                    (0, "198.51.100.2", "a", Some((true, 0))),
                    (0, "198.51.100.1", "a", Some((false, 0))),
                    (0, "198.51.100.1", "b", Some((true, 1))),
                    (0, "198.51.100.1", "", Some((true, 1))),
                    (0, "198.51.100.2", "", Some((true, 0))),
                ],
            ),
            (
                RateKey::Everybody,
                &[
                    (0, "198.51.100.1", "a", Some((true, 1))),
                    (0, "2001:db8::1", "b", Some((true, 0))),
                    (0, "198.51.100.2", "", Some((false, 0))),
                ],
            ),
        ];
        for (by, requests) in rows {
            let rates = Rates::new(&[limit(10, 2, by)]);
            for (at, client, key, expected) in requests {
                let now = Duration::from_millis(*at);
                let client = client.parse().unwrap();
                let rated = rates.check(client, "/", &with_key(key), now);
                let seen = rated.map(|rated| (rated.allowed, rated.remaining));
                assert_eq!(seen, *expected, "{client} {key} at {at}");
            }
        }
    }

    #[test]
    fn all_limits_hold_and_the_closest_is_told() {
        let mut form = limit(1, 1, RateKey::Everybody);
        form.path = Some("/form".into());
        let limits = [limit(100, 20, RateKey::Everybody), form];
        let rates = Rates::new(&limits);
        assert!(rates.are(&limits) && !rates.are(&limits[..1]));
        let ask = |path, at| {
            let client = "198.51.100.1".parse().unwrap();
            let rated = rates.check(client, path, &HeaderMap::new(), Duration::from_secs(at));
            let mut headers = HeaderMap::new();
            rates.tell(&rated.unwrap(), &mut headers);
            let words = ["limit", "remaining", "reset", "policy"];
            let words = words.map(|word| headers[&format!("ratelimit-{word}")].clone());
            let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
            let retry = headers
                .get(RETRY_AFTER)
                .map(|value| value.to_str().unwrap());
            format!("{} {}", words.join(" "), retry.unwrap_or("-"))
        };
        assert_eq!(ask("/", 0), "20 19 1 100;w=10;burst=20 -");
        assert_eq!(ask("/form", 0), "1 0 10 1;w=10;burst=1 -");
        assert_eq!(ask("/form", 4), "1 0 6 1;w=10;burst=1 6");
        assert_eq!(ask("/form", 10), "1 0 10 1;w=10;burst=1 -");
        for other in ["//form", "/%66orm", "/a/../form/b"] {
            assert_eq!(ask(other, 10), "1 0 10 1;w=10;burst=1 10", "{other}");
        }
    }

    /// However many clients there are, keys are bounded, and come back to single ones later.
    #[test]
    fn memory_is_bounded() {
        let rates = Rates::new(&[limit(1, 1, RateKey::Client)]);
        let limiter = &rates.limiters[0];
        let ask = |number: u32, at| {
            let client = IpAddr::V4(number.into());
            rates.check(client, "/", &HeaderMap::new(), Duration::from_secs(at))
        };
        for number in 0..200_000 {
            ask(0x0a00_0000 + number, 0);
        }
        let keys = limiter.keyed.len();
        assert!(keys > MOST, "{keys}");
        assert!(keys <= MOST + LOOK as usize + SHARED as usize, "{keys}");
        assert!(limiter.crowded.load(Relaxed));
        for number in 0..2 * LOOK as u32 {
            ask(0x0b00_0000 + number, 60);
        }
        assert!(!limiter.crowded.load(Relaxed));
        let keys = limiter.keyed.len();
        assert!(keys < 2 * LOOK as usize + SHARED as usize, "{keys}");
        assert_eq!(ask(0x0c00_0000, 60).map(|rated| rated.allowed), Some(true));
    }
}
