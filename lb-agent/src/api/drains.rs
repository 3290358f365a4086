//! What is taken out: from request to order, and from there to replies.

mod watch;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{convert::unix_ms, input::InvalidRequest, proto};
use crate::{
    controller::{DrainView, Handle},
    domain::{
        drain::{DrainOrder, NodeDrain},
        flow::FlowReader,
    },
};

/// Looks at a drain, one after another.
pub(super) type Looks = ReceiverStream<Result<proto::WatchDrainResponse, Status>>;

/// Looks that wait for their receiver.
const WAITING: usize = 4;
/// Shortest and longest deadline.
const DEADLINES: (Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(7 * 24 * 60 * 60),
);
/// Longest grace of a node.
const LONGEST_GRACE: Duration = Duration::from_secs(60 * 60);

/// Takes a backend out, as the person whose handle it is.
pub(super) async fn drain(
    handle: &Handle,
    request: Request<proto::DrainRequest>,
) -> Result<Response<proto::DrainResponse>, Status> {
    let asked = request.into_inner();
    let order = order(asked.deadline_ms, asked.force)?;
    let drained = handle.drain_by(&asked.service, &asked.backend, order).await;
    Ok(Response::new(proto::DrainResponse {
        service: asked.service,
        backend_id: drained?.to_string(),
    }))
}

/// Puts a backend back.
pub(super) async fn undrain(
    handle: &Handle,
    request: Request<proto::UndrainRequest>,
) -> Result<Response<proto::UndrainResponse>, Status> {
    let proto::UndrainRequest { service, backend } = request.into_inner();
    let backend_id = handle.undrain(&service, &backend).await?;
    Ok(Response::new(proto::UndrainResponse {
        service,
        backend_id: backend_id.to_string(),
    }))
}

/// Takes the node out, as the person whose handle it is.
pub(super) async fn drain_node(
    handle: &Handle,
    request: Request<proto::DrainNodeRequest>,
) -> Result<Response<proto::DrainNodeResponse>, Status> {
    let asked = request.into_inner();
    let order = order(asked.deadline_ms, false)?;
    let drain = handle.drain_node(order, grace(asked.grace_ms)?).await?;
    Ok(Response::new(proto::DrainNodeResponse {
        drain: Some(node(&drain)),
    }))
}

/// Puts the node back.
pub(super) async fn undrain_node(
    handle: &Handle,
) -> Result<Response<proto::UndrainNodeResponse>, Status> {
    handle.undrain_node().await?;
    Ok(Response::new(proto::UndrainNodeResponse {}))
}

/// Looks at a drain until it has come to an end.
pub(super) fn watch(
    handle: &Handle,
    flows: &Arc<dyn FlowReader>,
    request: Request<proto::WatchDrainRequest>,
) -> Result<Response<Looks>, Status> {
    let subject = watch::subject(request.into_inner())?;
    let (messages, looks) = mpsc::channel(WAITING);
    tokio::spawn(watch::send(
        subject,
        handle.clone(),
        flows.clone(),
        messages,
    ));
    Ok(Response::new(ReceiverStream::new(looks)))
}

/// Reads how something is to be drained.
///
/// # Errors
///
/// A deadline that is out of bounds.
fn order(deadline_ms: Option<u64>, force: bool) -> Result<DrainOrder, InvalidRequest> {
    let deadline = deadline_ms.map(Duration::from_millis);
    match deadline {
        Some(span) if span < DEADLINES.0 || span > DEADLINES.1 => {
            Err(InvalidRequest::Deadline(span))
        }
        _ => Ok(DrainOrder {
            deadline,
            force,
            // The handle that gives the order knows.
            by: None,
        }),
    }
}

/// Reads the grace of a node.
///
/// # Errors
///
/// It is too long.
fn grace(grace_ms: u64) -> Result<Duration, InvalidRequest> {
    let grace = Duration::from_millis(grace_ms);
    match grace > LONGEST_GRACE {
        true => Err(InvalidRequest::Grace(grace)),
        false => Ok(grace),
    }
}

/// A drained node as a message.
pub(super) fn node(drain: &NodeDrain) -> proto::NodeDrain {
    proto::NodeDrain {
        since_unix_ms: unix_ms(drain.since),
        leaves_unix_ms: unix_ms(drain.leaves()),
        deadline_unix_ms: drain.deadline.map(unix_ms),
        by: drain.by.clone(),
    }
}

/// A drained backend as a message.
pub(super) fn drained(view: &DrainView) -> proto::DrainedBackend {
    proto::DrainedBackend {
        service: view.service.clone(),
        backend_id: view.id.to_string(),
        address: view.address.map(|address| address.to_string()),
        since_unix_ms: unix_ms(view.drain.since),
        deadline_unix_ms: view.drain.deadline.map(unix_ms),
        by: view.drain.by.clone(),
        cut_flows: view.drain.cut,
        flows: view.flows,
        local_connections: view.local_sockets,
    }
}
