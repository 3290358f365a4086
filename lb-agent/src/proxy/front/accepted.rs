//! Sockets as they are accepted: the runtime learns of one only once there is something to wait for.
//!
//! Of a client that has sent its request when its connection is accepted, and that closes it with
//! the answer, there never is: two calls of the kernel less, and the events in between.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::net::{SendFlags, SocketFlags, acceptfrom_with, send, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::TcpStream,
};

/// A socket that listens, as long as this thread takes its connections.
#[derive(Debug)]
pub(super) struct Listener(AsyncFd<Arc<TcpListener>>);

impl Listener {
    /// The socket, which does not block, as it is used here. What it accepts inherits that it does not delay (tcp(7)), and
    /// that what comes is acknowledged with what is sent anyway, or a moment later: nearly every
    /// request is answered at once.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub(super) fn new(socket: Arc<TcpListener>) -> io::Result<Self> {
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_tcp_quickack(&socket, false)?;
        // SAFETY: the socket owns its descriptor, and is there as long as this is.
        let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(watched))
    }

    /// Takes a connection that waits, with its peer's address.
    pub(super) fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Accepted, SocketAddr)>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            if let Ok(accepted) = ready.try_io(|socket| accept(socket.get_ref())) {
                return Poll::Ready(accepted);
            }
        }
    }
}

fn accept(socket: &TcpListener) -> io::Result<(Accepted, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = acceptfrom_with(socket, flags)?;
    let peer = peer.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let peer = SocketAddr::try_from(peer).map_err(io::Error::from)?;
    Ok((Accepted::from(std::net::TcpStream::from(stream)), peer))
}

/// Bytes that are read before the runtime knows of the socket: nearly every request without a body. The room
/// for them is filled with zeroes first; whoever sends more is served by the runtime, which can do without that.
const AT_ONCE: usize = 2 << 10;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Accepted {
    state: State,
    ends: bool,
}

#[derive(Debug)]
enum State {
    /// The runtime does not know it. It does not block.
    Fresh(std::net::TcpStream),
    Known(TcpStream),
    /// The runtime would not have it.
    Lost,
}

impl From<std::net::TcpStream> for Accepted {
    /// Of a socket that does not block.
    fn from(socket: std::net::TcpStream) -> Self {
        Self {
            state: State::Fresh(socket),
            ends: false,
        }
    }
}

impl AsFd for Accepted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.state {
            State::Fresh(socket) => socket.as_fd(),
            State::Known(stream) => stream.as_fd(),
            State::Lost => unreachable!("an error has ended the connection"),
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("the socket could not be waited for")
}

/// Sends what the end follows at once. The kernel keeps the last of it for that (`MSG_MORE` of send(2)),
/// and one packet carries both.
fn send_before_the_end(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    send(socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL).map_err(io::Error::from)
}

/// What a call of the kernel says that does not wait.
fn at_once<T>(mut call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            done => return Poll::Ready(done),
        }
    }
}

impl Accepted {
    /// Where the peer has connected to.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.state {
            State::Fresh(socket) => socket.local_addr(),
            State::Known(stream) => stream.local_addr(),
            State::Lost => Err(lost()),
        }
    }

    /// What is written next is the last, and [`AsyncWrite::poll_shutdown`] follows it without a wait.
    pub(super) fn ends(&mut self) {
        self.ends = true;
    }

    /// The same as the runtime knows it, from now on at the latest.
    ///
    /// # Errors
    ///
    /// It cannot: no memory, or too many descriptors watched.
    pub(super) fn known(&mut self) -> io::Result<&mut TcpStream> {
        if let State::Fresh(_) = self.state
            && let State::Fresh(socket) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Known(TcpStream::from_std(socket)?);
        }
        match &mut self.state {
            State::Known(stream) => Ok(stream),
            State::Fresh(_) | State::Lost => Err(lost()),
        }
    }

    /// The stream once the runtime knows it.
    fn waits(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.known().map(Pin::new)
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let State::Fresh(socket) = &mut self.state {
            let room = buffer.remaining().min(AT_ONCE);
            let room = buffer.initialize_unfilled_to(room);
            if let Poll::Ready(read) = at_once(|| socket.read(room)) {
                let bytes = read?;
                buffer.advance(bytes);
                if bytes == AT_ONCE {
                    self.known()?;
                }
                return Poll::Ready(Ok(()));
            }
        }
        self.waits()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &self.state {
            State::Lost => return Poll::Ready(Err(lost())),
            // Of what finds no room the end goes by itself.
            State::Fresh(socket) if !self.ends => at_once(|| (&*socket).write(bytes)),
            State::Known(_) if !self.ends => Poll::Pending,
            State::Fresh(_) | State::Known(_) => at_once(|| send_before_the_end(&*self, bytes)),
        };
        match written {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending => self.waits()?.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let State::Fresh(socket) = &mut self.state
            && let Poll::Ready(written) = at_once(|| socket.write_vectored(pieces))
        {
            return Poll::Ready(written);
        }
        self.waits()?.poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is the kernel's.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Fresh(socket) => Poll::Ready(socket.shutdown(Shutdown::Write)),
            State::Known(stream) => Pin::new(stream).poll_shutdown(context),
            State::Lost => Poll::Ready(Err(lost())),
        }
    }
}
