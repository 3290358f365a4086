//! What becomes of a request: where it goes, how often it is tried, and how its answer comes back.

mod admit;
mod affinity;
mod answer;
mod attempt;
mod beside;
mod body;
mod clock;
mod counted;
mod failed;
mod ledger;
mod outgoing;
mod passive;
mod pools;
mod replay;
mod routed;
mod serve;
mod tally;
mod tries;
mod upgrade;
mod upstream;
mod view;
mod warm;

#[cfg(test)]
pub(super) mod tests;

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use hyper::body::Incoming;

pub use self::body::{BrokenOff, EngineBody};
use self::{clock::Clock, pools::Pools, tally::Tallies, upstream::TlsConfigs, view::View};
use crate::{
    domain::{http::texts::Texts, signal::Signal, snapshot::Snapshot},
    proxy::{HEADERS, telemetry::Telemetry},
};

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The client, as a PROXY protocol header says if there was one.
    pub client: SocketAddr,
    /// Whoever made the connection.
    pub peer: SocketAddr,
    /// Where it connected to.
    pub listener: SocketAddr,
    /// Over TLS.
    pub tls: bool,
    /// What its peer says of the hops before is believed.
    pub trusted: bool,
    /// The service whose VIP it connected to; `None`: requests are routed by their host.
    pub service: Option<Arc<str>>,
    /// Headers that a request may have.
    pub headers: usize,
}

/// What the engines of all threads have in common.
#[derive(Debug)]
pub struct Shared {
    view: ArcSwap<View>,
    telemetry: Telemetry,
    /// Engines there are: bounds of connections that lie idle are shared between them.
    threads: usize,
    /// Headers that the answer of a backend may have.
    headers: usize,
    epoch: Instant,
}

impl Shared {
    /// For `threads` engines, whose clients may send `headers` headers; backends may send as many or
    /// more. There are no services before [`Shared::update`].
    pub fn new(telemetry: Telemetry, threads: usize, headers: usize) -> Arc<Self> {
        Arc::new(Self {
            view: ArcSwap::default(),
            telemetry,
            threads: threads.max(1),
            headers: headers.max(HEADERS),
            epoch: Instant::now(),
        })
    }

    /// Serves by `snapshot` from now on. To be called by one task only.
    pub fn update(&self, snapshot: &Snapshot) {
        let former = self.view.load_full();
        let view = Arc::new(View::build(snapshot, &former, self.telemetry.counts()));
        self.view.store(Arc::clone(&view));
        view.succeed(&former);
        self.telemetry.counts().keep(snapshot);
    }

    /// What requests have told of backends since this was last asked, for their ejection; about
    /// once a second.
    pub fn signals(&self) -> Vec<Signal> {
        let view = self.view.load();
        view.gauge(self.epoch.elapsed().as_secs());
        passive::take(&view)
    }

    /// Idle connections that one thread keeps to a backend.
    fn share(&self, all: u32) -> u32 {
        all.div_ceil(self.threads as u32)
    }

    /// What is told of requests.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }
}

/// Serves requests on one thread.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    clock: Rc<Clock>,
    pools: Rc<Pools>,
    tls: Rc<TlsConfigs>,
    tallies: Tallies,
    random: RefCell<fastrand::Rng>,
    texts: RefCell<Texts>,
}

impl Engine {
    /// The engine of this thread, within whose `LocalSet` it must be made and used; threads of
    /// different `number` count each for itself.
    pub fn new(shared: Arc<Shared>, number: usize) -> Self {
        let pools = Rc::<Pools>::default();
        let (clock, tls) = (Clock::start(), Rc::<TlsConfigs>::default());
        let ways = warm::Ways {
            clock: Rc::clone(&clock),
            tls: Rc::clone(&tls),
            headers: shared.headers,
        };
        tokio::task::spawn_local(pools::keep(
            Rc::downgrade(&pools),
            Arc::clone(&shared),
            ways,
        ));
        Self {
            tallies: Tallies::new(shared.telemetry.counts(), number),
            shared,
            clock,
            pools,
            tls,
            random: RefCell::new(fastrand::Rng::new()),
            texts: RefCell::default(),
        }
    }

    /// Serves a request. Never fails: every outcome is an answer.
    pub async fn handle(
        self: &Rc<Self>,
        request: http::Request<Incoming>,
        arrival: &Arc<Arrival>,
    ) -> http::Response<EngineBody> {
        self.serve(request, arrival).await
    }

    /// Where a client connected to who arrived at `socket`, which is that of a service's VIPs if
    /// `service` is told.
    pub fn connected_to(&self, service: Option<&str>, socket: SocketAddr) -> SocketAddr {
        let view = self.shared.view.load();
        let service = service.and_then(|name| view.services.get(name));
        service.map_or(socket, |service| service.connected_to(socket))
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Nanoseconds since the beginning.
    fn nanoseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.shared.epoch).as_nanos() as u64
    }

    /// Idle connections that this thread keeps to a backend.
    fn share(&self, all: u32) -> u32 {
        self.shared.share(all)
    }
}

/// A time as `total` of a route may be: beyond any patience it is no bound.
const FOREVER: Duration = Duration::from_secs(30 * 24 * 3600);
