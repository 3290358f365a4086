//! The connections of one thread to one backend.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    connect::{self, ConnectError, Ends},
    http1::Http1,
    http2::{Http2, Stream2},
    tls::TlsConfigs,
    warmth::Warmth,
};
use crate::{
    domain::http::policy::HttpPolicy,
    proxy::engine::{
        clock::{Clock, Deadline},
        counted::{Counted, OfConnections, OfPending, OfWanted},
        view::{Backend, Life},
    },
};

/// Idle connections are closed after this; below what most servers grant.
const IDLE: Duration = Duration::from_secs(55);
/// How often one looks whether another thread has given up a connection.
const LOOK: Duration = Duration::from_millis(20);

/// The pool.
#[derive(Debug)]
pub(in crate::proxy::engine) struct Pool {
    pub(in crate::proxy::engine) backend: Arc<Backend>,
    /// The last used at the end: it is the first to be used again.
    #[expect(
        clippy::vec_box,
        reason = "boxed once, it moves from request to pool and back"
    )]
    idle: RefCell<Vec<Box<Http1>>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    freed: Rc<Notify>,
    waiting: Cell<u32>,
    /// A shared connection is being made.
    connecting: Cell<bool>,
    failed: RefCell<(u64, Option<ConnectError>)>,
    warmth: Warmth,
    /// The backend is gone: nothing is kept.
    closed: Cell<bool>,
}

/// A connection for one request.
#[derive(Debug)]
pub(in crate::proxy::engine) enum Lease {
    Http1(Box<Http1>),
    Http2(Stream2),
}

/// What a request wants of a connection.
#[derive(Debug)]
pub(in crate::proxy::engine) struct Wish<'a> {
    pub(in crate::proxy::engine) ends: Ends,
    /// The request as a whole has time until then.
    pub(in crate::proxy::engine) until: Instant,
    /// How long a connection may take to come about.
    pub(in crate::proxy::engine) connect: Duration,
    /// It may be sent once only: the kernel is asked whether an idle connection is one still.
    pub(in crate::proxy::engine) careful: bool,
    /// No idle connection.
    pub(in crate::proxy::engine) fresh: bool,
    pub(in crate::proxy::engine) policy: &'a HttpPolicy,
    pub(in crate::proxy::engine) life: &'a Arc<Life>,
    /// Headers that an answer over HTTP/1 may have.
    pub(in crate::proxy::engine) headers: usize,
    pub(in crate::proxy::engine) tls: &'a TlsConfigs,
    pub(in crate::proxy::engine) clock: &'a Rc<Clock>,
}

/// Bounds of what is opened for requests to come.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy::engine) struct Lacking {
    /// As many are to be ready.
    pub(in crate::proxy::engine) warm: u32,
    /// Where as many are open, of all threads, none is opened.
    pub(in crate::proxy::engine) most: u32,
}

/// Why there is none.
#[derive(Debug)]
pub(in crate::proxy::engine) enum Unavailable {
    Connect(ConnectError),
    /// Another request was making the one to be shared; `None`: it was not there in time.
    Shared(Option<ConnectError>),
    /// The request had its time before it came about.
    Late,
    /// As many wait already as may.
    Full,
}

impl Pool {
    pub(in crate::proxy::engine) fn new(backend: Arc<Backend>) -> Rc<Self> {
        Rc::new(Self {
            backend,
            idle: RefCell::default(),
            shared: RefCell::default(),
            freed: Rc::default(),
            waiting: Cell::new(0),
            connecting: Cell::new(false),
            failed: RefCell::default(),
            warmth: Warmth::default(),
            closed: Cell::new(false),
        })
    }

