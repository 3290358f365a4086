//! One thread of the proxy: its sockets, its connections, its engine.

use std::{
    cell::Cell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, LocalSet, spawn_local},
    time::sleep,
};
use tracing::{debug, error};

use super::{Place, admission::Admission, connection};
use crate::{
    config::proxy::Bounds,
    proxy::{
        engine::{Engine, Shared},
        telemetry::counts::OfListener,
    },
};

/// What all threads know.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) shared: Arc<Shared>,
    pub(super) admission: Arc<Admission>,
    pub(super) bounds: Bounds,
    pub(super) trusted: Vec<IpNet>,
}

impl Facts {
    /// Whether a peer is believed.
    pub(super) fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(&ip))
    }
}

/// What a thread is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Accept from this socket, which is at this address.
    Open(SocketAddr, std::net::TcpListener, Arc<Place>),
    /// No longer.
    Close(SocketAddr),
    /// End everything, within this time.
    Stop(Duration),
}

/// Works until it is told to stop.
pub(super) fn run(facts: Arc<Facts>, orders: mpsc::UnboundedReceiver<Order>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, work(facts, orders)),
        Err(error) => error!(%error, "a thread of the proxy has no runtime"),
    }
}

async fn work(facts: Arc<Facts>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let engine = Rc::new(Engine::new(Arc::clone(&facts.shared)));
    let (stop, stopped) = watch::channel(false);
    let open = Rc::new(Cell::new(0_usize));
    let mut accepting: HashMap<SocketAddr, JoinHandle<()>> = HashMap::new();
    let mut patience = Duration::ZERO;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(address, socket, place) => match TcpListener::from_std(socket) {
                Ok(listener) => {
                    let counts = facts.shared.telemetry().counts().listener(address);
                    let ward = Ward {
                        counts,
                        facts: Arc::clone(&facts),
                        engine: Rc::clone(&engine),
                        place,
                        stopped: stopped.clone(),
                        open: Rc::clone(&open),
                    };
                    accepting.insert(address, spawn_local(ward.accept(listener)));
                }
                Err(error) => error!(%error, %address, "a listening socket is of no use"),
            },
            Order::Close(address) => {
                if let Some(task) = accepting.remove(&address) {
                    task.abort();
                }
            }
            Order::Stop(time) => {
                patience = time;
                break;
            }
        }
    }
    for task in accepting.into_values() {
        task.abort();
    }
    stop.send_replace(true);
    let end = tokio::time::Instant::now() + patience;
    while open.get() > 0 && tokio::time::Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
}

/// One socket and what its connections need.
struct Ward {
    counts: Arc<OfListener>,
    facts: Arc<Facts>,
    engine: Rc<Engine>,
    place: Arc<Place>,
    stopped: watch::Receiver<bool>,
    open: Rc<Cell<usize>>,
}

impl Ward {
    async fn accept(self, listener: TcpListener) {
        loop {
            let room = self.facts.admission.room().await;
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No descriptors, or the client went away: neither mends itself at once.
                    debug!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            if let Some(admitted) = self.facts.admission.admit(room, peer.ip()) {
                self.counts.accepted.fetch_add(1, Relaxed);
                self.begin(stream, peer, admitted);
            } else {
                self.counts.refused.fetch_add(1, Relaxed);
            }
        }
    }

    fn begin(&self, stream: TcpStream, peer: SocketAddr, admitted: super::admission::Admitted) {
        let facts = Arc::clone(&self.facts);
        let engine = Rc::clone(&self.engine);
        let place = Arc::clone(&self.place);
        let stopped = self.stopped.clone();
        let counted = Counted::new(&self.open, &self.counts);
        let counts = Arc::clone(&self.counts);
        spawn_local(async move {
            let served = connection::serve(stream, peer, &facts, &counts, engine, &place, stopped);
            let ended = served.await;
            if let Err(error) = ended {
                debug!(%error, %peer, "a connection ended");
            }
            drop((admitted, counted));
        });
    }
}

/// A connection that the thread waits for at its end.
struct Counted(Rc<Cell<usize>>, Arc<OfListener>);

impl Counted {
    fn new(open: &Rc<Cell<usize>>, counts: &Arc<OfListener>) -> Self {
        counts.open.fetch_add(1, Relaxed);
        open.set(open.get() + 1);
        Self(Rc::clone(open), Arc::clone(counts))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.open.fetch_sub(1, Relaxed);
    }
}
