//! Reaches the running agent over its socket.

use std::{
    error::Error,
    future::Future,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::{
    Response, Status, Streaming,
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
    #[error(
        "the agent did not answer within {} s; `journalctl -u lb-agent` may tell why",
        .0.as_secs()
    )]
    Silent(Duration),
    #[error(
        "the connection broke before the agent had answered ({0}); `journalctl -u lb-agent` may \
         tell why"
    )]
    Broken(String),
    #[error("{0}")]
    GoingAway(String),
}

impl Unreachable {
    /// What it means that connecting to `path` failed.
    fn connecting(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Unreachable::NoSocket(path),
            io::ErrorKind::ConnectionRefused => Unreachable::NobodyListens(path),
            io::ErrorKind::PermissionDenied => Unreachable::Denied(path),
            _ => Unreachable::Connect { path, source },
        }
    }

    /// A connection that ended early. The layers above the first cause say "transport error".
    pub(super) fn broken(error: &dyn Error) -> Self {
        let mut cause = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Unreachable::Broken(cause.to_string())
    }
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
        let stream = UnixStream::connect(self.socket)
            .await
            .map_err(|source| Unreachable::connecting(self.socket.to_owned(), source))?;
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
            .map_err(|error| Unreachable::broken(&error))?;
        // The agent is trusted, and lists of backends may be long.
        Ok(AgentClient::new(channel).max_decoding_message_size(usize::MAX))
    }
}

/// The reply to a call, or why there is none.
pub(super) async fn reply<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    reply_within(call, PATIENCE).await
}

/// As [`reply`], of a call that may take longer than usual.
pub(super) async fn reply_within<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    patience: Duration,
) -> Result<T, Failure> {
    match tokio::time::timeout(patience, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Unreachable::Silent(patience).into()),
    }
}

/// The next part of a reply that comes in parts; `None`: that was all.
pub(super) async fn next<T>(parts: &mut Streaming<T>) -> Result<Option<T>, Failure> {
    match tokio::time::timeout(PATIENCE, parts.message()).await {
        Ok(part) => Ok(part?),
        Err(_) => Err(Unreachable::Silent(PATIENCE).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_silent_is_given_up() {
        let call = std::future::pending::<Result<Response<()>, Status>>();
        let failure = reply(call).await.unwrap_err();
        assert!(matches!(
            failure,
            Failure::Unreachable(Unreachable::Silent(_))
        ));
        assert!(failure.to_string().contains("within 30 s"), "{failure}");
    }

    /// What the system says when connecting, and what the person is told to do.
    #[test]
    fn what_is_in_the_way_is_named() {
        let rows = [
            (io::ErrorKind::NotFound, "`systemctl start lb-agent`"),
            (io::ErrorKind::ConnectionRefused, "nobody listens on"),
            (io::ErrorKind::PermissionDenied, "run this as root"),
            (io::ErrorKind::InvalidInput, "cannot connect to"),
        ];
        for (kind, expected) in rows {
            let error = Unreachable::connecting("/x.sock".into(), kind.into()).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("/x.sock"), "{error}");
        }
    }
}
