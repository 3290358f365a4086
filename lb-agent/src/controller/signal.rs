//! What others than the controller see of backends.

use std::net::SocketAddr;

use crate::domain::passive::Tally;

/// What somebody has seen of a backend's answers: the proxy, that is; the flow tables are read by
/// the controller itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The service.
    pub service: String,
    /// Where the backend listens.
    pub backend: SocketAddr,
    /// What became of attempts on it since it was last told.
    pub tally: Tally,
}
