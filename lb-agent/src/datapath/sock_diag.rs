//! Closing other processes' sockets by `SOCK_DESTROY` of sock_diag(7).
//!
//! What is to be closed is named by cookies; the kernel closes by addresses *and* cookie. So the
//! sockets towards the backend are listed first, and those that carry one of the cookies are
//! closed under the very identity that the list gave them: no other socket can be hit, even if it
//! has the same addresses.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use lb_common::IPPROTO_TCP;
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// `SOCK_DIAG_BY_FAMILY` of include/uapi/linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`, since Linux 4.5; for UDP since 4.9. Needs `CONFIG_INET_DIAG_DESTROY`.
const DESTROY: u16 = 21;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct inet_diag_sockid`.
const ID: usize = 48;
/// Where the id begins in `struct inet_diag_req_v2`, which it ends.
const ID_IN_REQUEST: usize = 8;
/// Where it begins in `struct inet_diag_msg`.
const ID_IN_ANSWER: usize = 4;

/// `INET_DIAG_NOCOOKIE`, both words.
const NO_COOKIE: u64 = u64::MAX;

/// `TCP_ESTABLISHED` of include/net/tcp_states.h; a connected UDP socket is in it, too.
const ESTABLISHED: u32 = 1;
/// `TCP_SYN_SENT` .. `TCP_CLOSING` but for `TCP_TIME_WAIT` (6), `TCP_CLOSE` (7) and `TCP_LISTEN`
/// (10): those that have a peer and whose process may wait for it.
const WITH_PEER: [u32; 8] = [1, 2, 3, 4, 5, 8, 9, 11];

/// Sockets that are to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    /// IANA protocol number: TCP or UDP.
    pub(crate) protocol: u8,
    /// The peer they are connected to.
    pub(crate) peer: SocketAddr,
    /// Their cookies.
    pub(crate) cookies: BTreeSet<u64>,
}

/// Closes sockets of the calling thread's network namespace; answers with their number. Who has
/// one waits no longer: its calls fail with `ECONNABORTED`.
///
/// # Errors
///
/// The kernel refuses; [`io::ErrorKind::Unsupported`] if it cannot close others' sockets.
pub(crate) fn close(doomed: &Doomed) -> io::Result<usize> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    let mut closed = 0;
    // A socket of AF_INET6 may be connected to an IPv4 address, in its mapped form.
    let families: &[i32] = match doomed.peer {
        SocketAddr::V4(_) => &[libc::AF_INET, libc::AF_INET6],
        SocketAddr::V6(_) => &[libc::AF_INET6],
    };
    for family in families {
        // AF_INET is 2 and AF_INET6 is 10.
        let family = *family as u8;
        for id in list(&socket, doomed, family)? {
            closed += usize::from(destroy(&socket, doomed.protocol, family, &id)?);
        }
    }
    Ok(closed)
}

/// Identities of the sockets of a family to the peer that carry one of the cookies.
fn list(socket: &Socket, doomed: &Doomed, family: u8) -> io::Result<Vec<[u8; ID]>> {
    let states = if doomed.protocol == IPPROTO_TCP {
        WITH_PEER.iter().fold(0, |bits, state| bits | 1 << state)
    } else {
        1 << ESTABLISHED
    };
    let mut id = [0; ID];
    id[2..4].copy_from_slice(&doomed.peer.port().to_be_bytes());
    id[40..48].copy_from_slice(&NO_COOKIE.to_ne_bytes());
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let question = request(BY_FAMILY, flags, family, doomed.protocol, states, &id);
    socket.send(&question, 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            match message {
                Message::Done => return Ok(found),
                Message::Error(0) => {}
                Message::Error(code) => return Err(io::Error::from_raw_os_error(-code)),
                Message::Answer(body) => found.extend(identity(body, doomed)),
            }
        }
    }
}

/// The identity in a `struct inet_diag_msg`, if the socket is one of the doomed.
fn identity(body: &[u8], doomed: &Doomed) -> Option<[u8; ID]> {
    let id: [u8; ID] = body.get(ID_IN_ANSWER..ID_IN_ANSWER + ID)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let octets: [u8; 16] = id[20..36].try_into().ok()?;
    let ip = if i32::from(body[0]) == libc::AF_INET {
        IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
    } else {
        Ipv6Addr::from(octets).to_canonical()
    };
    // Two words, the lower one first (net/core/sock_diag.c).
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([
            id[at],
            id[at + 1],
            id[at + 2],
            id[at + 3],
        ]))
    };
    let cookie = word(40) | word(44) << 32;
    let fits = SocketAddr::new(ip, port) == doomed.peer && doomed.cookies.contains(&cookie);
    fits.then_some(id)
}

/// Closes one socket; whether it was still there.
fn destroy(socket: &Socket, protocol: u8, family: u8, id: &[u8; ID]) -> io::Result<bool> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    socket.send(&request(DESTROY, flags, family, protocol, 0, id), 0)?;
    let (datagram, _) = socket.recv_from_full()?;
    match messages(&datagram).next() {
        Some(Message::Error(0)) => Ok(true),
        Some(Message::Error(code)) => match io::Error::from_raw_os_error(-code) {
            error if error.kind() == io::ErrorKind::NotFound => Ok(false),
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A netlink message with a `struct inet_diag_req_v2`.
fn request(kind: u16, flags: i32, family: u8, protocol: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let length = HEADER + ID_IN_REQUEST + ID;
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    // All flags are of the lower 16 bits.
    message.extend((flags as u16).to_ne_bytes());
    // Sequence number and port: one question at a time is under way.
    message.extend([0; 8]);
    message.extend([family, protocol, 0, 0]);
    message.extend(states.to_ne_bytes());
    message.extend(id);
    message
}

/// What the kernel says.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    /// The end of a list.
    Done,
    /// A negated errno, or zero: done.
    Error(i32),
    /// One element of a list.
    Answer(&'a [u8]),
}

/// The messages in a datagram; what is cut off ends it.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let body = rest.get(HEADER..length)?;
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let code = body
            .get(..4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, i32::from_ne_bytes);
        Some(match i32::from(kind) {
            libc::NLMSG_DONE if code != 0 => Message::Error(code),
            libc::NLMSG_DONE => Message::Done,
            libc::NLMSG_ERROR => Message::Error(code),
            _ => Message::Answer(body),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream, UdpSocket},
        time::Duration,
    };

    use lb_common::IPPROTO_UDP;

    use super::*;

    /// `SO_COOKIE`.
    fn cookie(socket: &impl std::os::fd::AsRawFd) -> u64 {
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the buffer has the length that goes with it.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        assert_eq!(answer, 0);
        cookie
    }

    fn list_one(protocol: u8, peer: SocketAddr, cookie: u64, family: i32) -> usize {
        let doomed = Doomed {
            protocol,
            peer,
            cookies: [cookie].into(),
        };
        let socket = Socket::new(NETLINK_SOCK_DIAG).unwrap();
        list(&socket, &doomed, family as u8).unwrap().len()
    }

    /// Real sockets over loopback, in each form: found by cookie, peer and protocol, and by
    /// nothing less. To close them takes a privilege.
    #[test]
    fn sockets_are_found_by_cookie_and_peer() {
        for (address, family) in [("127.0.0.1:0", libc::AF_INET), ("[::1]:0", libc::AF_INET6)] {
            let listener = TcpListener::bind(address).unwrap();
            let peer = listener.local_addr().unwrap();
            let stream = TcpStream::connect(peer).unwrap();
            let other = TcpStream::connect(peer).unwrap();
            let own = cookie(&stream);
            assert_ne!(own, cookie(&other));
            assert_eq!(list_one(IPPROTO_TCP, peer, own, family), 1, "{address}");
            assert_eq!(list_one(IPPROTO_TCP, peer, u64::MAX, family), 0);
            assert_eq!(list_one(IPPROTO_UDP, peer, own, family), 0);
            let elsewhere = SocketAddr::new("192.0.2.1".parse().unwrap(), peer.port());
            assert_eq!(list_one(IPPROTO_TCP, elsewhere, own, family), 0);

            let socket = UdpSocket::bind(address).unwrap();
            socket.connect(peer).unwrap();
            let own = cookie(&socket);
            assert_eq!(list_one(IPPROTO_UDP, peer, own, family), 1, "{address}");
        }
        let mapped = UdpSocket::bind("[::]:0").unwrap();
        mapped.connect("[::ffff:127.0.0.1]:9").unwrap();
        let peer = "127.0.0.1:9".parse().unwrap();
        let own = cookie(&mapped);
        assert_eq!(list_one(IPPROTO_UDP, peer, own, libc::AF_INET6), 1);
        assert_eq!(list_one(IPPROTO_UDP, peer, own, libc::AF_INET), 0);
    }

    /// Of two sockets to one peer only the one named is closed, and none without the privilege.
    #[test]
    fn only_the_named_socket_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let [mut doomed, mut spared] = [(); 2].map(|()| {
            let stream = TcpStream::connect(peer).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(10)))
                .unwrap();
            stream
        });
        let order = Doomed {
            protocol: IPPROTO_TCP,
            peer,
            cookies: [cookie(&doomed)].into(),
        };
        let expected = match close(&order) {
            Ok(closed) => {
                assert_eq!(closed, 1);
                assert_eq!(close(&order).unwrap(), 0, "it is gone");
                io::ErrorKind::ConnectionAborted
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                io::ErrorKind::WouldBlock
            }
        };
        assert_eq!(doomed.read(&mut [0]).unwrap_err().kind(), expected);
        let spared = spared.read(&mut [0]).unwrap_err();
        assert_eq!(spared.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_cut_off_ends_the_list() {
        let whole = request(BY_FAMILY, 0, 2, 6, 0, &[0; ID]);
        assert_eq!(messages(&whole).count(), 1);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
        }
        let mut endless = whole.clone();
        endless[..4].fill(0);
        assert_eq!(messages(&endless).count(), 0);
        let mut done = whole;
        done[4..6].copy_from_slice(&(libc::NLMSG_DONE as u16).to_ne_bytes());
        assert_eq!(messages(&done).next(), Some(Message::Error(0x0602)));
    }
}
