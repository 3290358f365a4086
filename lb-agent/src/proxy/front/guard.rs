//! Stands between a client's connection and the HTTP library.
//!
//! What the library must not be shown ([`Framing`]) is spoiled on its way, so that it refuses the
//! request and closes the connection. Only for a request of an unknown version has it no right answer: the
//! library is shown the connection's end in its place, and whoever serves the connection answers.
//! And a client that is still sending when its connection is
//! closed can read its answer first: the kernel would reset the connection at once, and with it the
//! answer be gone (RFC 9112, section 9.6).

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tracing::debug;

use crate::domain::http::framing::{Framing, InvalidFraming};

/// How long it is waited that a client stops sending.
const LINGER: Duration = Duration::from_secs(2);
/// In place of what is refused: no byte of HTTP, wherever it stands.
const SPOILED: u8 = 0;

/// A connection that is looked at.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    framing: Framing,
    tunnel: Tunnel,
    unspoken: Unspoken,
    closing: Closing,
}

/// A request in a version of HTTP that the library does not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unspoken {
    No,
    /// It has come, and the library has yet to read what came before.
    Waits,
    /// The library has seen an end where it stands.
    Reached,
}

/// Tells that a connection has become another protocol: nothing on it is looked at any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Tunnel(Arc<AtomicBool>);

#[derive(Debug)]
enum Closing {
    No,
    /// Our side has ended, the client's has not.
    Lingers(Pin<Box<Sleep>>),
    Done,
}

impl Tunnel {
    pub(super) fn begin(&self) {
        self.0.store(true, Relaxed);
    }
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, tunnel: Tunnel) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            tunnel,
            unspoken: Unspoken::No,
            closing: Closing::No,
        }
    }

    /// What came ends within a request.
    pub(super) fn is_within(&self) -> bool {
        self.framing.is_within()
    }

    /// A target is too long for the library.
    pub(super) fn has_long_target(&self) -> bool {
        self.framing.has_long_target()
    }

    /// The library has come to a request whose version it does not speak, and neither answered that
    /// nor ended the connection.
    pub(super) fn is_at_unspoken(&self) -> bool {
        self.unspoken == Unspoken::Reached
    }

    /// What it stood before.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Looks at what came behind `before`.
    fn look(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if self.tunnel.0.load(Relaxed) {
            self.framing.end();
        }
        let came = &mut buffer.filled_mut()[before..];
        let Err(refused) = self.framing.read(came) else {
            return;
        };
        debug!(why = %refused.why, "a request is refused");
        if refused.why != InvalidFraming::Version {
            came[refused.at] = SPOILED;
            return;
        }
        let line = memchr::memrchr(b'\n', &came[..refused.at]).map_or(0, |end| end + 1);
        buffer.set_filled(before + line);
        self.unspoken = match line {
            0 => Unspoken::Reached,
            _ => Unspoken::Waits,
        };
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unspoken != Unspoken::No {
            self.unspoken = Unspoken::Reached;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.look(buffer, before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Not before there is an answer.
        if this.is_at_unspoken() {
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut this.closing {
                Closing::No => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                    this.closing = match this.framing.is_within() {
                        true => Closing::Lingers(Box::pin(sleep(LINGER))),
                        false => Closing::Done,
                    };
                }
                Closing::Lingers(patience) => {
                    // Whatever ends it, the connection is closed.
                    if patience.as_mut().poll(context).is_pending() {
                        ready!(discard(&mut this.stream, context));
                    }
                    this.closing = Closing::Done;
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Reads until the peer has ended, or failed.
fn discard<S: AsyncRead + Unpin>(stream: &mut S, context: &mut Context<'_>) -> Poll<()> {
    // As much as a task should do before others have their turn.
    for _ in 0..32 {
        let mut bytes = [MaybeUninit::uninit(); 8192];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(());
        }
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests;
