//! HTTP/2 on a client's connection.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use hyper::{server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::spawn_local;

use super::{
    Failure,
    life::{Life, Overdue, Stage},
    rounds::{Rounds, Seat},
    stream::{ClientStream, Noted},
    visit::Visit,
    worker::Facts,
};
use crate::proxy::deferred::{Deferred, Turns};

/// Streams that a client may have reset before they were taken up, beyond which its connection
/// ends (CVE-2023-44487).
const RESETS: usize = 20;

/// Requests that a client may have taken back before their answers began, if they are more than half of
/// its requests: beyond them it is told to go (GOAWAY), which costs one that means no harm nothing. Each
/// has been worked for, maybe by a backend.
const TAKEN_BACK: u32 = 200;

/// The same, beyond which the connection ends, for who does not go.
const TAKEN_BACK_AT_MOST: u32 = 1000;

/// Streams that the client may have had reset by its mistakes, beyond which its connection ends
/// (CVE-2025-8671).
const MISTAKES: usize = 100;

/// What a stream may send before it has to wait, in bytes. With [`CONNECTION`] it bounds what the
/// bodies of requests may take of memory while backends are slower than clients: as much as one
/// connection has, whatever its streams. An upload over 20 ms gets 12 MB/s.
const STREAM: u32 = 256 << 10;
const CONNECTION: u32 = 512 << 10;

/// Bytes of answers that wait in each stream while the client is slower than backends. A few
/// frames are enough to keep the socket busy; all streams of a connection together hold 8 MiB at
/// most.
const SENDING: usize = 64 << 10;

/// Between pings, so that a client that has vanished is found out while streams are silent.
const PING: Duration = Duration::from_secs(30);

