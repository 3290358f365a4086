//! One thread of the proxy: its sockets, its connections, its engine.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    runtime::LocalOptions,
    sync::mpsc,
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep},
};
use tracing::{debug, error};

use super::{
    Place,
    accepted::{Accepted, Listener},
    admission::{Admission, Admitted},
    connection,
    crew::Crew,
    ending::Ending,
    gathering::{Gathering, Leader, Turn},
    life::Pace,
    present::Present,
    rounds::Rounds,
};
use crate::{
    config::proxy::Bounds,
    proxy::{
        engine::{Engine, Shared},
        telemetry::counts::OfListener,
    },
};

/// The thread that takes all connections as long as it can.
pub(super) const LEADER: usize = 0;

/// What all threads know.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) shared: Arc<Shared>,
    pub(super) admission: Arc<Admission>,
    pub(super) ending: Arc<Ending>,
    pub(super) crew: Crew,
    pub(super) gathering: Arc<Gathering>,
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
    /// Accept from this socket, which is at this address, whenever it is its turn.
    Open(SocketAddr, Arc<TcpListener>, Turn, Arc<Place>),
    /// No longer.
    Close(SocketAddr),
    /// Serve a connection that another thread has accepted.
    Serve(Box<Handed>),
    /// Accept no more, and end when every connection has ended, or then.
    Stop(Instant),
}

/// A connection on its way from the thread that accepted it.
#[derive(Debug)]
pub(super) struct Handed {
    stream: Accepted,
    peer: SocketAddr,
    present: Present,
    address: SocketAddr,
    place: Arc<Place>,
    counts: Arc<OfListener>,
}

/// Works until it is told to stop, as the thread of this number.
pub(super) fn run(number: usize, facts: Arc<Facts>, orders: mpsc::UnboundedReceiver<Order>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => {
            let pace = Pace::new(&facts.bounds);
            runtime.block_on(work(number, facts, orders, pace));
        }
        Err(error) => error!(%error, "a thread of the proxy has no runtime"),
    }
}

pub(super) async fn work(
    number: usize,
    facts: Arc<Facts>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    pace: Pace,
) {
    let engine = Rc::new(Engine::new(Arc::clone(&facts.shared), number));
    let rounds = Rounds::begin(pace, &facts.ending);
    facts.gathering.join(number);
    let leader = match number {
        LEADER => facts.gathering.lead().map(Rc::new),
        _ => None,
    };
    let mut accepting: HashMap<SocketAddr, Vec<JoinHandle<()>>> = HashMap::new();
    let mut end = Instant::now();
    let ward = |address, place, counts| {
        Rc::new(Ward {
            number,
            leader: leader.clone(),
            address,
            counts,
            facts: Arc::clone(&facts),
            engine: Rc::clone(&engine),
            place,
            rounds: Rc::clone(&rounds),
        })
    };
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(address, socket, turn, place) => {
                let counts = facts.shared.telemetry().counts().listener(address);
                let ward = ward(address, place, counts);
                let tasks = accepting.entry(address).or_default();
                tasks.push(spawn_local(ward.take(socket, turn)));
            }
            Order::Close(address) => {
                for task in accepting.remove(&address).into_iter().flatten() {
                    task.abort();
                }
            }
            Order::Serve(handed) => handed.serve(ward),
            Order::Stop(time) => {
                end = time;
                break;
            }
        }
    }
    for task in accepting.into_values().flatten() {
        task.abort();
    }
    // Connections that have become another protocol are among these.
    let open = facts.crew.open(number);
    while open.load(Relaxed) > 0 && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
}

/// One socket and what its connections need.
pub(super) struct Ward {
    /// Of the thread.
    number: usize,
    /// Of the first thread, if there are others.
    leader: Option<Rc<Leader>>,
    /// Where the socket is.
    pub(super) address: SocketAddr,
    pub(super) counts: Arc<OfListener>,
    pub(super) facts: Arc<Facts>,
    pub(super) engine: Rc<Engine>,
    pub(super) place: Arc<Place>,
    pub(super) rounds: Rc<Rounds>,
}

impl Ward {
    /// Whether this peer says, by the PROXY protocol, for whom it connects.
    pub(super) fn is_told_clients(&self, peer: IpAddr) -> bool {
        self.place.proxy_protocol && self.facts.trusts(peer)
    }

    /// Takes the connections of a socket, whenever it is its turn.
    async fn take(self: Rc<Self>, socket: Arc<TcpListener>, turn: Turn) {
        loop {
            let over = self.facts.gathering.comes(turn).await;
            match Listener::new(Arc::clone(&socket)) {
                Ok(listener) => {
                    tokio::select! {
                        biased;
                        () = self.accept(&listener) => {}
                        () = over => {}
                    }
                }
                Err(error) => {
                    let address = self.address;
                    return error!(%error, %address, "a listening socket is of no use");
                }
            }
        }
    }

    async fn accept(self: &Rc<Self>, listener: &Listener) {
        let admission = &self.facts.admission;
        loop {
            let (room, stream, peer) = match admission.accept(listener).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No descriptors, or the client went away: neither mends itself at once.
                    debug!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            if let Some(leader) = &self.leader {
                leader.look(std::time::Instant::now());
            }
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            // One that speaks for others has as many as all of these.
            let admitted = match self.is_told_clients(peer.ip()) {
                true => Some(Admitted::of_nobody(room)),
                false => admission.admit(room, peer.ip()),
            };
            if let Some(admitted) = admitted {
                self.counts.accepted.fetch_add(1, Relaxed);
                self.begin(stream, peer, admitted);
            } else {
                self.counts.refused.fetch_add(1, Relaxed);
            }
        }
    }

    fn begin(self: &Rc<Self>, stream: Accepted, peer: SocketAddr, admitted: Admitted) {
        let elder = self.facts.ending.elder();
        let crew = &self.facts.crew;
        // Once a stop has begun, the other may be gone before it hears of it.
        let number = match elder {
            Some(_) => crew.place(self.number),
            None => self.number,
        };
        let present = Present::new(admitted, elder, crew.open(number), &self.counts);
        if number == self.number {
            self.serve(stream, peer, present);
            return;
        }
        let handed = Handed {
            stream,
            peer,
            present,
            address: self.address,
            place: Arc::clone(&self.place),
            counts: Arc::clone(&self.counts),
        };
        if let Err(handed) = crew.hand(number, Box::new(handed)) {
            handed.serve(|_, _, _| Rc::clone(self));
        }
    }

    fn serve(self: &Rc<Self>, stream: Accepted, peer: SocketAddr, present: Present) {
        let life = self.rounds.greet(present);
        let (ward, known) = (Rc::clone(self), Arc::clone(&life));
        let client = connection::Client::new(stream, peer, Rc::clone(self), life);
        spawn_local(async move {
            if let Err(error) = client.serve().await {
                debug!(%error, %peer, "a connection ended");
            }
            ward.facts.crew.ended(known.answers());
        });
    }
}

impl Handed {
    /// Serves it on this thread, whose ward for it is made by `ward`.
    fn serve(self, ward: impl FnOnce(SocketAddr, Arc<Place>, Arc<OfListener>) -> Rc<Ward>) {
        ward(self.address, self.place, self.counts).serve(self.stream, self.peer, self.present);
    }
}
