//! The threads that serve, and the sockets that they serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::{
    Place,
    admission::Admission,
    certificates::Certificates,
    socket,
    worker::{self, Order},
};
use crate::{
    config::proxy::{ListenerConfig, ProxyConfig},
    proxy::engine::Shared,
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Pool {
    facts: Arc<worker::Facts>,
    /// Threads that are to serve.
    count: usize,
    /// None before there is a socket.
    orders: Vec<mpsc::UnboundedSender<Order>>,
    threads: Vec<JoinHandle<()>>,
    /// Where the sockets of services are, by the service and the address asked for.
    sockets: BTreeMap<(Arc<str>, SocketAddr), SocketAddr>,
    /// Of shared listeners.
    certificates: Vec<Certificates>,
}

impl Pool {
    /// One of `count` threads, which begin with the first socket: a node without requests needs none.
    pub fn new(count: usize, shared: Arc<Shared>, config: &ProxyConfig) -> Self {
        let admission = Admission::new(config.bounds.connections, config.bounds.per_client);
        let facts = Arc::new(worker::Facts {
            shared,
            admission,
            bounds: config.bounds.clone(),
            trusted: config.trusted.clone(),
        });
        Self {
            facts,
            count,
            orders: Vec::new(),
            threads: Vec::new(),
            sockets: BTreeMap::new(),
            certificates: Vec::new(),
        }
    }

    /// Starts the threads unless they run.
    fn start(&mut self) -> anyhow::Result<()> {
        for number in self.threads.len()..self.count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let facts = Arc::clone(&self.facts);
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || worker::run(facts, receiver))
                .context("cannot start a thread for requests")?;
            self.orders.push(sender);
            self.threads.push(thread);
        }
        Ok(())
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
        self.listen(config.address, place)
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
        all.filter_map(|one| one.problem().map(str::to_owned))
    }

    /// Opens a socket on every thread; answers where it is.
    ///
    /// # Errors
    ///
    /// It cannot be bound.
    fn listen(&mut self, address: SocketAddr, place: Place) -> anyhow::Result<SocketAddr> {
        let sockets = socket::bind(address, self.count)?;
        self.start()?;
        let first = sockets.first().context("no thread serves")?;
        let address = first.local_addr().context("asking for a port")?;
        let place = Arc::new(place);
        for (socket, orders) in sockets.into_iter().zip(&self.orders) {
            // A thread that has failed has said so itself.
            let _ = orders.send(Order::Open(address, socket, Arc::clone(&place)));
        }
        info!(%address, service = place.service.as_deref(), "taking requests");
        Ok(address)
    }

    /// Opens the socket of a service unless it is open; answers where it is.
    ///
    /// # Errors
    ///
    /// It cannot be bound.
    pub fn ensure(&mut self, key: &(Arc<str>, SocketAddr)) -> anyhow::Result<SocketAddr> {
        if let Some(bound) = self.sockets.get(key) {
            return Ok(*bound);
        }
        let place = Place {
            service: Some(Arc::clone(&key.0)),
            proxy_protocol: false,
            tls: None,
        };
        let bound = self.listen(key.1, place)?;
        self.sockets.insert(key.clone(), bound);
        Ok(bound)
    }

    /// Closes the sockets of services that are not among these. Their connections go on.
    pub fn close_but(&mut self, wanted: &BTreeSet<(Arc<str>, SocketAddr)>) {
        let orders = &self.orders;
        self.sockets.retain(|key, bound| {
            let keep = wanted.contains(key);
            if !keep {
                info!(address = %bound, service = &*key.0, "no longer taking requests");
                for orders in orders {
                    let _ = orders.send(Order::Close(*bound));
                }
            }
            keep
        });
    }

    /// Takes no more connections, and ends the requests under way, within `patience`.
    pub async fn stop(self, patience: Duration) {
        for orders in &self.orders {
            let _ = orders.send(Order::Stop(patience));
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
