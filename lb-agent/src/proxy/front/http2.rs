//! HTTP/2 on a client's connection.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
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
    let tasks = Tasks {
        rounds: Rc::clone(&rounds),
        life: Arc::clone(&life),
    };
    // hyper moves what answers a request several times.
    let service = service_fn(move |request| Box::pin(Rc::clone(&visit).answer(request)));
    let mut connection = builder(facts, tasks).serve_connection(deferred, service);
    let mut leaving = false;
    std::future::poll_fn(|context| {
        seat.attend(context);
        turns.begin();
        loop {
            if let Poll::Ready(over) = Pin::new(&mut connection).poll(context) {
                return Poll::Ready(over.map_err(Failure::from));
            }
            let overdue = seat.overdue();
            let idle = overdue == Some(Overdue::Stage(Stage::Idle));
            // Who has not asked for anything yet is about to.
            let stopped = rounds.stopped().is_some() && life.can_leave();
            if !leaving && (idle || stopped) {
                leaving = true;
                life.leave();
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            return match overdue {
                Some(overdue) => Poll::Ready(Err(overdue.into())),
                None => Poll::Pending,
            };
        }
    })
    .await
}

fn builder(facts: &Facts, tasks: Tasks) -> Builder<Tasks> {
    let bounds = &facts.bounds;
    let head = u32::try_from(bounds.head).unwrap_or(u32::MAX);
    let mut builder = Builder::new(tasks);
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

/// Runs the streams of a connection on its thread.
#[derive(Clone, Debug)]
struct Tasks {
    rounds: Rc<Rounds>,
    life: Arc<Life>,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        let Self { rounds, life } = self.clone();
        spawn_local(Run {
            stream: Box::pin(future),
            rounds,
            life,
            seat: None,
        });
    }
}

/// Runs one stream. Once its answer has begun it has to move: a client may keep it waiting by flow
/// control while it reads everything else.
struct Run<F> {
    stream: Pin<Box<F>>,
    rounds: Rc<Rounds>,
    life: Arc<Life>,
    seat: Option<Seat>,
}

impl<F: Future> Future for Run<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let answers = this.life.answers();
        if this.stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // Nothing else runs meanwhile: it is this one that has begun its answer.
        if this.seat.is_none() && this.life.answers() != answers {
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
