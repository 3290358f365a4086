//! The names behind the kernel's ids, kept current for as long as a stream needs them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    controller::{Handle, Names, OperatorError},
    domain::snapshot::Snapshot,
};

/// Between two questions for an id that nobody knows.
const PAUSE: Duration = Duration::from_secs(1);

/// A backend by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackendName<'a> {
    pub(super) service: &'a str,
    pub(super) address: SocketAddr,
    /// Its id within the service, while the catalog lists it.
    pub(super) id: Option<&'a str>,
}

/// See the module's documentation.
pub(super) struct Naming {
    handle: Handle,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    names: Names,
    /// Service by VIP and protocol.
    vips: HashMap<(SocketAddr, u8), String>,
    /// Backend id by service and address.
    instances: HashMap<(String, SocketAddr), String>,
    asked: Instant,
}

impl Naming {
    /// Asks for all names.
    ///
    /// # Errors
    ///
    /// The agent shuts down.
    pub(super) async fn new(handle: &Handle) -> Result<Self, OperatorError> {
        let mut naming = Self {
            handle: handle.clone(),
            snapshots: handle.snapshots(),
            names: Names::default(),
            vips: HashMap::new(),
            instances: HashMap::new(),
            asked: Instant::now(),
        };
        naming.ask().await?;
        Ok(naming)
    }

    async fn ask(&mut self) -> Result<(), OperatorError> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.names = self.handle.names().await?;
        self.asked = Instant::now();
        self.vips.clear();
        self.instances.clear();
        for (name, service) in &snapshot.services {
            for vip in &service.spec.vips {
                let key = (*vip, service.spec.protocol.number());
                self.vips.insert(key, name.clone());
            }
            for backend in &service.backends {
                let key = (name.clone(), backend.address());
                self.instances.insert(key, backend.id().to_string());
            }
        }
        Ok(())
    }

    /// Asks again if something has changed, or if an id is not known.
    ///
    /// # Errors
    ///
    /// The agent shuts down.
    pub(super) async fn renew(
        &mut self,
        ids: impl IntoIterator<Item = u32>,
    ) -> Result<(), OperatorError> {
        let changed = self.snapshots.has_changed().unwrap_or(false);
        let unknown = || {
            ids.into_iter()
                .any(|id| !self.names.backends.contains_key(&id))
        };
        if changed || (self.asked.elapsed() >= PAUSE && unknown()) {
            self.ask().await?;
        }
        Ok(())
    }

    /// The service with this VIP.
    pub(super) fn vip(&self, address: SocketAddr, protocol: u8) -> Option<&str> {
        self.vips.get(&(address, protocol)).map(String::as_str)
    }

    /// The backend with this id in the kernel.
    pub(super) fn backend(&self, id: u32) -> Option<BackendName<'_>> {
        let (service, address) = self.names.backends.get(&id)?;
        let id = self.instances.get(&(service.clone(), *address));
        Some(BackendName {
            service,
            address: *address,
            id: id.map(String::as_str),
        })
    }

    /// Ids in the kernel of a service's backends, former ones included.
    pub(super) fn backends_of(&self, service: &str) -> impl Iterator<Item = u32> {
        let backends = self.names.backends.iter();
        backends
            .filter(move |(_, (name, _))| name == service)
            .map(|(id, _)| *id)
    }
}
