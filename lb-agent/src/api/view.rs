//! The agent at one moment, as the messages that the socket answers with: for those inside the agent
//! who show the same in another way.

use std::{sync::Arc, time::SystemTime};

use super::{convert, proto, refusal::find};
use crate::{
    controller::{Handle, OperatorError, Status, handle::Counters},
    domain::snapshot::{ServiceState, Snapshot},
};

/// What the controller said, all of it at nearly the same moment.
pub(crate) struct View {
    status: Status,
    counters: Counters,
    snapshot: Arc<Snapshot>,
    at: SystemTime,
}

impl View {
    /// Asks the controller.
    ///
    /// # Errors
    ///
    /// It has no answer.
    pub(crate) async fn of(handle: &Handle) -> Result<Self, OperatorError> {
        let (status, counters) = tokio::try_join!(handle.status(), handle.counters())?;
        Ok(Self {
            status,
            counters,
            snapshot: handle.snapshot(),
            at: SystemTime::now(),
        })
    }

    /// The agent's clock.
    pub(crate) fn now_unix_ms(&self) -> i64 {
        convert::unix_ms(self.at)
    }

    /// As `status` shows it.
    pub(crate) fn status(&self) -> proto::StatusResponse {
        convert::status(&self.status, &self.snapshot, self.at)
    }

    /// All services, by name.
    pub(crate) fn services(&self) -> Vec<proto::Service> {
        let services = self.snapshot.services.values();
        services
            .map(|state| convert::service(state, &self.counters))
            .collect()
    }

    /// One service: itself, its backends by id, and its split.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub(crate) fn service(
        &self,
        name: &str,
    ) -> Result<(proto::Service, Vec<proto::Backend>, proto::ServiceSplit), OperatorError> {
        let state: &ServiceState = find(&self.snapshot, name)?;
        Ok((
            convert::service(state, &self.counters),
            convert::backends(state, &self.counters),
            convert::service_split(state),
        ))
    }
}

/// The last `most` of all changes of backends.
///
/// # Errors
///
/// The controller has no answer.
pub(crate) async fn history(
    handle: &Handle,
    most: u32,
) -> Result<proto::BackendHistoryResponse, tonic::Status> {
    let request = proto::BackendHistoryRequest {
        of: None,
        limit: most,
    };
    super::history::answer(handle, request).await
}

/// The `most` block rules that follow `after`, with what they have caught.
///
/// # Errors
///
/// `after` is no prefix, or the controller has no answer.
pub(crate) async fn blocks(
    handle: &Handle,
    after: Option<&str>,
    most: usize,
) -> Result<Vec<proto::BlockEntry>, tonic::Status> {
    let after = match after {
        Some(text) => super::input::prefixes(&[text.to_owned()])?.pop(),
        None => None,
    };
    let entries = handle.block_list(after, most).await?;
    Ok(entries.iter().map(convert::block_entry).collect())
}
