//! The TCP probe: a connection that is accepted.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpStream;

use super::failure::ProbeFailure;

/// Opens a connection and hands it back; dropping it closes it in order (FIN, not reset).
/// `timeout` is only named in errors.
pub(super) async fn connect(
    address: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, ProbeFailure> {
    TcpStream::connect(address)
        .await
        .map_err(|error| ProbeFailure::from_io(error, timeout))
}
