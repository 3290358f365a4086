//! What became of the connections to backends, as far as the kernel tells: new flows by its counters,
//! failed ones by the censuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use tracing::error;

use super::Reconciler;
use crate::domain::{gate::Outcomes, kernel::Kernel};

/// Outcomes by backend.
pub(crate) type ByAddress = BTreeMap<SocketAddr, Outcomes>;

impl<K: Kernel> Reconciler<K> {
    /// Reads the outcomes of these services, and forgets those of others. To be called with each
    /// census, so that new and failed connections are of the same time.
    pub(crate) fn note_outcomes(&mut self, services: &BTreeSet<String>) {
        self.outcomes.clear();
        for service in services {
            let read = self.read_outcomes(service);
            self.outcomes.insert(service.clone(), read);
        }
    }

    /// The outcomes of a service as of the last census; as of now if there was none since somebody
    /// watches.
    pub(crate) fn outcomes(&mut self, service: &str) -> ByAddress {
        if let Some(known) = self.outcomes.get(service) {
            return known.clone();
        }
        let read = self.read_outcomes(service);
        self.outcomes.insert(service.to_owned(), read.clone());
        read
    }

    fn read_outcomes(&self, service: &str) -> ByAddress {
        let named = self.ids.iter().filter(|((name, _), _)| name == service);
        let ids: BTreeSet<u32> = named.map(|(_, id)| *id).collect();
        let mut outcomes = ByAddress::new();
        for (id, backend) in &self.view.backends {
            if !ids.contains(&backend.service) {
                continue;
            }
            match self.kernel.backend_stats(*id) {
                Ok(stats) => {
                    let sum: &mut Outcomes = outcomes.entry(backend.address).or_default();
                    *sum = sum.plus(Outcomes {
                        begun: stats.flows,
                        failed: self.failed.get(id).copied().unwrap_or(0),
                        ..Outcomes::default()
                    });
                }
                Err(error) => error!(%error, "the new flows of a backend could not be read"),
            }
        }
        outcomes
    }
}
