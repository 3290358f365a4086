//! Listening sockets, one a thread on the same address.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted, at most; `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets on one address, among which the kernel spreads connections by their hash
/// (SO_REUSEPORT, socket(7)). Port 0 becomes any free one.
///
/// # Errors
///
/// The address cannot be bound; it is named.
pub(super) fn bind(address: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = one(address).with_context(|| format!("cannot listen on {address}"))?;
        address = socket.local_addr().context("asking for a port")?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn one(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Every address of both families is asked for as `[::]`.
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
