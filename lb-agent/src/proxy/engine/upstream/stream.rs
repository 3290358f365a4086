//! A connection to a backend, plain or over TLS, that tells whether anything was written to it.

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
const LONGEST: usize = (32 << 10) - 1;

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

impl Stream {
    pub(super) fn new(transport: Transport) -> Self {
        let watch = Rc::default();
        Self { transport, watch }
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &written {
            let count = &self.watch.written;
            count.set(count.get() + *written as u64);
        }
        written
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

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watch.ask.take() {
            self.watch.silent.set(self.transport.is_silent());
        }
        if buffer.remaining() <= LONGEST {
            return delegate!(self, stream => Pin::new(stream).poll_read(context, buffer));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(LONGEST));
        let read = delegate!(self, stream => Pin::new(stream).poll_read(context, &mut part));
        let length = part.filled().len();
        buffer.advance(length);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = delegate!(self, stream => Pin::new(stream).poll_write(context, bytes));
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written =
            delegate!(self, stream => gather::poll_write(Pin::new(stream), context, slices));
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
