//! A connection of HTTP/1.1 to a backend.
//!
//! Whoever has a request on it drives it: no task of its own, so that an answer wakes the client's
//! task at once, and an abandoned one closes the connection.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use http::{Request, Response};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{
    connect::Ends,
    stream::{Stream, Watch},
};
use crate::proxy::{
    HEADERS,
    engine::{
        counted::{Counted, OfConnections},
        replay::Outgoing,
    },
};

/// Longest head of an answer, in bytes.
pub(super) const MAX_HEAD: usize = 256 * 1024;

/// The connection.
#[derive(Debug)]
pub(in crate::proxy::engine) struct Http1 {
    sender: SendRequest<Outgoing>,
    connection: Connection<TokioIo<Stream>, Outgoing>,
    ended: bool,
    watch: Rc<Watch>,
    /// Whose it is, where backends are told so by the PROXY protocol.
    pub(super) of: Option<Ends>,
    /// When it was first seen idle; whoever gives it back asks no clock.
    pub(super) idle_since: Option<Instant>,
    /// It lay idle before this request, so it may have ended without anybody's fault.
    pub(in crate::proxy::engine) reused: bool,
    /// It has been given a request.
    pub(super) served: bool,
    _counted: Counted<OfConnections>,
}

/// It broke before an answer.
#[derive(Debug)]
pub(in crate::proxy::engine) struct Broken {
    /// Some of the request was written.
    pub(in crate::proxy::engine) begun: bool,
}

impl Http1 {
    pub(super) async fn new(
        stream: Stream,
        of: Option<Ends>,
        headers: usize,
        counted: Counted<OfConnections>,
    ) -> hyper::Result<Box<Self>> {
        let watch = Rc::clone(&stream.watch);
        let mut builder = Builder::new();
        builder.max_header_size(MAX_HEAD);
        if headers > HEADERS {
            builder.max_headers(headers);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Self {
            sender,
            connection,
            ended: false,
            watch,
            of,
            idle_since: None,
            reused: false,
            served: false,
            _counted: counted,
        }))
    }

    /// Lets it go on. Answers arrive at whoever waits for them within this call only.
    pub(in crate::proxy::engine) fn drive(&mut self, context: &mut Context<'_>) {
        if !self.ended {
            // An error reaches the answer or its body, too.
            self.ended = self.connection.poll_without_shutdown(context).is_ready();
        }
    }

    /// Sends a request and answers with the head of the answer.
    pub(in crate::proxy::engine) fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, Broken>> + '_ {
        self.served = true;
        let before = self.watch.written.get();
        let has_body = !request.body().is_end_stream();
        let answer = self.sender.try_send_request(request);
        async move {
            let mut answer = pin!(answer);
            let mut quiet = Context::from_waker(Waker::noop());
            let mut is_sent = false;
            let answered = std::future::poll_fn(|context| {
                // Once nothing is left to be sent, most often the answer has come. Whoever were to
                // be woken while it is read would be woken by reading its body, too: for nothing.
                if is_sent {
                    self.drive(&mut quiet);
                    if let Poll::Ready(answered) = answer.as_mut().poll(&mut quiet) {
                        return Poll::Ready(answered);
                    }
                }
                is_sent = !has_body;
                self.drive(context);
                answer.as_mut().poll(&mut quiet)
            });
            answered.await.map_err(|_| Broken {
                begun: self.watch.written.get() > before,
            })
        }
    }

    /// It may take another request, as far as is known from the one before; if that does not say, as
    /// far as one can tell.
    pub(super) fn is_done(&mut self) -> bool {
        (!self.ended && self.sender.is_ready()) || self.is_ready()
    }

    /// It may take another request, as far as one can tell without asking the kernel.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }

    /// The same, and the kernel has nothing of the backend's, not even its end.
    pub(super) fn is_silent(&mut self) -> bool {
        self.watch.ask.set(true);
        self.watch.silent.set(false);
        self.is_ready() && self.watch.silent.get()
    }

    /// Takes the connection for another protocol, after an answer of 101, with what the backend
    /// has sent of it already.
    pub(in crate::proxy::engine) async fn upgrade(
        mut self: Box<Self>,
    ) -> hyper::Result<(Stream, bytes::Bytes)> {
        if !self.ended {
            std::future::poll_fn(|context| {
                Pin::new(&mut self.connection).poll_without_shutdown(context)
            })
            .await?;
        }
        let parts = self.connection.into_parts();
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}