/// Serves a connection to its end. Without a request for too long, or at a stop, the client is told
/// to go (GOAWAY), and what is under way is completed.
pub(super) async fn serve(
    stream: ClientStream,
    begun: Bytes,
    facts: &Facts,
    visit: Rc<Visit>,
    seat: Seat,
) -> Result<(), Failure> {
    let life = Arc::clone(&visit.life);
    let rounds = Rc::clone(&visit.rounds);
    life.multiplex();
    let noted = Noted::new(stream, begun, Arc::clone(&life));
    let turns = Turns::default();
    let deferred = TokioIo::new(Deferred::new(noted, turns.clone()));
    let opened = Opened {
        streams: Rc::default(),
        rounds: Rc::clone(&rounds),
        life: Arc::clone(&life),
        requests: Rc::default(),
    };
    let mut streams = Streams::default();
    // hyper moves what answers a request several times.
    let service = service_fn(move |request| Box::pin(Rc::clone(&visit).answer(request)));
    let mut connection = builder(facts, opened.clone()).serve_connection(deferred, service);
    let mut leaving = false;
    let over = std::future::poll_fn(|context| {
        seat.attend(context);
        turns.begin();
        loop {
            // First, so that what they send is among what the connection sends.
            streams.drive(context);
            if let Poll::Ready(over) = Pin::new(&mut connection).poll(context) {
                return Poll::Ready(over.map_err(Failure::from));
            }
            let overdue = seat.overdue();
            let idle = overdue == Some(Overdue::Stage(Stage::Idle));
            // Who has not asked for anything yet is about to.
            let stopped = rounds.stopped().is_some() && life.can_leave();
            let taken_back = opened.requests.taken_back();
            if taken_back > TAKEN_BACK_AT_MOST {
                return Poll::Ready(Err(Restless.into()));
            }
            if !leaving && (idle || stopped || taken_back > TAKEN_BACK) {
                leaving = true;
                life.leave();
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            return match overdue {
                Some(overdue) => Poll::Ready(Err(overdue.into())),
                None => {
                    streams.take_up(&opened, context);
                    Poll::Pending
                }
            };
        }
    })
    .await;
    drop(connection);
    streams.take_leave(&opened);
    over
}

fn builder(facts: &Facts, opened: Opened) -> Builder<Opened> {
    let bounds = &facts.bounds;
    let head = u32::try_from(bounds.head).unwrap_or(u32::MAX);
    let mut builder = Builder::new(opened);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(MISTAKES)
        .max_header_list_size(head)
        .initial_stream_window_size(STREAM)
        .initial_connection_window_size(CONNECTION)
        .max_send_buf_size(SENDING)
        .keep_alive_interval(PING.min(bounds.keep_alive))
        .keep_alive_timeout(bounds.head_timeout);
    builder
}

/// The streams of a connection, which run in its task. A task for each would cost an aligned piece of
/// memory, which the allocator has none of at hand, and turns of its own.
#[derive(Default)]
struct Streams(FuturesUnordered<Run>);

impl Streams {
    /// Gives each of those that can go on its turn.
    fn drive(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.0.poll_next_unpin(context) {}
    }

    /// Begins those that have been opened. What they send at once wakes the connection's task.
    fn take_up(&mut self, opened: &Opened, context: &mut Context<'_>) {
        while self.add(opened) {
            self.drive(context);
        }
    }

    /// The connection is over: what is left of them hears of it, and ends by itself.
    fn take_leave(mut self, opened: &Opened) {
        self.add(opened);
        if !self.0.is_empty() {
            spawn_local(self.0.for_each(|()| std::future::ready(())));
        }
    }

    /// Whether any had been opened.
    fn add(&mut self, opened: &Opened) -> bool {
        let mut fresh = opened.streams.borrow_mut();
        let any = !fresh.is_empty();
        self.0.extend(fresh.drain(..));
        any
    }
}

/// Where hyper puts streams that the client has opened.
#[derive(Clone)]
struct Opened {
    streams: Rc<RefCell<Vec<Run>>>,
    rounds: Rc<Rounds>,
    life: Arc<Life>,
    requests: Rc<Requests>,
}

/// Requests of a connection, and how many of them the client took back before their answers began.
#[derive(Default)]
struct Requests {
    all: Cell<u32>,
    taken_back: Cell<u32>,
}

impl Requests {
    fn add(count: &Cell<u32>) {
        count.set(count.get().saturating_add(1));
    }

    /// Those taken back, if they are more than half of all.
    fn taken_back(&self) -> u32 {
        let taken_back = self.taken_back.get();
        match taken_back > self.all.get() / 2 {
            true => taken_back,
            false => 0,
        }
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
#[error("too many requests were taken back")]
struct Restless;

impl<F> hyper::rt::Executor<F> for Opened
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        Requests::add(&self.requests.all);
        self.streams.borrow_mut().push(Run {
            stream: Box::pin(future.map(drop)),
            rounds: Rc::clone(&self.rounds),
            life: Arc::clone(&self.life),
            requests: Rc::clone(&self.requests),
            seat: None,
        });
    }
}

/// Runs one stream. Once its answer has begun it has to move: a client may keep it waiting by flow
/// control while it reads everything else.
struct Run {
    stream: Pin<Box<dyn Future<Output = ()>>>,
    rounds: Rc<Rounds>,
    life: Arc<Life>,
    requests: Rc<Requests>,
    seat: Option<Seat>,
}

impl Future for Run {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let answers = this.life.answers();
        let ended = this.stream.as_mut().poll(context).is_ready();
        // Nothing else runs meanwhile: it is this one that has begun its answer.
        let begins = this.life.answers() != answers;
        if ended {
            if this.seat.is_none() && !begins {
                Requests::add(&this.requests.taken_back);
            }
            return Poll::Ready(());
        }
        if this.seat.is_none() && begins {
            this.seat = Some(this.rounds.join_stream(&this.life));
        }
        let Some(seat) = &this.seat else {
            return Poll::Pending;
        };
        seat.attend(context);
        match seat.stalled() {
            // It is reset when it is dropped.
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}
