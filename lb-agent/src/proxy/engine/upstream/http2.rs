//! A connection of HTTP/2 to a backend: many requests at a time, driven by a task of its own.

use std::{cell::Cell, error::Error as _, pin::pin, rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    connect::Ends,
    http1::{Broken, MAX_HEAD},
    stream::Stream,
};
use crate::proxy::{
    deferred::{Deferred, Turns},
    engine::{
        counted::{Counted, OfConnections},
        replay::Outgoing,
    },
};

/// What a backend may send ahead of a slow client.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same of all streams: as much, so that clients that take nothing keep nobody else waiting.
const WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// A connection with requests on which nothing has come for so long is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(5);
/// Streams at a time on one connection, whatever more the backend would take: beyond, a second
/// connection is the better.
const STREAMS: usize = 128;

/// Runs the futures of a connection on this thread.
#[derive(Clone, Debug, Default)]
struct Local(Turns);

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        let turns = self.0.clone();
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            std::future::poll_fn(|context| {
                turns.begin();
                future.as_mut().poll(context).map(drop)
            })
            .await;
        });
    }
}

/// The connection.
#[derive(Debug)]
pub(in crate::proxy::engine) struct Http2 {
    sender: SendRequest<Outgoing>,
    streams: Cell<usize>,
    /// Streams that the backend takes.
    most: Rc<Cell<usize>>,
    pub(super) of: Option<Ends>,
    pub(super) idle_since: Cell<std::time::Instant>,
    /// It has been given a request.
    pub(super) served: Cell<bool>,
}

impl Http2 {
    pub(super) async fn new(
        stream: Stream,
        of: Option<Ends>,
        counted: Counted<OfConnections>,
    ) -> hyper::Result<Rc<Self>> {
        let turns = Turns::default();
        let deferred = Deferred::new(stream, turns.clone());
        let (sender, connection) = Builder::new(Local(turns))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_WITHIN)
            .handshake(TokioIo::new(deferred))
            .await?;
        let most = Rc::new(Cell::new(connection.current_max_send_streams()));
        let known = Rc::clone(&most);
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection);
            let driven = std::future::poll_fn(|context| {
                let polled = connection.as_mut().poll(context);
                known.set(connection.current_max_send_streams());
                polled
            });
            // Its error reaches every request on it.
            let _ = driven.await;
            drop(counted);
        });
        Ok(Rc::new(Self {
            sender,
            streams: Cell::new(0),
            most,
            of,
            idle_since: Cell::new(std::time::Instant::now()),
            served: Cell::new(false),
        }))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn has_room(&self) -> bool {
        self.streams.get() < self.most.get().min(STREAMS)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    pub(super) fn lease(self: &Rc<Self>, freed: Rc<dyn Fn()>) -> Stream2 {
        self.streams.set(self.streams.get() + 1);
        Stream2 {
            connection: Rc::clone(self),
            freed,
        }
    }
}

/// A stream on the connection, as long as it lives.
pub(in crate::proxy::engine) struct Stream2 {
    connection: Rc<Http2>,
    freed: Rc<dyn Fn()>,
}

impl std::fmt::Debug for Stream2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.connection.fmt(f)
    }
}

impl Stream2 {
    /// Sends a request and answers with the head of the answer.
    pub(in crate::proxy::engine) async fn send(
        &self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Broken> {
        self.connection.served.set(true);
        let answered = self
            .connection
            .sender
            .clone()
            .try_send_request(request)
            .await;
        answered.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let error = error.into_error();
            Broken {
                begun: !unsent && !was_refused(&error),
            }
        })
    }
}

impl Drop for Stream2 {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        if connection.is_idle() {
            connection.idle_since.set(std::time::Instant::now());
        }
        (self.freed)();
    }
}

/// The backend says that it has not processed the request (RFC 9113, section 8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let refused = cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        // Streams beyond the last that a graceful GOAWAY names end with its reason.
        refused
            || cause.is_go_away()
                && cause.is_remote()
                && cause.reason() == Some(h2::Reason::NO_ERROR)
    })
}
