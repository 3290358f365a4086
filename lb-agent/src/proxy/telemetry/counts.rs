//! Counters and histograms of the proxy: relaxed atomics behind `Arc`s.
//!
//! Whoever serves requests resolves the `Arc` of a service, route or backend once and keeps it
//! beside what it knows of these; from then on counting takes no lock. What is counted with every
//! request each thread counts for itself ([`Share`]). Series are kept here until [`Counts::keep`]
//! finds that their service or backend has vanished.

mod codes;
mod histogram;
mod route;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

pub use self::{
    codes::{Codes, GrpcCodes},
    histogram::{Histogram, LATENCY, OVERHEAD},
    route::{Finished, OfBackend, OfRoute, Share},
};
use crate::domain::snapshot::Snapshot;

/// Routes of a service that are told apart; requests of further ones are counted under
/// [`OTHER`].
const MAX_ROUTES: usize = 256;
/// The name of routes beyond these.
pub const OTHER: &str = "other";

/// A map that hardly ever grows.
#[derive(Debug)]
pub struct Register<K, V>(RwLock<BTreeMap<K, Arc<V>>>);

impl<K, V> Default for Register<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Ord + Clone, V: Default> Register<K, V> {
    /// What stands under `key`, which is made if it is new.
    fn entry(&self, key: K) -> Arc<V> {
        // A panic elsewhere leaves whole entries behind.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(&key) {
            return Arc::clone(value);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(key).or_default())
    }

    /// Forgets what nobody holds any more.
    fn keep_held(&self) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, value| Arc::strong_count(value) > 1);
    }

    fn keep(&self, mut wanted: impl FnMut(&K) -> bool) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|key, _| wanted(key));
    }

    /// All entries, in order.
    pub fn all(&self) -> Vec<(K, Arc<V>)> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = known.iter();
        all.map(|(key, value)| (key.clone(), Arc::clone(value)))
            .collect()
    }

    fn len_without(&self, key: &K) -> usize {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.len() - usize::from(known.contains_key(key))
    }
}

/// All of the proxy's counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// By name; requests that no route fitted are those of `""`.
    pub services: Register<Arc<str>, OfService>,
    /// By the address they listen on.
    pub listeners: Register<SocketAddr, OfListener>,
    /// What was not written down.
    pub losses: Arc<Losses>,
    /// What became of spans.
    pub spans: Arc<SpanCounts>,
}

impl Counts {
    /// Of a service.
    pub fn service(&self, name: &Arc<str>) -> Arc<OfService> {
        self.services.entry(Arc::clone(name))
    }

    /// Of a listener.
    pub fn listener(&self, address: SocketAddr) -> Arc<OfListener> {
        self.listeners.entry(address)
    }

    /// Forgets listeners that are closed and whose connections have ended.
    pub fn keep_open(&self) {
        self.listeners.keep_held();
    }

    /// Forgets services and backends that are not in `snapshot`. What is still counted under them
    /// by requests under way is lost.
    pub fn keep(&self, snapshot: &Snapshot) {
        self.services
            .keep(|name| name.is_empty() || snapshot.services.contains_key(&**name));
        for (name, service) in self.services.all() {
            let Some(state) = snapshot.services.get(&*name) else {
                continue;
            };
            let known = |backend: SocketAddr| {
                let mut backends = state.backends.iter();
                backends.any(|known| known.address() == backend)
            };
            service.pools.keep(|backend| known(*backend));
            for (_, route) in service.routes.all() {
                route.keep(known);
            }
        }
    }
}

/// Of a service.
#[derive(Debug, Default)]
pub struct OfService {
    /// By the route's printable name.
    pub routes: Register<Arc<str>, OfRoute>,
    /// Connections, by backend.
    pub pools: Register<SocketAddr, Pool>,
    /// Tries after the first.
    pub retries: AtomicU64,
    /// Retries that the budget did not allow.
    pub retries_refused: AtomicU64,
    /// Retries that the budget allows now.
    pub budget_left: AtomicU64,
    /// Second tries beside slow firsts.
    pub hedges: AtomicU64,
    /// Hedges that answered first.
    pub hedges_won: AtomicU64,
}

impl OfService {
    /// Of a route, or of all further ones if there are too many.
    pub fn route(&self, name: &Arc<str>) -> Arc<OfRoute> {
        let name = if self.routes.len_without(name) < MAX_ROUTES {
            Arc::clone(name)
        } else {
            OTHER.into()
        };
        self.routes.entry(name)
    }

    /// Of the connections to a backend.
    pub fn pool(&self, backend: SocketAddr) -> Arc<Pool> {
        self.pools.entry(backend)
    }
}

/// Connections to a backend, of all threads.
#[derive(Debug, Default)]
pub struct Pool {
    /// Open, as of the last second.
    pub open: AtomicU32,
    /// Requests that wait for one, as of the last second.
    pub pending: AtomicU32,
    /// Opened since the beginning.
    pub opened: AtomicU64,
    /// Not opened: refused, not answered, no TLS.
    pub failed: AtomicU64,
}

/// Of a listener.
#[derive(Debug, Default)]
pub struct OfListener {
    /// Connections now.
    pub open: AtomicI64,
    /// Connections taken since the beginning.
    pub accepted: AtomicU64,
    /// Connections closed at once, for a client has too many.
    pub refused: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// Requests whose head was refused before there was anything to route.
    pub unread: Codes,
}

/// What was not written down.
#[derive(Debug, Default)]
pub struct Losses {
    lines: AtomicU64,
}

impl Losses {
    pub(super) fn line(&self) {
        self.lines.fetch_add(1, Relaxed);
    }

    /// Lines of the access log that were not written.
    pub fn lost_lines(&self) -> u64 {
        self.lines.load(Relaxed)
    }
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
}

impl SpanCounts {
    pub(super) fn exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Relaxed);
    }

    pub(super) fn failed(&self, spans: u64) {
        self.failed.fetch_add(spans, Relaxed);
    }

    /// Those of a request with so many tries.
    pub(super) fn lost(&self, tries: usize) {
        self.lost.fetch_add(1 + tries as u64, Relaxed);
    }

    /// All, by name: taken by the receiver; refused by it or given up; dropped, for too many
    /// waited.
    pub fn all(&self) -> [(&'static str, u64); 3] {
        let all = [
            ("exported", &self.exported),
            ("failed", &self.failed),
            ("lost", &self.lost),
        ];
        all.map(|(name, count)| (name, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests;
