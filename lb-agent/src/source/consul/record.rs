//! What an answer, or the want of one, changes in the state of the catalog. Pure.

use std::{sync::Arc, time::SystemTime};

use crate::{
    domain::sync::CatalogState,
    source::{
        consul_client::{Answer, RequestError, health_path},
        consul_wire::InvalidInstance,
    },
};

/// What became different, apart from times and counts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    /// How many instances there are now, if any of them differs.
    pub(super) instances: Option<usize>,
    /// The error there is now (`None` in it: none any more), if that differs.
    pub(super) error: Option<Option<String>>,
}

/// Name of the watch on a service in [`CatalogState::watches`].
fn watch_name(service: &str) -> String {
    format!("health/{service}")
}

/// Records the outcome of one question at the time of its answer.
pub(super) fn record(
    state: &mut CatalogState,
    service: &str,
    outcome: Result<Answer, RequestError>,
    now: SystemTime,
) -> Change {
    let mut change = Change::default();
    let status = state.watches.entry(watch_name(service)).or_default();
    let error = match outcome {
        Ok(Answer { index, listing }) => {
            status.last_success = Some(now);
            status.index = index;
            // A return is no proof of a change.
            let known = state.services.get(service);
            if known.is_none_or(|known| **known != listing.instances) {
                status.last_change = Some(now);
                change.instances = Some(listing.instances.len());
                let instances = Arc::new(listing.instances);
                state.services.insert(service.to_owned(), instances);
            }
            left_out(service, &listing.invalid)
        }
        Err(error) => {
            status.errors += 1;
            Some(error.to_string())
        }
    };
    if status.error != error {
        status.error.clone_from(&error);
        change.error = Some(error);
    }
    change
}

/// Drops what is known of a service that is followed no longer.
pub(super) fn forget(state: &mut CatalogState, service: &str) {
    state.services.remove(service);
    state.watches.remove(&watch_name(service));
}

/// One sentence on the instances that cannot be used.
fn left_out(service: &str, invalid: &[InvalidInstance]) -> Option<String> {
    let path = health_path(service);
    match invalid {
        [] => None,
        [one] => Some(format!("{path}: one instance is left out: {one}")),
        [first, others @ ..] => Some(format!(
            "{path}: {} instances are left out: {first}, and {} more",
            invalid.len(),
            others.len()
        )),
    }
}
