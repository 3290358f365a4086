//! The service itself: each call asks the controller once or twice and converts the answer.

mod caller;

use std::{sync::Arc, time::SystemTime};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Sources, blocks, convert, drains, explain,
    fleet::Fleet,
    flows, history, input,
    naming::Naming,
    proto::{self, agent_server::Agent},
    refusal::{find, select},
    splits::Splits,
    trace,
};
use crate::{controller::Handle, domain::flow::FlowReader, watch::WatchHandle};

/// Messages of a stream that wait for their receiver.
const WAITING: usize = 16;

/// Answers for the controller.
pub(super) struct Service {
    handle: Handle,
    watch: WatchHandle,
    flows: Arc<dyn FlowReader>,
    fleet: Arc<Fleet>,
    splits: Splits,
}

impl Service {
    pub(super) fn new(sources: Sources) -> Self {
        let fleet = Arc::new(Fleet {
            handle: sources.controller.clone(),
            writer: sources.keys,
        });
        Self {
            splits: Splits {
                handle: sources.controller.clone(),
                fleet: fleet.clone(),
            },
            fleet,
            handle: sources.controller,
            watch: sources.watch,
            flows: sources.flows,
        }
    }
}

pub(super) fn now_unix_ms() -> i64 {
    convert::unix_ms(SystemTime::now())
}

