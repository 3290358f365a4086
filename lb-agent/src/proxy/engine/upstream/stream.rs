//! A connection to a backend, plain or over TLS, that tells whether anything was written to it.
//!
//! A backend may answer before it has taken all of a request, and close (RFC 9112, section 9.3 and
//! 9.5). What fails to be written then must not hide the answer, which waits to be read: so writing
//! to a peer that has gone succeeds until all that it has sent was read.

use std::{
    cell::Cell,
    io,
    mem::MaybeUninit,
    os::fd::AsFd as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::proxy::gather;

/// Bytes that are read at a time. hyper doubles its buffer whenever it was filled: with one less
/// than a power of two it stays at that, which bounds the memory of a connection whose client is slow,
/// and is no allocation of its own of the kernel's.
const LONGEST: u64 = (32 << 10) - 1;

/// What is to be known of a stream by whoever has given it away.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Bytes that were written.
    pub(super) written: Cell<u64>,
    /// Whether the peer is silent is asked of the kernel at the next reading.
    pub(super) ask: Cell<bool>,
    /// It was then: neither data nor an end has come.
    pub(super) silent: Cell<bool>,
}

/// The connection.
#[derive(Debug)]
pub(in crate::proxy::engine) struct Stream {
    pub(super) transport: Transport,
    pub(super) watch: Rc<Watch>,
    /// The peer takes nothing any more.
    gone: bool,
    /// It has sent nothing more.
    ended: bool,
}

/// What it goes over.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn is_silent(&self) -> bool {
        let socket = match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        };
        let peeked = SockRef::from(&socket).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The same call on whichever transport it is.
macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.transport {
            Transport::Plain($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

impl Stream {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            watch: Rc::default(),
            gone: false,
            ended: false,
        }
    }

    fn read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => {
            let mut part = tokio::io::AsyncReadExt::take(stream, LONGEST);
            Pin::new(&mut part).poll_read(context, buffer)
        })
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &written {
            let count = &self.watch.written;
            count.set(count.get() + *written as u64);
        }
        written
    }

    /// Nothing reaches the peer, which may have sent what is not read yet.
    fn is_in_vain(&self) -> bool {
        self.gone && !self.ended
    }

    /// What is in vain has ended as if it were `done`.
    fn forgive<T>(&mut self, polled: Poll<io::Result<T>>, done: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) if is_reset(&error) && !self.ended => {
                self.gone = true;
                Poll::Ready(Ok(done))
            }
            polled => polled,
        }
    }
}

/// The peer has closed the connection, and said so by a reset.
fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watch.ask.take() {
            self.watch.silent.set(self.transport.is_silent());
        }
        let before = buffer.filled().len();
        let read = self.read(context, buffer);
        let end = match &read {
            Poll::Ready(Ok(())) => buffer.filled().len() == before && buffer.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        self.ended |= end;
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_in_vain() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = delegate!(self, stream => Pin::new(stream).poll_write(context, bytes));
        let written = self.count(written);
        self.forgive(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.is_in_vain() {
            return Poll::Ready(Ok(length));
        }
        let written =
            delegate!(self, stream => gather::poll_write(Pin::new(stream), context, slices));
        let written = self.count(written);
        self.forgive(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_in_vain() {
            return Poll::Ready(Ok(()));
        }
        let flushed = delegate!(self, stream => Pin::new(stream).poll_flush(context));
        self.forgive(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = delegate!(self, stream => Pin::new(stream).poll_shutdown(context));
        self.forgive(shut, ())
    }
}
