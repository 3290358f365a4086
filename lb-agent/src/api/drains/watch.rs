//! How far a drain is: a message for each look.
//!
//! Flows are counted anew for each look, on a thread for blocking work: the counts that the agent
//! keeps are seconds old.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::{
    api::{convert::unix_ms, input::InvalidRequest, proto},
    controller::Handle,
    domain::{
        drain::{Phase, is_open},
        flow::FlowReader,
        kernel::KernelError,
    },
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row that must find nothing: a packet may have been on its way to a backend in the
/// moment that it was taken out.
const PROOF: u32 = 2;

/// Who follows a maintenance may have begun it just now, and Consul not told of it yet.
const ARRIVAL: Duration = Duration::from_secs(3);

/// What is looked at.
pub(super) enum Subject {
    /// A backend of a service, as the request names it.
    Backend(String, String),
    /// The node.
    Node,
}

/// Reads what is to be looked at.
///
/// # Errors
///
/// Only one of service and backend is named.
pub(super) fn subject(request: proto::WatchDrainRequest) -> Result<Subject, InvalidRequest> {
    match (request.service, request.backend) {
        (Some(service), Some(backend)) => Ok(Subject::Backend(service, backend)),
        (None, None) => Ok(Subject::Node),
        _ => Err(InvalidRequest::HalfABackend),
    }
}

/// Sends a message for each look, until the drain has come to an end or the receiver is gone.
pub(super) async fn send(
    subject: Subject,
    handle: Handle,
    flows: Arc<dyn FlowReader>,
    messages: mpsc::Sender<Result<proto::WatchDrainResponse, Status>>,
) {
    let mut empty = 0;
    let mut begun = false;
    let asked = Instant::now();
    loop {
        let looked = match &subject {
            Subject::Backend(service, backend) => {
                look_at_backend(&handle, &flows, service, backend).await
            }
            Subject::Node => look_at_node(&handle, &flows).await,
        };
        let (mut phase, mut message) = match looked {
            Ok(looked) => looked,
            // In maintenance it may leave its catalog, and is forgotten when nothing is left.
            Err(status) if empty > 0 && status.code() == Code::NotFound => (Phase::Empty, now()),
            // It was drained when the first look was taken.
            Err(status)
                if begun && matches!(status.code(), Code::FailedPrecondition | Code::NotFound) =>
            {
                (Phase::Undrained, now())
            }
            Err(status)
                if status.code() == Code::FailedPrecondition
                    && matches!(subject, Subject::Backend(..))
                    && asked.elapsed() < ARRIVAL =>
            {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => continue,
                    () = messages.closed() => return,
                }
            }
            Err(status) => return drop(messages.send(Err(status)).await),
        };
        begun = true;
        let nothing = message.flows + message.local_connections == 0;
        empty = match phase {
            Phase::Draining if nothing => empty + 1,
            _ => 0,
        };
        if empty >= PROOF {
            phase = Phase::Empty;
        }
        message.state = phase.name().into();
        if messages.send(Ok(message)).await.is_err() || phase.is_end() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = messages.closed() => return,
        }
    }
}

async fn look_at_backend(
    handle: &Handle,
    flows: &Arc<dyn FlowReader>,
    service: &str,
    backend: &str,
) -> Result<(Phase, proto::WatchDrainResponse), Status> {
    let view = handle.drain_view(service, backend).await?;
    let open = count(flows, Some(view.kernel_ids)).await?;
    let phase = match view.drain.cut {
        Some(cut) if cut > 0 => Phase::Cut,
        _ => Phase::Draining,
    };
    let message = proto::WatchDrainResponse {
        service: view.service,
        backend_id: view.id.to_string(),
        address: view.address.map(|address| address.to_string()),
        flows: open,
        local_connections: view.local_sockets,
        since_unix_ms: unix_ms(view.drain.since),
        deadline_unix_ms: view.drain.deadline.map(unix_ms),
        by: view.drain.by,
        cut_flows: view.drain.cut,
        ..now()
    };
    Ok((phase, message))
}

async fn look_at_node(
    handle: &Handle,
    flows: &Arc<dyn FlowReader>,
) -> Result<(Phase, proto::WatchDrainResponse), Status> {
    let drain = handle.node_drain().await?;
    let drain = drain.ok_or_else(|| Status::failed_precondition("the node is not drained"))?;
    let open = count(flows, None).await?;
    let is_over = |now| drain.deadline.is_some_and(|deadline| deadline <= now);
    let phase = match SystemTime::now() {
        now if is_over(now) && open > 0 => Phase::Expired,
        now if !drain.has_left(now) => Phase::Grace,
        _ => Phase::Draining,
    };
    let message = proto::WatchDrainResponse {
        flows: open,
        since_unix_ms: unix_ms(drain.since),
        deadline_unix_ms: drain.deadline.map(unix_ms),
        leaves_unix_ms: Some(unix_ms(drain.leaves())),
        by: drain.by,
        ..now()
    };
    Ok((phase, message))
}

/// A message that tells nothing but the time.
fn now() -> proto::WatchDrainResponse {
    proto::WatchDrainResponse {
        now_unix_ms: unix_ms(SystemTime::now()),
        ..Default::default()
    }
}

/// Open flows of these backends, or of all.
async fn count(
    flows: &Arc<dyn FlowReader>,
    backends: Option<BTreeSet<u32>>,
) -> Result<u64, Status> {
    let flows = flows.clone();
    let counted = tokio::task::spawn_blocking(move || {
        let mut open = 0;
        flows.each(&mut |flow| {
            let is_asked = backends
                .as_ref()
                .is_none_or(|ids| ids.contains(&flow.backend_id));
            open += u64::from(is_asked && is_open(flow.state));
        })?;
        Ok::<_, KernelError>(open)
    });
    let counted = counted.await;
    let counted = counted.map_err(|error| Status::internal(error.to_string()))?;
    counted.map_err(|error| Status::internal(error.to_string()))
}
