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
    sync::mpsc,
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, sleep},
};
use tracing::{debug, error};

use super::{
    Place,
    admission::Admission,
    connection,
    ending::{Elder, Ending},
};
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
    pub(super) ending: Arc<Ending>,
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
    /// Accept no more, and end when every connection has ended, or then.
    Stop(Instant),
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
    let open = Rc::new(Cell::new(0_usize));
    let mut accepting: HashMap<SocketAddr, Vec<JoinHandle<()>>> = HashMap::new();
    let mut end = Instant::now();
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
                        open: Rc::clone(&open),
                    };
                    let tasks = accepting.entry(address).or_default();
                    tasks.push(spawn_local(ward.accept(listener)));
                }
                Err(error) => error!(%error, %address, "a listening socket is of no use"),
            },
            Order::Close(address) => {
                for task in accepting.remove(&address).into_iter().flatten() {
                    task.abort();
                }
            }
            Order::Stop(time) => {
                end = time;
                break;
            }
        }
    }
    for task in accepting.into_values().flatten() {
        task.abort();
    }
    while open.get() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
}

/// One socket and what its connections need.
struct Ward {
    counts: Arc<OfListener>,
    facts: Arc<Facts>,
    engine: Rc<Engine>,
    place: Arc<Place>,
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
        let farewell = facts.ending.farewell();
        let counted = Counted::new(&self.open, &self.counts, facts.ending.elder());
        let counts = Arc::clone(&self.counts);
        spawn_local(async move {
            let served = connection::serve(stream, peer, &facts, &counts, engine, &place, farewell);
            let ended = served.await;
            if let Err(error) = ended {
                debug!(%error, %peer, "a connection ended");
            }
            drop((admitted, counted));
        });
    }
}

/// A connection that the thread waits for at its end.
struct Counted {
    open: Rc<Cell<usize>>,
    counts: Arc<OfListener>,
    _elder: Option<Elder>,
}

impl Counted {
    fn new(open: &Rc<Cell<usize>>, counts: &Arc<OfListener>, elder: Option<Elder>) -> Self {
        counts.open.fetch_add(1, Relaxed);
        open.set(open.get() + 1);
        Self {
            open: Rc::clone(open),
            counts: Arc::clone(counts),
            _elder: elder,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
        self.counts.open.fetch_sub(1, Relaxed);
    }
}
