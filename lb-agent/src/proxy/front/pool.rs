//! The threads that serve, and the sockets that they serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use super::{
    Place,
    admission::Admission,
    certificates::Certificates,
    crew::Crew,
    ending::Ending,
    gathering::{Gathering, Turn},
    holder::{Keep, Key},
    processor, socket,
    worker::{self, LEADER, Order},
};
use crate::{
    config::proxy::{ListenerConfig, ProxyConfig},
    proxy::engine::Shared,
};

/// How often a stop looks how far it is.
const LOOK: Duration = Duration::from_millis(5);

/// See the module's documentation.
#[derive(Debug)]
pub struct Pool {
    facts: Arc<worker::Facts>,
    /// Orders to each of the threads.
    orders: Vec<mpsc::UnboundedSender<Order>>,
    /// The other ends, of those that do not run yet.
    idle: Vec<mpsc::UnboundedReceiver<Order>>,
    threads: Vec<JoinHandle<()>>,
    /// Whether each thread has a processor of its own, if that is said.
    pin: Option<bool>,
    /// It is known what requests are for.
    is_ready: bool,
    /// There is a socket.
    is_needed: bool,
    /// Where the sockets of services are.
    sockets: BTreeMap<Key, SocketAddr>,
    keep: Keep,
    /// Of shared listeners.
    certificates: Vec<Certificates>,
}

impl Pool {
    /// One of `count` threads, which begin with the first socket, since a node without requests needs
    /// none, and not before [`Pool::begin`]. Sockets are those of `keep` where it has some.
    pub fn new(count: usize, shared: Arc<Shared>, config: &ProxyConfig, keep: Keep) -> Self {
        let admission = Admission::new(config.bounds.connections, config.bounds.per_client);
        let (orders, idle): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let facts = Arc::new(worker::Facts {
            crew: Crew::new(&orders),
            gathering: Gathering::new(count),
            shared,
            admission,
            ending: Arc::new(Ending::new()),
            bounds: config.bounds.clone(),
            trusted: config.trusted.clone(),
        });
        Self {
            facts,
            orders,
            idle,
            threads: Vec::new(),
            pin: config.pin,
            is_ready: false,
            is_needed: false,
            sockets: BTreeMap::new(),
            keep,
            certificates: Vec::new(),
        }
    }

    /// Begins to serve: until it is known where requests go, who connects waits.
    pub fn begin(&mut self) {
        self.is_ready = true;
        self.start();
        self.keep.serve();
    }