    /// An idle connection that is ready, at once.
    pub(in crate::proxy::engine) fn idle(&self, wish: &Wish<'_>) -> Option<Lease> {
        if wish.fresh && !self.backend.http2 {
            return None;
        }
        let of = self.backend.upstream.proxy_protocol.map(|_| wish.ends);
        if self.backend.http2 {
            let mut shared = self.shared.borrow_mut();
            shared.retain(|one| !one.is_closed() || self.warmth.lost(one.served.get()));
            let free = shared.iter().find(|one| one.of == of && one.has_room())?;
            let freed = Rc::clone(&self.freed);
            return Some(Lease::Http2(
                free.lease(Rc::new(move || freed.notify_one())),
            ));
        }
        loop {
            let mut link = {
                let mut idle = self.idle.borrow_mut();
                match of {
                    None => idle.pop()?,
                    Some(_) => {
                        let place = idle.iter().rposition(|one| one.of == of)?;
                        idle.remove(place)
                    }
                }
            };
            let ready = if wish.careful {
                link.is_silent()
            } else {
                link.is_ready()
            };
            if ready {
                return Some(Lease::Http1(link));
            }
            self.warmth.lost(link.served);
        }
    }

    /// A connection: an idle one, else a new one, else the next that becomes free.
    pub(in crate::proxy::engine) async fn lease(
        &self,
        wish: &Wish<'_>,
    ) -> Result<Lease, Unavailable> {
        let mut queued = None;
        loop {
            if let Some(idle) = self.idle(wish) {
                return Ok(idle);
            }
            if self.connecting.get() {
                self.wait_for_shared(wish).await?;
                continue;
            }
            let limits = &wish.policy.limits;
            let counter = OfConnections(Arc::clone(&self.backend));
            if let Some(counted) = Counted::below(counter, limits.connections) {
                return self.connect(wish, counted).await;
            }
            if queued.is_none() {
                let pending = OfPending(Arc::clone(wish.life));
                let pending = Counted::below(pending, limits.pending).ok_or(Unavailable::Full)?;
                let wanted = Counted::add(OfWanted(Arc::clone(&self.backend)));
                queued = Some((pending, wanted));
            }
            self.wait(wish, wish.until.min(Instant::now() + LOOK))
                .await?;
        }
    }

    async fn wait(&self, wish: &Wish<'_>, until: Instant) -> Result<(), Unavailable> {
        let _waiting = Waiting::new(&self.waiting);
        let mut deadline = Deadline::new(wish.clock, until);
        tokio::select! {
            () = self.freed.notified() => {}
            () = deadline.met() => {}
        }
        if Instant::now() >= wish.until {
            return Err(Unavailable::Full);
        }
        Ok(())
    }

    /// Waits until the connection that another request makes is there, or failed.
    async fn wait_for_shared(&self, wish: &Wish<'_>) -> Result<(), Unavailable> {
        let before = self.failed.borrow().0;
        self.wait(wish, wish.until.min(Instant::now() + LOOK))
            .await
            .map_err(|_| Unavailable::Shared(None))?;
        match &*self.failed.borrow() {
            (count, Some(error)) if *count != before => {
                Err(Unavailable::Shared(Some(error.clone())))
            }
            _ => Ok(()),
        }
    }

    async fn connect(
        &self,
        wish: &Wish<'_>,
        counted: Counted<OfConnections>,
    ) -> Result<Lease, Unavailable> {
        let backend = &*self.backend;
        let _connecting = backend.http2.then(|| Connecting::new(self));
        let until = wish.until.min(Instant::now() + wish.connect);
        let of = backend.upstream.proxy_protocol.map(|_| wish.ends);
        let made = async {
            let stream = connect::connect(backend, wish.ends, wish.tls, wish.clock, until).await?;
            let failed = |error: hyper::Error| ConnectError::Other(error.to_string().into());
            if !backend.http2 {
                let made = Http1::new(stream, of, wish.headers, counted).await;
                return Ok(Lease::Http1(made.map_err(failed)?));
            }
            let made = Http2::new(stream, of, counted).await.map_err(failed)?;
            let freed = Rc::clone(&self.freed);
            let lease = made.lease(Rc::new(move || freed.notify_one()));
            if !self.closed.get() {
                self.shared.borrow_mut().push(made);
            }
            Ok(Lease::Http2(lease))
        };
        let made: Result<Lease, ConnectError> = made.await;
        let counts = &backend.pool;
        let count = if made.is_ok() {
            &counts.opened
        } else {
            &counts.failed
        };
        count.fetch_add(1, Relaxed);
        made.map_err(|error| {
            // Others that wait for it may have more time.
            if error == ConnectError::TimedOut && wish.until <= Instant::now() {
                return Unavailable::Late;
            }
            let mut failed = self.failed.borrow_mut();
            *failed = (failed.0 + 1, Some(error.clone()));
            Unavailable::Connect(error)
        })
    }

