//! The far end of a cable: frames go in as they are, and come out as they are.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::namespace::Namespace;

/// Longest frame that any of these links carries, and some.
const LONGEST: usize = 2048;

/// A packet socket on one interface.
pub(crate) struct Wire {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens a socket on `interface` of a namespace; it sees what comes in from now on.
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let socket = namespace.run(|| open(interface));
        Ok(Self {
            socket: socket.with_context(|| format!("a packet socket on {interface}"))?,
            buffer: vec![0; LONGEST],
        })
    }

    /// Puts a frame on the cable.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the buffer is readable for its length.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            return Err(error).with_context(|| format!("sending {} bytes", frame.len()));
        }
        ensure!(sent as usize == frame.len(), "sent {sent} bytes of a frame");
        Ok(())
    }

    /// The next frame that has come in, after waiting for it at most this long. What goes to
    /// groups of hosts is not shown: it is the neighbourhood's chatter.
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<Option<Vec<u8>>> {
        loop {
            // SAFETY: the buffer is writable for its length.
            let length = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                )
            };
            if length >= 0 {
                ensure!(length as usize <= LONGEST, "a frame of {length} bytes");
                let frame = &self.buffer[..length as usize];
                if frame.first().is_some_and(|first| first & 1 != 0) {
                    continue;
                }
                return Ok(Some(frame.to_vec()));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error).context("receiving");
            }
            if !self.wait(patience)? {
                return Ok(None);
            }
        }
    }

    fn wait(&self, patience: Duration) -> Result<bool> {
        let mut watched = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one entry, which is writable.
        match unsafe { libc::poll(&raw mut watched, 1, patience) } {
            0 => Ok(false),
            count if count > 0 => Ok(true),
            _ => Err(io::Error::last_os_error()).context("waiting for a frame"),
        }
    }
}

fn open(interface: &str) -> Result<OwnedFd> {
    let name = CString::new(interface)?;
    // SAFETY: a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "no interface {interface}");
    let all = (libc::ETH_P_ALL as u16).to_be();
    // Of no protocol until it is bound: nothing of other interfaces comes in.
    // SAFETY: plain numbers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: just opened, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let yes: libc::c_int = 1;
    // SAFETY: the option is one integer.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    ensure!(answer == 0, io::Error::last_os_error());
    // SAFETY: plain data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = index as i32;
    // SAFETY: an address of the size that is given.
    let answer = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    ensure!(answer == 0, io::Error::last_os_error());
    Ok(socket)
}
