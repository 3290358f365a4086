//! Local clients of backends that are gone: their connected sockets are closed, so that they
//! need not wait for what will not come. Those of a draining backend stay.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tracing::{error, info};

use super::Reconciler;
use crate::domain::{
    kernel::{Kernel, KernelBackend},
    snapshot::Snapshot,
};

/// When to look a second time: a call may have chosen the backend in the instant before it was
/// taken out, and be noted in the instant after the first look.
const AGAIN: Duration = Duration::from_secs(1);

/// The sockets of a backend that is gone have been closed.
pub(super) struct Closed {
    backend: KernelBackend,
    at: Instant,
    again: bool,
}

impl<K: Kernel> Reconciler<K> {
    /// Closes the local clients' sockets to backends that are dead or removed, and nobody is sent
    /// to any more.
    pub(crate) fn close_gone(&mut self, snapshot: &Snapshot) {
        // All of a hundred thousand are active, and nothing has changed since that was found.
        let gone = match self.at_rest {
            true => BTreeMap::new(),
            false => self.gone(snapshot),
        };
        self.closed
            .retain(|id, closed| gone.get(id) == Some(&closed.backend));
        let due: BTreeMap<u32, KernelBackend> = gone
            .into_iter()
            .filter(|(id, _)| match self.closed.get(id) {
                None => true,
                Some(closed) => !closed.again && closed.at.elapsed() >= AGAIN,
            })
            .collect();
        if due.is_empty() {
            return;
        }
        match self.kernel.close_local(&due) {
            Ok(0) => {}
            Ok(sockets) => info!(sockets, "closed local clients' sockets to lost backends"),
            // The next time it is tried again.
            Err(error) => {
                error!(%error, "local clients of lost backends have to wait");
                return;
            }
        }
        for (id, backend) in due {
            self.closed
                .entry(id)
                .and_modify(|closed| closed.again = true)
                .or_insert(Closed {
                    backend,
                    at: Instant::now(),
                    again: false,
                });
        }
    }

    /// Backends in the kernel that take no new flows, since they are dead or no longer listed.
    fn gone(&self, snapshot: &Snapshot) -> BTreeMap<u32, KernelBackend> {
        let is_gone = |backend: &KernelBackend| {
            let mut ids = self.ids.iter();
            let Some(((name, _), _)) = ids.find(|(_, id)| **id == backend.service) else {
                return true;
            };
            let Some(service) = snapshot.services.get(name) else {
                return true;
            };
            let listed = service.backends.iter();
            let alive = listed
                .filter(|listed| listed.address() == backend.address)
                .any(|listed| !listed.is_dead());
            !service.pending && !alive
        };
        self.view
            .backends
            .iter()
            .filter(|(_, backend)| !backend.active && is_gone(backend))
            .map(|(id, backend)| (*id, *backend))
            .collect()
    }
}
