//! The snapshot as the engine reads it, and what of services and backends outlives a snapshot.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use crate::domain::{
    backend::CatalogHealth,
    http::{
        budget::RetryBudget,
        ewma::PeakEwma,
        pick::{Candidate, Picker},
        policy::{Balance, HttpPolicy, Upstream, UpstreamVersion},
        rate::Rates,
        retry::Rules,
        routing::RoutingTable,
    },
    maglev,
    service::Protocol,
    snapshot::{BackendState, ServiceState, Snapshot},
};
use crate::proxy::telemetry::counts::{self, Counts};

/// All services that the proxy serves.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Of the snapshot.
    pub(super) version: u64,
    pub(super) services: HashMap<Arc<str>, Arc<Service>>,
    pub(super) routing: Arc<RoutingTable>,
}

/// A service at one version.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: Arc<str>,
    pub(super) policy: Arc<HttpPolicy>,
    pub(super) rules: Rules,
    pub(super) backends: Vec<Arc<Backend>>,
    all: Among,
    subsets: HashMap<String, Among>,
    pub(super) life: Arc<Life>,
    /// Its rate limits, with what they have counted.
    pub(super) rates: Arc<Rates>,
    pub(super) counts: Arc<counts::OfService>,
    /// What it was made of.
    state: Arc<ServiceState>,
}

/// Whom a request may go to: backends of a service, known by their indices.
#[derive(Debug)]
pub(super) struct Among {
    pub(super) picker: Picker,
    /// Maglev table, where values are hashed.
    pub(super) slots: Vec<u32>,
}

/// A service as one thread holds it: how many requests of the thread do no other thread need know, and
/// counting it would take the service's memory from the others' processors with every request.
#[derive(Debug)]
pub(super) struct Held(pub(super) Arc<Service>);

impl Deref for Held {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}

/// What of a service outlives snapshots.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) budget: RetryBudget,
    /// Under way.
    pub(super) requests: AtomicU32,
    /// Waiting for a connection.
    pub(super) pending: AtomicU32,
}

/// A backend, as long as it is spoken to in the same way.
#[derive(Debug)]
pub(super) struct Backend {
    /// Unique as long as the process lives.
    pub(super) key: u64,
    pub(super) service: Arc<str>,
    pub(super) address: SocketAddr,
    pub(super) subset: Option<Arc<str>>,
    pub(super) upstream: Upstream,
    pub(super) http2: bool,
    pub(super) latency: PeakEwma,
    /// Under way.
    pub(super) requests: AtomicU32,
    /// Open, of all threads.
    pub(super) connections: AtomicU32,
    /// Requests that wait for one, of all threads.
    pub(super) wanted: AtomicU32,
    pub(super) seen: Seen,
    pub(super) pool: Arc<counts::Pool>,
    /// In no view any more, and never again.
    gone: AtomicBool,
}

/// What came of requests since it was last told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Those that were timed, and what they took in microseconds.
    pub(super) timed: AtomicU64,
    pub(super) took_us: AtomicU64,
    /// The last failure: a status, or the number of a [`super::passive::Mishap`].
    pub(super) failure: AtomicU32,
}

impl View {
    /// Reads a snapshot; services that have not changed are taken from the former view.
    pub(super) fn build(snapshot: &Snapshot, former: &Self, counts: &Counts) -> Self {
        let proxied = snapshot.services.values();
        let proxied = proxied.filter(|state| state.spec.protocol.is_proxied());
        let services = proxied.map(|state| {
            let known = former.services.get(state.spec.name.as_str());
            let service = match known {
                Some(known) if Arc::ptr_eq(&known.state, state) => Arc::clone(known),
                _ => Arc::new(Service::build(state, known.map(Arc::as_ref), counts)),
            };
            (Arc::clone(&service.name), service)
        });
        Self {
            version: snapshot.version,
            services: services.collect(),
            routing: RoutingTable::update(&former.routing, snapshot),
        }
    }

    /// Writes down what is measured now and then only: what is left of budgets and what is open.
    pub(super) fn gauge(&self, second: u64) {
        for service in self.services.values() {
            let retry = &service.policy.retry;
            let left = service.life.budget.left(second, retry.budget, retry.floor);
            service.counts.budget_left.store(left, Relaxed);
            for backend in &service.backends {
                let (open, pending) = (&backend.connections, &backend.wanted);
                backend.pool.open.store(open.load(Relaxed), Relaxed);
                backend.pool.pending.store(pending.load(Relaxed), Relaxed);
            }
        }
    }

    /// Tells backends of the view before this one that they are gone, if they are.
    pub(super) fn succeed(&self, former: &Self) {
        for (name, before) in &former.services {
            let now = self.services.get(name);
            if now.is_some_and(|now| Arc::ptr_eq(now, before)) {
                continue;
            }
            let stay = now.into_iter().flat_map(|now| &now.backends);
            let stay: HashSet<u64> = stay.map(|backend| backend.key).collect();
            for backend in &before.backends {
                if !stay.contains(&backend.key) {
                    backend.gone.store(true, Relaxed);
                }
            }
        }
    }
}

