//! Splits and shifts, asked for by people: each call asks the controller once and converts the answer.

use std::sync::Arc;

use tonic::Status;

use super::{
    convert,
    fleet::Fleet,
    input, proto,
    refusal::{find, select},
    service::now_unix_ms,
};
use crate::controller::Handle;

/// Answers about splits.
pub(crate) struct Splits {
    pub(super) handle: Handle,
    pub(super) fleet: Arc<Fleet>,
}

impl Splits {
    /// Those of this node alone, as whoever `handle` speaks for sets them.
    pub(crate) fn of_node(handle: Handle) -> Self {
        let fleet = Arc::new(Fleet {
            handle: handle.clone(),
            writer: None,
        });
        Self { handle, fleet }
    }

    /// The split of a service as things are.
    fn in_force(&self, service: &str) -> Option<proto::Split> {
        let snapshot = self.handle.snapshot();
        let state = snapshot.services.get(service)?;
        state.split.as_ref().map(convert::split)
    }

    pub(crate) async fn set(
        &self,
        request: proto::SetSplitRequest,
    ) -> Result<proto::SetSplitResponse, Status> {
        let proto::SetSplitRequest {
            service,
            shares,
            fleet,
        } = request;
        let shares = input::shares(shares)?;
        let split = if fleet {
            self.fleet.set_split(&service, shares).await?;
            // A split of this node's command line goes before.
            find(&self.handle.snapshot(), &service)?.split.clone()
        } else {
            Some(self.handle.split_set(&service, shares).await?)
        };
        Ok(proto::SetSplitResponse {
            service,
            split: split.as_ref().map(convert::split),
        })
    }

    pub(super) fn show(
        &self,
        request: &proto::ShowSplitRequest,
    ) -> Result<proto::ShowSplitResponse, Status> {
        let snapshot = self.handle.snapshot();
        let name = request.service.as_deref();
        let services = select(&snapshot, name)?
            .into_iter()
            .map(convert::service_split)
            // A service that was asked for is shown even if there is nothing to say of it.
            .filter(|split| name.is_some() || split.split.is_some() || !split.subsets.is_empty())
            .collect();
        Ok(proto::ShowSplitResponse {
            services,
            now_unix_ms: now_unix_ms(),
        })
    }

    pub(crate) async fn reset(
        &self,
        request: proto::ResetSplitRequest,
    ) -> Result<proto::ResetSplitResponse, Status> {
        let proto::ResetSplitRequest { service, fleet } = request;
        let split = if fleet {
            self.fleet.reset_split(&service).await?;
            self.in_force(&service)
        } else {
            let split = self.handle.split_reset(&service).await?;
            split.as_ref().map(convert::split)
        };
        Ok(proto::ResetSplitResponse { service, split })
    }

    pub(crate) async fn shift(
        &self,
        request: proto::ShiftSplitRequest,
    ) -> Result<proto::ShiftSplitResponse, Status> {
        let (service, order) = input::shift_order(request);
        let shift = self.handle.shift(&service, order).await?;
        Ok(proto::ShiftSplitResponse {
            shift: Some(convert::shift(&shift)),
            split: self.in_force(&service),
            service,
        })
    }

    pub(crate) async fn promote(
        &self,
        request: proto::PromoteSplitRequest,
    ) -> Result<proto::PromoteSplitResponse, Status> {
        let service = request.service;
        let shift = self.handle.promote(&service).await?;
        Ok(proto::PromoteSplitResponse {
            shift: Some(convert::shift(&shift)),
            split: self.in_force(&service),
            service,
        })
    }

    pub(crate) async fn rollback(
        &self,
        request: proto::RollbackSplitRequest,
    ) -> Result<proto::RollbackSplitResponse, Status> {
        let service = request.service;
        let split = self.handle.roll_back(&service).await?;
        Ok(proto::RollbackSplitResponse {
            service,
            split: split.as_ref().map(convert::split),
        })
    }

    pub(crate) async fn ack(
        &self,
        request: proto::AckSplitRequest,
    ) -> Result<proto::AckSplitResponse, Status> {
        let service = request.service;
        let split = self.handle.acknowledge(&service).await?;
        Ok(proto::AckSplitResponse {
            service,
            split: split.as_ref().map(convert::split),
        })
    }
}
