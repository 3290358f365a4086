//! What is counted with every request: by each thread for itself, and added up by whoever reads.
//!
//! A counter that several threads write is in the cache of one of their processors at a time, and
//! every request would wait for a dozen of them to come over.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Codes, GrpcCodes, Histogram, LATENCY, OVERHEAD, Register};
use crate::domain::http::exchange::Outcome;

/// Of a route of a service.
#[derive(Debug, Default)]
pub struct OfRoute(Register<usize, Share>);

impl OfRoute {
    /// What the thread of this number counts.
    pub fn share(&self, thread: usize) -> Arc<Share> {
        self.0.entry(thread)
    }

    /// What all of them have counted.
    pub fn sum(&self) -> Share {
        let sum = Share::default();
        for (_, share) in self.0.all() {
            sum.absorb(&share);
        }
        sum
    }

    /// Forgets backends that are not known.
    pub(super) fn keep(&self, known: impl Fn(SocketAddr) -> bool) {
        for (_, share) in self.0.all() {
            let backends = &share.backends;
            backends.keep(|(_, backend)| backend.is_none_or(&known));
        }
    }
}

/// What one thread counts of a route. It begins a line of memory, for what lies before it is another
/// thread's.
#[derive(Debug)]
#[repr(align(64))]
pub struct Share {
    /// Requests under way.
    pub active: AtomicI64,
    /// Bytes of requests' bodies.
    pub received: AtomicU64,
    /// Bytes of answers' bodies.
    pub sent: AtomicU64,
    /// Until all was over.
    pub total: Histogram,
    /// Until the head of the answer went to the client.
    pub first_byte: Histogram,
    /// The part of that which the proxy took.
    pub overhead: Histogram,
    /// Calls of gRPC.
    pub grpc: GrpcCodes,
    /// By subset (`""`: none) and by the backend that answered or was tried last.
    pub backends: Register<(Arc<str>, Option<SocketAddr>), OfBackend>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            active: AtomicI64::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            total: Histogram::new(LATENCY),
            first_byte: Histogram::new(LATENCY),
            overhead: Histogram::new(OVERHEAD),
            grpc: GrpcCodes::default(),
            backends: Register::default(),
        }
    }
}

/// Of a backend on a route.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct OfBackend {
    /// Requests.
    pub codes: Codes,
}

/// The part of an exchange that is counted, known without a record.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Status sent to the client; 0: none was.
    pub status: u16,
    /// Why it ended.
    pub outcome: Outcome,
    /// Of a call of gRPC: its `grpc-status`, if one was sent.
    pub grpc: Option<Option<u32>>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Until all was over.
    pub total: Duration,
    /// Until the head of the answer went to the client.
    pub first_byte: Option<Duration>,
    /// The part of that which the proxy took.
    pub overhead: Option<Duration>,
}

impl Share {
    /// Of a backend of the route; `None`: no backend was tried.
    pub fn backend(&self, subset: Arc<str>, backend: Option<SocketAddr>) -> Arc<OfBackend> {
        self.backends.entry((subset, backend))
    }

    /// Counts a request that is over, under the backend that answered or was tried last.
    pub fn finish(&self, backend: &OfBackend, finished: &Finished) {
        backend.codes.add(finished.status, finished.outcome);
        if let Some(status) = finished.grpc {
            self.grpc.add(status);
        }
        self.received.fetch_add(finished.received, Relaxed);
        self.sent.fetch_add(finished.sent, Relaxed);
        // How long an upgraded connection was open says nothing of latency.
        if finished.outcome != Outcome::Upgraded {
            self.total.add(finished.total);
        }
        if let Some(time) = finished.first_byte {
            self.first_byte.add(time);
        }
        if let Some(time) = finished.overhead {
            self.overhead.add(time);
        }
    }

    fn absorb(&self, other: &Self) {
        self.active.fetch_add(other.active.load(Relaxed), Relaxed);
        for (sum, part) in [(&self.received, &other.received), (&self.sent, &other.sent)] {
            sum.fetch_add(part.load(Relaxed), Relaxed);
        }
        for (sum, part) in [
            (&self.total, &other.total),
            (&self.first_byte, &other.first_byte),
            (&self.overhead, &other.overhead),
        ] {
            sum.absorb(part);
        }
        self.grpc.absorb(&other.grpc);
        for ((subset, address), backend) in other.backends.all() {
            self.backend(subset, address).codes.absorb(&backend.codes);
        }
    }
}
