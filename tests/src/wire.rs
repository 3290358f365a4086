//! The far end of a cable: frames go in as they are, and come out as they are.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use crate::namespace::Namespace;
use anyhow::{Context as _, Result, ensure};

/// Longest frame that any of these links carries, and some.
const LONGEST: usize = 2048;

/// A packet socket on one interface.
pub struct Wire {
    socket: OwnedFd,
    buffer: Vec<u8>,
    tag: Option<u16>,
}

impl Wire {
    /// Opens a socket on `interface` of a namespace; it sees what comes in from now on.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let socket = namespace.run(|| open(interface));
        Ok(Self {
            socket: socket.with_context(|| format!("a packet socket on {interface}"))?,
            buffer: vec![0; LONGEST],
            tag: None,
        })
    }

    /// Puts a frame on the cable.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
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
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Vec<u8>>> {
        loop {
            let length = self.take();
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

    /// Control information of the VLAN tag that the last frame carried; the kernel takes it out of the
    /// frame (packet(7), `PACKET_AUXDATA`).
    pub fn tag(&self) -> Option<u16> {
        self.tag
    }

    /// One frame into the buffer, if there is one; its length, or less than zero.
    fn take(&mut self) -> isize {
        let mut control = [0_u64; 8];
        let mut buffer = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // SAFETY: plain data, for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut buffer;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: buffer and control space are writable for their lengths.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, flags) };
        if length < 0 {
            return length;
        }
        self.tag = None;
        // SAFETY: the message is the kernel's; a header that it answers with is whole.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if !header.is_null()
                && (*header).cmsg_level == libc::SOL_PACKET
                && (*header).cmsg_type == libc::PACKET_AUXDATA
            {
                let data = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>();
                let data = data.read_unaligned();
                if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    self.tag = Some(data.tp_vlan_tci);
                }
            }
        }
        length
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
    for option in [libc::PACKET_IGNORE_OUTGOING, libc::PACKET_AUXDATA] {
        let yes: libc::c_int = 1;
        // SAFETY: the option is one integer.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const yes).cast(),
                size_of_val(&yes) as libc::socklen_t,
            )
        };
        ensure!(answer == 0, io::Error::last_os_error());
    }
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