    /// Starts the threads unless they run, or have nothing to do.
    fn start(&mut self) {
        if !self.is_ready || !self.is_needed || self.idle.is_empty() {
            return;
        }
        let assigned = processor::assigned(self.idle.len(), &processor::usable(), self.pin);
        for (number, orders) in self.idle.drain(..).enumerate() {
            let facts = Arc::clone(&self.facts);
            let own = assigned.get(number).copied();
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || {
                    if let Some(cpu) = own {
                        processor::stay_on(cpu);
                    }
                    worker::run(number, facts, orders);
                });
            match thread {
                Ok(thread) => self.threads.push(thread),
                Err(error) => error!(%error, "cannot start a thread for requests"),
            }
        }
    }

    /// Opens a shared listener.
    ///
    /// # Errors
    ///
    /// It cannot be bound, or its certificates cannot be used.
    pub fn share(&mut self, config: &ListenerConfig) -> anyhow::Result<SocketAddr> {
        let mut tls = None;
        if !config.certificates.is_empty() {
            let certificates = Certificates::read(&config.certificates)
                .with_context(|| format!("certificates for {}", config.address))?;
            tls = Some(TlsAcceptor::from(certificates.config()?));
            self.certificates.push(certificates);
        }
        let place = Place {
            service: None,
            proxy_protocol: config.proxy_protocol,
            tls,
        };
        let key = Key {
            service: None,
            address: config.address,
        };
        self.listen(&key, place)
    }

    /// Reads certificates whose files have changed; answers whether any have.
    pub fn refresh_certificates(&mut self) -> bool {
        let mut changed = false;
        for certificates in &mut self.certificates {
            changed |= certificates.refresh();
        }
        changed
    }

    /// What is wrong with the files of certificates.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let all = self.certificates.iter();
        let all = all.filter_map(|one| one.problem());
        all.chain(self.keep.problem()).map(str::to_owned)
    }

    /// Closes those of a former agent's sockets that nobody will ask for.
    pub fn forget(&mut self, is_forgotten: impl Fn(&Key) -> bool) {
        self.keep.forget(is_forgotten);
    }

    /// Sees to it that the sockets outlive the agent.
    pub fn look(&mut self) {
        self.keep.look();
    }

    /// Opens sockets on every thread; answers where they are. A former agent's are taken, all of
    /// them, for connections may wait at each: there are more than threads if that one had more.
    ///
    /// # Errors
    ///
    /// It cannot be bound.
    fn listen(&mut self, key: &Key, place: Place) -> anyhow::Result<SocketAddr> {
        let mut sockets = self.keep.take(key);
        let known = sockets.first().map(TcpListener::local_addr);
        let known = known.transpose().context("asking for a port")?;
        let missing = self.orders.len().saturating_sub(sockets.len());
        match socket::bind(known.unwrap_or(key.address), missing) {
            Ok(more) => {
                self.keep.hold(key, &more);
                sockets.extend(more);
            }
            Err(error) if sockets.is_empty() => return Err(error),
            Err(error) => warn!("not every thread has a socket: {error:#}"),
        }
        let first = sockets.first().context("no thread serves")?;
        let address = first.local_addr().context("asking for a port")?;
        let place = Arc::new(place);
        for (socket, number) in sockets.into_iter().zip((0..self.orders.len()).cycle()) {
            let socket = Arc::new(socket);
            let open = |number: usize, turn| {
                let order = Order::Open(address, Arc::clone(&socket), turn, Arc::clone(&place));
                // A thread that has failed has said so itself.
                let _ = self.orders[number].send(order);
            };
            if number == LEADER {
                open(LEADER, Turn::Always);
            } else {
                open(number, Turn::Spread);
                open(LEADER, Turn::Gathered);
            }
        }
        info!(%address, service = place.service.as_deref(), "taking requests");
        self.is_needed = true;
        self.start();
        Ok(address)
    }

    /// Opens the socket of a service unless it is open; answers where it is.
    ///
    /// # Errors
    ///
    /// It cannot be bound.
    pub fn ensure(&mut self, key: &Key) -> anyhow::Result<SocketAddr> {
        if let Some(bound) = self.sockets.get(key) {
            return Ok(*bound);
        }
        let place = Place {
            service: key.service.clone(),
            proxy_protocol: false,
            tls: None,
        };
        let bound = self.listen(key, place)?;
        self.sockets.insert(key.clone(), bound);
        Ok(bound)
    }

    /// Closes the sockets of services that are not among these. Their connections go on.
    pub fn close_but(&mut self, wanted: &BTreeSet<Key>) {
        let (orders, keep) = (&self.orders, &mut self.keep);
        self.sockets.retain(|key, bound| {
            let is_wanted = wanted.contains(key);
            if !is_wanted {
                info!(address = %bound, service = key.service.as_deref(), "no longer taking requests");
                for orders in orders {
                    let _ = orders.send(Order::Close(*bound));
                }
                keep.release(key);
            }
            is_wanted
        });
    }

    /// Ends every connection after its request, within `patience`. New ones are served, for one
    /// request each, until those from before have ended, whose requests may be long; what comes then waits
    /// at the sockets, which are held, for the next agent.
    pub async fn stop(self, patience: Duration) {
        let end = Instant::now() + patience;
        self.facts.ending.begin();
        // What has begun meanwhile needs its time, too.
        let last_call = end - patience / 4;
        while self.facts.ending.has_elders() && Instant::now() < last_call {
            sleep(LOOK).await;
        }
        for orders in &self.orders {
            let _ = orders.send(Order::Stop(end));
        }
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        if !joined.await.is_ok_and(|ended| ended) {
            warn!("a thread of the proxy had failed");
        }
    }
}