impl Service {
    fn build(state: &Arc<ServiceState>, former: Option<&Self>, counts: &Counts) -> Self {
        let spec = &state.spec;
        let name = former.map_or_else(
            || spec.name.as_str().into(),
            |known| Arc::clone(&known.name),
        );
        let counts = counts.service(&name);
        let http2 = match spec.http.upstream.version {
            UpstreamVersion::Auto => spec.protocol == Protocol::Grpc,
            UpstreamVersion::Http1 => false,
            UpstreamVersion::Http2 => true,
        };
        let known: HashMap<SocketAddr, &Arc<Backend>> = former
            .iter()
            .flat_map(|former| &former.backends)
            .map(|backend| (backend.address, backend))
            .collect();
        let backends = state.backends.iter().map(|backend| {
            let same = known.get(&backend.address()).filter(|known| {
                known.http2 == http2
                    && known.upstream == spec.http.upstream
                    && known.subset.as_deref() == backend.subset.as_deref()
            });
            match same {
                Some(known) => Arc::clone(known),
                None => {
                    let pool = counts.pool(backend.address());
                    let upstream = &spec.http.upstream;
                    Arc::new(Backend::new(&name, backend, upstream, http2, pool))
                }
            }
        });
        let backends: Vec<_> = backends.collect();
        let mut numbers: HashMap<Option<&str>, u32> = HashMap::new();
        let hashes = spec.http.balance != Balance::PeakEwma;
        let candidates: Vec<Candidate> = state
            .backends
            .iter()
            .map(|backend| {
                let next = numbers.len() as u32;
                let group = *numbers.entry(backend.subset.as_deref()).or_insert(next);
                let weight = backend.weight;
                Candidate { weight, group }
            })
            .collect();
        let subsets = spec.subset_names().into_iter().map(|subset| {
            let among = of_subset(&state.backends, &subset, hashes);
            (subset, among)
        });
        let retry = &spec.http.retry;
        Self {
            policy: Arc::clone(&spec.http),
            rules: Rules {
                failures: true,
                status: retry.on_status.iter().copied().collect(),
                grpc: retry.on_grpc.iter().copied().collect(),
            },
            backends,
            all: Among::new(&state.backends, candidates, hashes),
            subsets: subsets.collect(),
            life: former.map_or_else(Arc::default, |known| Arc::clone(&known.life)),
            rates: match former {
                Some(known) if known.rates.are(&spec.http.rates) => Arc::clone(&known.rates),
                _ => Arc::new(Rates::new(&spec.http.rates)),
            },
            state: Arc::clone(state),
            counts,
            name,
        }
    }

    /// Where a client connected to who arrived at a socket for this service. Packets for a VIP that
    /// is no address of the node are steered to a socket elsewhere: of several such VIPs of the
    /// family it is taken for the first.
    pub(super) fn connected_to(&self, socket: SocketAddr) -> SocketAddr {
        let vips = &self.state.spec.vips;
        if vips.contains(&socket) {
            return socket;
        }
        let steered =
            |vip: &&SocketAddr| vip.is_ipv6() == socket.is_ipv6() && vip.ip() != socket.ip();
        vips.iter().find(steered).copied().unwrap_or(socket)
    }

    /// Whether a client may use it.
    pub(super) fn admits(&self, client: IpAddr) -> bool {
        let allow = self.state.spec.allow.as_ref();
        allow.is_none_or(|all| all.iter().any(|prefix| prefix.contains(&client)))
    }

    /// Those that take requests.
    pub(super) fn eligible(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let backends = self.backends.iter().zip(&self.state.backends);
        let eligible = backends.filter(|(_, state)| state.weight > 0);
        eligible.map(|(backend, _)| backend)
    }

    /// Among whom is chosen: all, or those of one subset. `None`: there is no such subset.
    pub(super) fn among(&self, subset: Option<&str>) -> Option<&Among> {
        match subset {
            None => Some(&self.all),
            Some(subset) => self.subsets.get(subset),
        }
    }
}

impl Among {
    /// `hashes`: values are.
    fn new(backends: &[BackendState], candidates: Vec<Candidate>, hashes: bool) -> Self {
        let weighted = backends.iter().zip(&candidates).zip(0..);
        let entries: Vec<maglev::Entry> = weighted
            .filter(|((_, candidate), _)| hashes && candidate.weight > 0)
            .map(|((backend, candidate), id)| maglev::Entry {
                id,
                address: backend.address(),
                weight: candidate.weight,
            })
            .collect();
        let slots = match hashes {
            true => maglev::build(&entries, maglev::size_for(entries.len())),
            false => Vec::new(),
        };
        let picker = Picker::new(candidates);
        Self { picker, slots }
    }
}

/// Those of one subset. Where a split gives it nothing, so that all its weights are 0, a request
/// that is for it goes to what is usable of it all the same.
fn of_subset(backends: &[BackendState], subset: &str, hashes: bool) -> Among {
    let candidates = |weight: &dyn Fn(&BackendState) -> u32| {
        let of = backends.iter().map(|backend| {
            let own = backend.subset.as_deref() == Some(subset);
            let weight = if own { weight(backend) } else { 0 };
            Candidate { weight, group: 0 }
        });
        Among::new(backends, of.collect(), hashes)
    };
    let by_share = candidates(&|backend| backend.weight);
    if !by_share.picker.is_empty() {
        return by_share;
    }
    candidates(&|backend| {
        let out = backend.is_dead()
            || backend.drain.is_some()
            || backend.ejection.is_some()
            || matches!(backend.instance.health, CatalogHealth::Maintenance(_));
        if out { 0 } else { backend.instance.weight }
    })
}

impl Backend {
    fn new(
        service: &Arc<str>,
        state: &BackendState,
        upstream: &Upstream,
        http2: bool,
        pool: Arc<counts::Pool>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            key: NEXT.fetch_add(1, Relaxed),
            service: Arc::clone(service),
            address: state.address(),
            subset: state.subset.as_deref().map(Arc::from),
            upstream: upstream.clone(),
            http2,
            latency: PeakEwma::default(),
            requests: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            wanted: AtomicU32::new(0),
            seen: Seen::default(),
            pool,
            gone: AtomicBool::new(false),
        }
    }

    /// Only requests that began before know it still.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }
}
