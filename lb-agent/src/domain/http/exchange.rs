//! What became of a request: one record, from which log, metrics and spans are made.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A request that the proxy has finished with. Durations count from [`Exchange::began`]. Of one whose
/// head could not be read, texts are empty and ids are 0.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When its head was complete.
    pub began: SystemTime,
    /// The client, as the PROXY protocol header says if there was one.
    pub client: SocketAddr,
    /// Whoever made the connection.
    pub peer: SocketAddr,
    /// The listener that took it.
    pub listener: SocketAddr,
    /// Whether the client spoke TLS.
    pub tls: bool,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub version: &'static str,
    /// Its method.
    pub method: String,
    /// `Host` or `:authority`.
    pub host: String,
    /// Path and query as sent.
    pub target: String,
    /// Path and query as backends got them, where that differs.
    pub rewritten: Option<String>,
    /// `User-Agent` and `Referer`, for the log.
    pub user_agent: Option<String>,
    /// The same.
    pub referer: Option<String>,
    /// The id that it carries through the system.
    pub request_id: String,
    /// Trace and span, as in W3C's `traceparent`; the span is the proxy's own, if it takes part in traces.
    pub trace: SpanContext,
    /// The span that it came with.
    pub parent: Option<u64>,
    /// The `tracestate` that it came with and that backends get.
    pub tracestate: Option<String>,
    /// Name of the service; `None`: no route fitted.
    pub service: Option<Arc<str>>,
    /// The route that fitted, in short.
    pub route: Option<Arc<str>>,
    /// Tries, in their order.
    pub tries: Vec<Try>,
    /// Status sent to the client; 0: none was.
    pub status: u16,
    /// It was gRPC.
    pub grpc: bool,
    /// `grpc-status` of the answer, in its head or trailers.
    pub grpc_status: Option<u32>,
    /// Bytes of bodies, as the client sent and got them.
    pub received: u64,
    /// The same of the answer.
    pub sent: u64,
    /// Why it ended.
    pub outcome: Outcome,
    /// Until a connection was looked for, to whom was chosen.
    pub prepared: Option<Duration>,
    /// Until the head of the answer went to the client.
    pub first_byte: Option<Duration>,
    /// Until all was over.
    pub total: Duration,
}

impl Exchange {
    /// The time that the proxy itself took until the head of the answer: to find out whom to ask, and to
    /// pass on what that said. Without all between them: connections, answers, pauses, further tries.
    pub fn overhead(&self) -> Option<Duration> {
        let upstream = self.tries.iter().map(|one| one.waited).max()?;
        Some(self.prepared? + self.first_byte?.saturating_sub(upstream))
    }

    /// Bytes of its texts, nearly all of which clients choose.
    pub fn texts(&self) -> usize {
        let own = [&self.method, &self.host, &self.target, &self.request_id];
        let own: usize = own.into_iter().map(String::len).sum();
        let more = [
            &self.rewritten,
            &self.user_agent,
            &self.referer,
            &self.tracestate,
        ];
        own + more.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// The try whose answer the client got: the last that has one, for of those beside each other
    /// the loser is cancelled. Without an answer the last try.
    pub fn answering(&self) -> Option<&Try> {
        let answered = self.tries.iter().rev().find(|one| one.result.is_ok());
        answered.or(self.tries.last())
    }
}

/// One try of a request on a backend.
#[derive(Clone, Debug)]
pub struct Try {
    /// The backend.
    pub backend: SocketAddr,
    /// Its subset.
    pub subset: Option<Arc<str>>,
    /// Its span.
    pub span: u64,
    /// From the request's beginning to that of the try.
    pub after: Duration,
    /// From the request's beginning to the head of the answer or the failure.
    pub waited: Duration,
    /// Status, or why there is none.
    pub result: Result<u16, NoAnswer>,
    /// `grpc-status` in the head of the answer; in trailers it is the request's.
    pub grpc_status: Option<u32>,
    /// It was sent beside another that had not answered.
    pub hedge: bool,
    /// The backend was spoken to over TLS.
    pub tls: bool,
    /// The backend was spoken to in HTTP/2.
    pub http2: bool,
}

/// Why a try had no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// One of few words, as in `connection_refused`.
    pub kind: &'static str,
    /// For people, as in `connection refused`.
    pub text: String,
}

impl NoAnswer {
    /// Of a try that the client did not wait for.
    pub fn client_gone() -> Self {
        Self {
            kind: Outcome::ClientGone.name(),
            text: "the client went away".into(),
        }
    }
}

/// Ids of W3C Trace Context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// Of the trace; 0: there is none.
    pub trace: u128,
    /// Of the span; 0: there is none.
    pub span: u64,
    /// Somebody records it.
    pub sampled: bool,
}

impl SpanContext {
    /// There is no trace.
    pub const NONE: Self = Self {
        trace: 0,
        span: 0,
        sampled: false,
    };
}

/// Why a request ended as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// A backend's answer went to the client, whole.
    Answered,
    /// The client went away before that.
    ClientGone,
    /// The backend broke off within its answer.
    BackendBrokeOff,
    /// No backend answered: connections failed or broke.
    BackendFailed,
    /// The patience of the route was over, or that with a head that does not become complete.
    TimedOut,
    /// Nothing came for longer than the idle time.
    Idle,
    /// No route fitted.
    NoRoute,
    /// The service has no usable backend.
    NoBackend,
    /// A bound of the service was reached.
    Overloaded,
    /// A rate limit.
    RateLimited,
    /// The client may not use the service.
    Forbidden,
    /// Not HTTP as it must be, or more than is allowed.
    BadRequest,
    /// It became another protocol and ended.
    Upgraded,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Answered,
        Self::ClientGone,
        Self::BackendBrokeOff,
        Self::BackendFailed,
        Self::TimedOut,
        Self::Idle,
        Self::NoRoute,
        Self::NoBackend,
        Self::Overloaded,
        Self::RateLimited,
        Self::Forbidden,
        Self::BadRequest,
        Self::Upgraded,
    ];

    /// In logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ClientGone => "client_gone",
            Self::BackendBrokeOff => "backend_broke_off",
            Self::BackendFailed => "backend_failed",
            Self::TimedOut => "timed_out",
            Self::Idle => "idle",
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::Forbidden => "forbidden",
            Self::BadRequest => "bad_request",
            Self::Upgraded => "upgraded",
        }
    }
}
