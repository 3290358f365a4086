//! What the agent is asked for a picture, at one moment.

use crate::{
    api::proto::{
        Backend, BackendChange, BackendHistoryRequest, BlockEntry, ListBackendsRequest,
        ListBlocksRequest, ListServicesRequest, Service, StatusRequest, StatusResponse,
    },
    cli::{
        client::{self, Client},
        failure::Failure,
    },
};

/// Rules shown of the block list, which may hold a million: those that dropped most.
pub(super) const BLOCKS: u64 = 100;
/// Changes of backends shown: the latest.
pub(super) const CHANGES: u32 = 200;

/// What is to be asked for besides the status and the services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Backends of this service; a node may have 100,000 of all services.
    pub(super) backends_of: Option<String>,
}

/// The agent's answers, taken one after the other within milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) status: StatusResponse,
    pub(super) services: Vec<Service>,
    /// Which service `backends` are of; `None`: none was asked for, or it is gone.
    pub(super) backends_of: Option<String>,
    pub(super) backends: Vec<Backend>,
    pub(super) blocks: Vec<BlockEntry>,
    pub(super) changes: Vec<BackendChange>,
}

/// Asks everything that is wanted.
pub(super) async fn take(client: &mut Client, wanted: &Wanted) -> Result<Look, Failure> {
    let status = client::reply(client.status(StatusRequest {})).await?;
    let services = client::reply(client.list_services(ListServicesRequest {})).await?;
    let mut look = Look {
        status,
        services: services.services,
        ..Look::default()
    };
    // It may have gone since it was chosen, which is not a failure of the look.
    let there = |name: &&String| look.services.iter().any(|service| service.name == **name);
    if let Some(service) = wanted.backends_of.as_ref().filter(there).cloned() {
        let request = ListBackendsRequest {
            service: Some(service.clone()),
        };
        look.backends = client::reply(client.list_backends(request)).await?.backends;
        look.backends_of = Some(service);
    }
    if look.status.block_rules > 0 {
        let request = ListBlocksRequest { most: BLOCKS };
        let mut parts = client::reply(client.list_blocks(request)).await?;
        while let Some(part) = client::next(&mut parts).await? {
            look.blocks.extend(part.blocks);
        }
    }
    let request = BackendHistoryRequest {
        of: None,
        limit: CHANGES,
    };
    look.changes = client::reply(client.backend_history(request))
        .await?
        .changes;
    Ok(look)
}
