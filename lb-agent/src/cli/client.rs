//! Reaches the running agent over its socket.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::failure::Failure;
use crate::api::proto::agent_client::AgentClient;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of the agent's service.
pub(super) type Client = AgentClient<Channel>;

/// Why the agent cannot be reached. The text is a sentence for a person.
#[derive(Debug, Error)]
pub(super) enum Unreachable {
    #[error(
        "the agent is not running (no socket at {}); start it with `lb-agent run --config FILE` \
         or `systemctl start lb-agent`",
        .0.display()
    )]
    NoSocket(PathBuf),
    #[error(
        "the agent is not running (nobody listens on {}); start it with `lb-agent run --config \
         FILE` or `systemctl start lb-agent`",
        .0.display()
    )]
    NobodyListens(PathBuf),
    #[error(
        "you may not use the agent's socket {}; run this as root or as a member of the socket's \
         group",
        .0.display()
    )]
    Denied(PathBuf),
    #[error("cannot connect to the agent's socket {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("cannot speak with the agent on {}: {source}", path.display())]
    Handshake {
        path: PathBuf,
        source: tonic::transport::Error,
    },
    #[error(
        "the agent did not answer within {} s; `journalctl -u lb-agent` may tell why",
        PATIENCE.as_secs()
    )]
    Silent,
    #[error(
        "the connection broke before the agent had answered ({0}); `journalctl -u lb-agent` may \
         tell why"
    )]
    Broken(String),
    #[error("{0}")]
    GoingAway(String),
}

/// Where the agent is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agent<'a> {
    socket: &'a Path,
}

impl<'a> Agent<'a> {
    pub(super) fn at(socket: &'a Path) -> Self {
        Self { socket }
    }

    /// Connects. To be called when everything that can be wrong with the request has been
    /// checked, so that it is told whether an agent runs or not.
    pub(super) async fn connect(self) -> Result<Client, Unreachable> {
        let path = || self.socket.to_owned();
        let stream =
            UnixStream::connect(self.socket)
                .await
                .map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => Unreachable::NoSocket(path()),
                    io::ErrorKind::ConnectionRefused => Unreachable::NobodyListens(path()),
                    io::ErrorKind::PermissionDenied => Unreachable::Denied(path()),
                    _ => Unreachable::Connect {
                        path: path(),
                        source,
                    },
                })?;
        // One command is one connection: the connector hands out the stream once, and a second
        // try after it broke fails instead of repeating a request that may have been carried out.
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_| {
            let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
            async move { stream.map_err(io::Error::from) }
        });
        // The name is for the `:authority` header only.
        let channel = Endpoint::from_static("http://lb-agent")
            .connect_with_connector(connector)
            .await
            .map_err(|source| Unreachable::Handshake {
                path: path(),
                source,
            })?;
        // The agent is trusted, and lists of backends may be long.
        Ok(AgentClient::new(channel).max_decoding_message_size(usize::MAX))
    }
}

/// The reply to a call, or why there is none.
pub(super) async fn reply<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Unreachable::Silent.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_silent_is_given_up() {
        let call = std::future::pending::<Result<Response<()>, Status>>();
        let failure = reply(call).await.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable(Unreachable::Silent)));
        assert!(failure.to_string().contains("within 30 s"), "{failure}");
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let missing = Agent::at(&socket).connect().await.unwrap_err();
        assert!(matches!(missing, Unreachable::NoSocket(_)), "{missing}");

        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let dead = Agent::at(&socket).connect().await.unwrap_err();
        assert!(matches!(dead, Unreachable::NobodyListens(_)), "{dead}");
    }
}
