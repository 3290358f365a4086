//! The stream of bytes from and to a client: with or without TLS, with what was read of it before
//! its protocol was known, and with a note of whether it moves.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{accepted::Accepted, life::Life};
use crate::proxy::gather;

/// Bytes from and to a client.
#[derive(Debug)]
pub(super) enum ClientStream {
    Plain(Accepted),
    Tls(Box<TlsStream<Accepted>>),
}

impl ClientStream {
    fn socket(&mut self) -> &mut Accepted {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Ready once something can be read. Nothing that came may be unread: with TLS it could be in
    /// its buffers.
    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().known()?.poll_read_ready(context)
    }

    /// Ready once something has come, or the end. It takes a call of the kernel to tell.
    pub(super) fn poll_come(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut byte = [MaybeUninit::uninit()];
        self.socket()
            .known()?
            .poll_peek(context, &mut ReadBuf::uninit(&mut byte))
            .map_ok(drop)
    }

    /// What is written next is the last, and is closed behind without a wait. With TLS more follows: that
    /// it is over.
    fn ends(&mut self) {
        if let Self::Plain(socket) = self {
            socket.ends();
        }
    }

    /// Whether the peer has reset the connection, for which the task is woken unless there is something
    /// to read before. Who has only ended its side may still want its answer.
    fn is_reset(&mut self, context: &mut Context<'_>) -> bool {
        matches!(self.poll_come(context), Poll::Ready(Err(_)))
    }

    /// What was not taken yet is not sent any more, nor kept by the kernel.
    pub(super) fn discard(mut self) {
        // The worst that can happen is that it keeps it for a while.
        let _ = socket2::SockRef::from(&*self.socket()).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => gather::poll_write(Pin::new(stream), context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// The same as its protocol reads and writes it. It holds the connection's life, also when the
/// protocol has become another.
#[derive(Debug)]
pub(super) struct Noted {
    stream: ClientStream,
    /// What was read before.
    begun: Bytes,
    life: Arc<Life>,
}

impl Noted {
    pub(super) fn new(stream: ClientStream, begun: Bytes, life: Arc<Life>) -> Self {
        Self {
            stream,
            begun,
            life,
        }
    }

    pub(super) fn into_stream(self) -> ClientStream {
        self.stream
    }

    /// Before something is written.
    fn prepare(&mut self) {
        if self.life.is_ending() {
            self.stream.ends();
        }
    }

    fn note<T>(&self, polled: &Poll<io::Result<T>>) {
        match polled {
            Poll::Ready(_) => self.life.wrote(),
            Poll::Pending => self.life.blocked(),
        }
    }
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let length = self.begun.len().min(buffer.remaining());
            buffer.put_slice(&self.begun[..length]);
            self.begun.advance(length);
            if self.begun.is_empty() {
                self.begun = Bytes::new();
            }
            self.life.read(length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &polled {
            Poll::Pending => self.life.starved(),
            Poll::Ready(_) => {
                let bytes = buffer.filled().len() - before;
                if bytes > 0 {
                    self.life.read(bytes);
                }
            }
        }
        polled
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.prepare();
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.prepare();
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library comes by here whenever a request goes on, and reads nothing meanwhile.
        if self.life.is_watched() && self.stream.is_reset(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        match polled {
            Poll::Ready(_) => self.life.flushed(),
            // Of TLS, which keeps what the socket does not take.
            Poll::Pending => self.life.blocked(),
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
