//! What the streams of an HTTP/2 connection send is written together. h2 writes frame by frame, and
//! flushes whenever its connection was polled: with several streams under way that would be a
//! system call, a packet and a wakeup of the peer for each of their frames.
//!
//! So short pieces are kept until everything that is ready on this thread has had its turn, and
//! go with what these added. Nothing waits for time to pass.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are kept at most. Beyond, the cost of a call is small against that of its bytes.
const MOST: usize = 16 << 10;

/// The turns of a connection's tasks: each poll of one begins another.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Rc<Cell<u64>>);

impl Turns {
    /// A task that writes to the connection is about to be polled.
    pub(super) fn begin(&self) {
        self.0.set(self.0.get() + 1);
    }
}

/// See the module's documentation. Whoever polls it counts its turns: without that nothing short
/// would ever be written.
#[derive(Debug)]
pub(super) struct Deferred<S: AsyncWrite + Unpin> {
    stream: S,
    turns: Turns,
    kept: BytesMut,
    /// The turn in which the flush of what is kept was wanted.
    wanted: Option<u64>,
    /// The peer has sent something. Before that h2 only reads on after its flush, and would not come
    /// back for it.
    greeted: bool,
}

impl<S: AsyncWrite + Unpin> Deferred<S> {
    pub(super) fn new(stream: S, turns: Turns) -> Self {
        Self {
            stream,
            turns,
            kept: BytesMut::new(),
            wanted: None,
            greeted: false,
        }
    }

    /// Writes all that is kept.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written);
        }
        self.kept = BytesMut::new();
        self.wanted = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Writes what is kept and these, without another copy; answers how much of these.
    fn poll_long(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let before = self.kept.len();
            if before == 0 {
                return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
            }
            let mut all = Vec::with_capacity(slices.len() + 1);
            all.push(IoSlice::new(&self.kept));
            all.extend_from_slice(slices);
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &all))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            self.kept.advance(written.min(before));
            if written > before {
                return Poll::Ready(Ok(written - before));
            }
        }
    }

    /// The turn has passed in which a flush was wanted.
    fn is_due(&self) -> bool {
        self.wanted.is_some_and(|turn| turn != self.turns.0.get())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Deferred<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.greeted |= read.is_ready();
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deferred<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.kept.len() + length > MOST {
            return self.poll_long(context, slices);
        }
        self.kept.reserve(length);
        for slice in slices {
            self.kept.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            self.wanted = None;
            return Pin::new(&mut self.stream).poll_flush(context);
        }
        if self.is_due() || !self.greeted {
            return self.poll_drain(context);
        }
        if self.wanted.is_none() {
            self.wanted = Some(self.turns.0.get());
            // Behind all that are ready.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncWrite + Unpin> Drop for Deferred<S> {
    fn drop(&mut self) {
        if !self.kept.is_empty() {
            // As much as goes without waiting: the reason of an end may be in it.
            let _ = self.poll_drain(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[cfg(test)]
mod tests;
