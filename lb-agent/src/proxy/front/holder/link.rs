//! Messages between an agent and the process that holds its sockets: one JSON value a datagram
//! (SOCK_SEQPACKET, unix(7)), and with it sockets (SCM_RIGHTS).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, connect, recvmsg, sendmsg, socket_with,
        sockopt::{Timeout, set_socket_timeout, socket_peercred},
    },
    process::geteuid,
};
use serde::{Deserialize, Serialize};

use super::Key;

/// Sockets in one message; the kernel's bound is 253 (`SCM_MAX_FD` of `include/net/scm.h`).
pub(super) const AT_ONCE: usize = 64;

/// The longest message.
const LONGEST: usize = 4096;

/// How long the other side may be busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum Message {
    /// Agent: hold these sockets too.
    Hold(Key),
    /// Agent: hold none of this key.
    Release(Key),
    /// Agent: give me duplicates of all.
    Take,
    /// Agent: what connects from now on is served.
    Serving,
    /// Holder: some sockets of this key.
    Held(Key),
    /// Holder: these were all.
    All,
    /// `detach`: end.
    End,
    /// Holder: so many sockets are held no longer.
    Ended(usize),
}

/// One end of a connection between the two.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Connects to whoever listens there.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket)
    }

    /// A connection, if the other side may have it: root, or who runs this.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let peer = socket_peercred(&socket)?.uid;
        if !peer.is_root() && peer != geteuid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        for direction in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&socket, direction, Some(PATIENCE))?;
        }
        Ok(Self(socket))
    }

    /// Says it. With at most [`AT_ONCE`] sockets, which stay open here.
    pub(super) fn send(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > LONGEST {
            return Err(io::Error::other("a name is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::Error::other("too many sockets at once"));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&text)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Says it of any number of sockets.
    pub(super) fn send_all(
        &self,
        message: &Message,
        sockets: impl Iterator<Item: AsFd>,
    ) -> io::Result<()> {
        let sockets: Vec<_> = sockets.collect();
        for some in sockets.chunks(AT_ONCE) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            self.send(message, &some)?;
        }
        Ok(())
    }

    /// The next message and its sockets; `None` if there will be none.
    pub(super) fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut text = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut text)];
        let received = recvmsg(&self.0, &mut parts, &mut control, flags)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                sockets.extend(some);
            }
        }
        // Too few descriptors are free: a part is lost.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("no room for all sockets of a message"));
        }
        let message = serde_json::from_slice(&text[..received.bytes])?;
        Ok(Some((message, sockets)))
    }

    /// Whether the other side has gone.
    pub(super) fn is_closed(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut polled, Some(&now)).is_ok_and(|_| polled[0].revents().intersects(gone))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