#[tonic::async_trait]
impl Agent for Service {
    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let status = self.handle.status().await?;
        let snapshot = self.handle.snapshot();
        let now = SystemTime::now();
        Ok(Response::new(convert::status(&status, &snapshot, now)))
    }

    async fn list_services(
        &self,
        _: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        let counters = self.handle.counters().await?;
        let snapshot = self.handle.snapshot();
        let services = snapshot.services.values();
        let services = services.map(|state| convert::service(state, &counters));
        let services = services.collect();
        Ok(Response::new(proto::ListServicesResponse { services }))
    }

    async fn get_service(
        &self,
        request: Request<proto::GetServiceRequest>,
    ) -> Result<Response<proto::GetServiceResponse>, Status> {
        let counters = self.handle.counters_of(&request.get_ref().name).await?;
        let snapshot = self.handle.snapshot();
        let state = find(&snapshot, &request.get_ref().name)?;
        Ok(Response::new(proto::GetServiceResponse {
            service: Some(proto::Service {
                requests: convert::requests(state),
                ..convert::service(state, &counters)
            }),
            backends: convert::backends(state, &counters),
            now_unix_ms: now_unix_ms(),
            explanation: explain::of_service(&self.handle, &request.get_ref().name).await?,
        }))
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let answer = explain::answer(&self.handle, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn list_backends(
        &self,
        request: Request<proto::ListBackendsRequest>,
    ) -> Result<Response<proto::ListBackendsResponse>, Status> {
        let counters = match &request.get_ref().service {
            Some(service) => self.handle.counters_of(service).await?,
            None => self.handle.counters().await?,
        };
        let snapshot = self.handle.snapshot();
        let backends = select(&snapshot, request.get_ref().service.as_deref())?
            .into_iter()
            .flat_map(|state| convert::backends(state, &counters))
            .collect();
        Ok(Response::new(proto::ListBackendsResponse {
            backends,
            now_unix_ms: now_unix_ms(),
        }))
    }

    async fn set_split(
        &self,
        request: Request<proto::SetSplitRequest>,
    ) -> Result<Response<proto::SetSplitResponse>, Status> {
        self.splits_by(&request)
            .set(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn show_split(
        &self,
        request: Request<proto::ShowSplitRequest>,
    ) -> Result<Response<proto::ShowSplitResponse>, Status> {
        self.splits.show(&request.into_inner()).map(Response::new)
    }

    async fn reset_split(
        &self,
        request: Request<proto::ResetSplitRequest>,
    ) -> Result<Response<proto::ResetSplitResponse>, Status> {
        self.splits_by(&request)
            .reset(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn shift_split(
        &self,
        request: Request<proto::ShiftSplitRequest>,
    ) -> Result<Response<proto::ShiftSplitResponse>, Status> {
        self.splits_by(&request)
            .shift(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn promote_split(
        &self,
        request: Request<proto::PromoteSplitRequest>,
    ) -> Result<Response<proto::PromoteSplitResponse>, Status> {
        self.splits_by(&request)
            .promote(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn rollback_split(
        &self,
        request: Request<proto::RollbackSplitRequest>,
    ) -> Result<Response<proto::RollbackSplitResponse>, Status> {
        self.splits_by(&request)
            .rollback(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn ack_split(
        &self,
        request: Request<proto::AckSplitRequest>,
    ) -> Result<Response<proto::AckSplitResponse>, Status> {
        self.splits_by(&request)
            .ack(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn drain(
        &self,
        request: Request<proto::DrainRequest>,
    ) -> Result<Response<proto::DrainResponse>, Status> {
        drains::drain(&self.by(&request), request).await
    }

    async fn undrain(
        &self,
        request: Request<proto::UndrainRequest>,
    ) -> Result<Response<proto::UndrainResponse>, Status> {
        drains::undrain(&self.handle, request).await
    }

    async fn drain_node(
        &self,
        request: Request<proto::DrainNodeRequest>,
    ) -> Result<Response<proto::DrainNodeResponse>, Status> {
        drains::drain_node(&self.by(&request), request).await
    }

    async fn undrain_node(
        &self,
        _: Request<proto::UndrainNodeRequest>,
    ) -> Result<Response<proto::UndrainNodeResponse>, Status> {
        drains::undrain_node(&self.handle).await
    }

    type WatchDrainStream = drains::Looks;

    async fn watch_drain(
        &self,
        request: Request<proto::WatchDrainRequest>,
    ) -> Result<Response<Self::WatchDrainStream>, Status> {
        drains::watch(&self.handle, &self.flows, request)
    }

    async fn add_blocks(
        &self,
        request: Request<proto::AddBlocksRequest>,
    ) -> Result<Response<proto::AddBlocksResponse>, Status> {
        blocks::add(&self.handle, &self.fleet, request).await
    }

    async fn delete_blocks(
        &self,
        request: Request<proto::DeleteBlocksRequest>,
    ) -> Result<Response<proto::DeleteBlocksResponse>, Status> {
        blocks::delete(&self.handle, &self.fleet, request).await
    }

    type ListBlocksStream = blocks::Pages;

    async fn list_blocks(
        &self,
        request: Request<proto::ListBlocksRequest>,
    ) -> Result<Response<Self::ListBlocksStream>, Status> {
        Ok(Response::new(match request.get_ref().most {
            0 => blocks::list(&self.handle),
            most => blocks::leaders(&self.handle, most).await?,
        }))
    }

    async fn import_blocks(
        &self,
        request: Request<Streaming<proto::ImportBlocksRequest>>,
    ) -> Result<Response<proto::ImportBlocksResponse>, Status> {
        blocks::import(&self.handle, request).await
    }

    async fn add_allowed(
        &self,
        request: Request<proto::AddAllowedRequest>,
    ) -> Result<Response<proto::AddAllowedResponse>, Status> {
        let prefixes = input::prefixes(&request.get_ref().prefixes)?;
        let texts = prefixes.iter().map(ToString::to_string).collect();
        let notes = self.handle.allow(prefixes).await?;
        Ok(Response::new(proto::AddAllowedResponse {
            prefixes: texts,
            notes,
        }))
    }

    async fn delete_allowed(
        &self,
        request: Request<proto::DeleteAllowedRequest>,
    ) -> Result<Response<proto::DeleteAllowedResponse>, Status> {
        let prefixes = input::prefixes(&request.get_ref().prefixes)?;
        let deleted = self.handle.disallow(prefixes).await? as u64;
        Ok(Response::new(proto::DeleteAllowedResponse { deleted }))
    }

    async fn list_allowed(
        &self,
        _: Request<proto::ListAllowedRequest>,
    ) -> Result<Response<proto::ListAllowedResponse>, Status> {
        let allowed = self.handle.allow_list().await?;
        Ok(Response::new(proto::ListAllowedResponse {
            allowed: allowed.iter().map(convert::allowed).collect(),
            now_unix_ms: now_unix_ms(),
        }))
    }

    type TraceStream = ReceiverStream<Result<proto::TraceResponse, Status>>;

    async fn trace(
        &self,
        request: Request<proto::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let (filter, limits) = trace::parse(request.get_ref())?;
        let naming = Naming::new(&self.handle).await?;
        let watcher = self.watch.watch(filter).await?;
        let (messages, stream) = mpsc::channel(WAITING);
        tokio::spawn(trace::send(watcher, naming, limits, messages));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type ListFlowsStream = ReceiverStream<Result<proto::ListFlowsResponse, Status>>;

    async fn list_flows(
        &self,
        request: Request<proto::ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let request = request.into_inner();
        let order = flows::order(&request)?;
        let (filter, naming) = self.flow_filter(request.filter).await?;
        let (messages, stream) = mpsc::channel(WAITING);
        let tables = self.flows.clone();
        tokio::task::spawn_blocking(move || {
            flows::send(&tables, &filter, order, &naming, &messages);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn count_flows(
        &self,
        request: Request<proto::CountFlowsRequest>,
    ) -> Result<Response<proto::CountFlowsResponse>, Status> {
        let (filter, naming) = self.flow_filter(request.into_inner().filter).await?;
        let tables = self.flows.clone();
        let count = move || flows::count(&tables, &filter, &naming);
        let counted = tokio::task::spawn_blocking(count).await;
        let counted = counted.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(counted?))
    }

    async fn backend_history(
        &self,
        request: Request<proto::BackendHistoryRequest>,
    ) -> Result<Response<proto::BackendHistoryResponse>, Status> {
        Ok(Response::new(
            history::answer(&self.handle, request.into_inner()).await?,
        ))
    }

    async fn reload(
        &self,
        _: Request<proto::ReloadRequest>,
    ) -> Result<Response<proto::ReloadResponse>, Status> {
        self.handle.reload().await?;
        Ok(Response::new(proto::ReloadResponse {}))
    }
}
