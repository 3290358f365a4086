//! The agent's gRPC service: how the command line (and anything else on the node) asks and steers.
//!
//! It is served on a Unix socket only, so that the file system's permissions decide who may. The
//! messages stop here: `input` turns requests into domain values, `convert` domain values
//! into replies, and nothing else in the agent knows them but the command line.

use std::{future::Future, sync::Arc};

use thiserror::Error;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use crate::{
    controller::Handle, domain::flow::FlowReader, source::consul_keys::KeyWriter,
    watch::WatchHandle,
};

mod author;
mod blocks;
mod convert;
mod drains;
mod explain;
mod fleet;
mod flows;
mod history;
mod input;
mod naming;
mod refusal;
mod service;
pub mod socket;
pub(crate) mod splits;
mod trace;
pub(crate) mod view;

/// Messages, client and server, generated from `proto/lb/v1/agent.proto`, which documents them.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the .proto file is the documentation"
)]
pub mod proto {
    tonic::include_proto!("lb.v1");
}

/// Where the agent listens and the command line asks, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb-agent/agent.sock";

/// The server stopped for another reason than `shutdown`.
#[derive(Debug, Error)]
#[error("serving the agent's socket failed: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Whom the service asks.
#[derive(Clone)]
pub struct Sources {
    /// The controller, for nearly everything.
    pub controller: Handle,
    /// For single packets.
    pub watch: WatchHandle,
    /// For flows.
    pub flows: Arc<dyn FlowReader>,
    /// For what counts on every node; absent: there is no Consul.
    pub keys: Option<KeyWriter>,
}

/// Answers on `listener` until `shutdown` completes; requests under way are finished first.
///
/// # Errors
///
/// The transport gave up. What is wrong with a single connection or request is no such reason.
pub async fn serve(
    listener: UnixListener,
    sources: Sources,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tonic::transport::Server::builder()
        .add_service(proto::agent_server::AgentServer::new(
            service::Service::new(sources),
        ))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await?;
    Ok(())
}