    /// Takes a connection back whose request is done with.
    pub(in crate::proxy::engine) fn give_back(&self, mut link: Box<Http1>, keep: u32) {
        let others_wait = self.backend.wanted.load(Relaxed) > self.waiting.get();
        let full = self.idle.borrow().len() >= keep as usize;
        if self.closed.get() || full || others_wait && self.waiting.get() == 0 || !link.is_done() {
            drop(link);
        } else {
            link.idle_since = None;
            link.reused = true;
            self.idle.borrow_mut().push(link);
        }
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        }
    }

    /// Closes what has been idle for too long, what the backend has closed, and, where requests
    /// of other threads wait, everything idle.
    pub(in crate::proxy::engine) fn sweep(&self, now: Instant) {
        let others_wait = self.backend.wanted.load(Relaxed) > self.waiting.get();
        let stays = |since: Instant| !others_wait && now.saturating_duration_since(since) < IDLE;
        self.idle.borrow_mut().retain_mut(|link| {
            stays(*link.idle_since.get_or_insert(now))
                && (link.is_ready() || self.warmth.lost(link.served))
        });
        self.shared
            .borrow_mut()
            .retain(|one| match one.is_closed() {
                true => self.warmth.lost(one.served.get()),
                false => !one.is_idle() || stays(one.idle_since.get()),
            });
    }

    /// A connection, or that the last ones failed.
    pub(in crate::proxy::engine) fn holds_something(&self, now: Instant) -> bool {
        !self.idle.borrow().is_empty()
            || !self.shared.borrow().is_empty()
            || self.warmth.remembers(now)
    }

    /// Connections that could take a request at once, or soon.
    pub(in crate::proxy::engine) fn ready(&self) -> usize {
        let ready = match self.backend.http2 {
            true => {
                let shared = self.shared.borrow();
                shared.iter().filter(|one| one.has_room()).count()
            }
            false => self.idle.borrow().len(),
        };
        ready + usize::from(self.warmth.is_opening())
    }

    /// Whether a connection is to be opened for requests to come.
    pub(in crate::proxy::engine) fn is_cold(&self, lacking: Lacking, now: Instant) -> bool {
        let wanted = match self.backend.http2 {
            // It serves many requests.
            true => 1,
            false => lacking.warm as usize,
        };
        let lacks = self.ready() < wanted && !self.closed.get() && !self.connecting.get();
        // Who waits for a connection goes first.
        self.warmth.lets(lacks, now)
            && self.backend.wanted.load(Relaxed) == 0
            && self.backend.connections.load(Relaxed) < lacking.most
    }

    /// Opens a connection for requests to come. That none comes about is no failure of the backend:
    /// no request has met it.
    pub(in crate::proxy::engine) async fn warm(
        &self,
        wish: &Wish<'_>,
        lacking: Lacking,
        keep: u32,
    ) {
        let counter = OfConnections(Arc::clone(&self.backend));
        let Some(counted) = Counted::below(counter, lacking.most) else {
            return;
        };
        let _opening = self.warmth.begin();
        match self.connect(wish, counted).await {
            Ok(Lease::Http1(link)) => self.give_back(link, keep),
            Ok(Lease::Http2(stream)) => drop(stream),
            Err(_) => self.warmth.failed(Instant::now()),
        }
    }

    /// Closes all that is idle, and keeps nothing from now on.
    pub(in crate::proxy::engine) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }
}

/// Counts who waits.
struct Waiting<'a>(&'a Cell<u32>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A shared connection is being made; wakes whoever waits for it when that is over, abandoned too.
struct Connecting<'a>(&'a Pool);

impl<'a> Connecting<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.connecting.set(true);
        Self(pool)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.freed.notify_waiters();
    }
}
