//! Listening sockets that outlive the agent.
//!
//! The programs in the kernel go on while no agent runs; a request needs one. So that who connects
//! meanwhile waits and is not refused, a second process holds duplicates of the agent's listening
//! sockets: the kernel goes on to shake hands for them, and the next agent finds the connections in
//! the backlog of each. The [`Keep`] is the agent's side, [`serve`] the other process, a [`link`]
//! what is between them.
//!
//! That process is begun with the first socket, is this same executable, in a session of its own,
//! and ends when for a minute no agent has come, since a connection that nobody takes up is worse
//! than a refused one. It may be of an older version than the agent: what messages there are may
//! become more, but not other ones.

mod keep;
mod link;
mod serve;
mod start;

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use self::link::{Link, Message};
pub use self::{
    keep::Keep,
    serve::run,
    start::{Start, as_a_process},
};

/// What the executable is told to become that process.
pub const ARGUMENT: &str = "hold-sockets";

/// What a socket is for. Several have the same key, one for each thread.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// The service of a VIP; `None`: a shared listener.
    pub service: Option<Arc<str>>,
    /// The address that was asked for; with port 0 it is at another one.
    pub address: SocketAddr,
}

/// Ends the process that holds sockets, if there is one: no connection waits any longer. Answers
/// how many it held.
///
/// # Errors
///
/// It does not answer.
pub fn end(path: &Path) -> anyhow::Result<usize> {
    let Ok(link) = Link::connect(path) else {
        return Ok(0);
    };
    let asked = || {
        link.send(&Message::End, &[])?;
        link.receive()
    };
    let answer = asked()
        .with_context(|| format!("cannot end the process that listens on {}", path.display()))?;
    // Nobody misses it.
    let _ = std::fs::remove_file(path);
    match answer {
        Some((Message::Ended(count), _)) => Ok(count),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests;
