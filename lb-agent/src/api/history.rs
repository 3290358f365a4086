//! What has happened to backends, for those who ask.

use tonic::Status;

use super::{convert, proto, service::now_unix_ms};
use crate::controller::Handle;

/// The last changes that the request asks for.
///
/// # Errors
///
/// What it names is not known.
pub(super) async fn answer(
    handle: &Handle,
    request: proto::BackendHistoryRequest,
) -> Result<proto::BackendHistoryResponse, Status> {
    let proto::BackendHistoryRequest { of, limit } = request;
    let changes = handle.history(of.as_deref()).await?;
    let most = if limit == 0 {
        usize::MAX
    } else {
        limit as usize
    };
    let older = changes.len().saturating_sub(most);
    Ok(proto::BackendHistoryResponse {
        changes: changes[older..].iter().map(convert::change).collect(),
        older: older as u64,
        now_unix_ms: now_unix_ms(),
    })
}
