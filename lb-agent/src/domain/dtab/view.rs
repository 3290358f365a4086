//! The splits in force as a delegation table.

use super::Dentry;
use crate::domain::snapshot::Snapshot;

/// One entry for each service that is split, whoever said so, by name.
pub fn table(snapshot: &Snapshot) -> Vec<Dentry> {
    let services = snapshot.services.iter();
    services
        .filter_map(|(name, state)| {
            let split = state.split.as_ref()?;
            Some(Dentry {
                service: name.clone(),
                shares: split.shares.clone(),
                fallback: split.fallback.clone(),
            })
        })
        .collect()
}
