//! What an answer, or the want of one, changes in the state of the catalog. Pure.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use crate::{
    domain::{
        backend::Instance,
        sync::{CatalogState, Listed, Topic, service_key},
    },
    source::{
        consul_answer::{Answer, Body},
        consul_client::{RequestError, path},
    },
};

/// What became different, apart from times and counts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    /// How many values (instances, entries, keys) there are now, if any of them differs.
    pub(super) values: Option<usize>,
    /// The error there is now (`None` in it: none any more), if that differs.
    pub(super) error: Option<Option<String>>,
}

/// Records the outcome of one question at the time of its answer.
pub(super) fn record(
    state: &mut CatalogState,
    topic: &Topic,
    outcome: Result<Answer, RequestError>,
    now: SystemTime,
) -> Change {
    let mut change = Change::default();
    let name = topic.to_string();
    let error = match outcome {
        Ok(Answer {
            index,
            body: Body::Same,
            ..
        }) => {
            let status = state.watches.entry(name).or_default();
            status.last_success = Some(now);
            status.index = index;
            // What of it could not be used still cannot.
            return change;
        }
        Ok(Answer { index, body, .. }) => {
            let (values, left_out) = keep(state, topic, index, body);
            change.values = values;
            let status = state.watches.entry(name.clone()).or_default();
            status.last_success = Some(now);
            status.index = index;
            if values.is_some() {
                status.last_change = Some(now);
            }
            left_out
        }
        Err(error) => {
            state.watches.entry(name.clone()).or_default().errors += 1;
            Some(error.to_string())
        }
    };
    let status = state.watches.entry(name).or_default();
    if status.error != error {
        status.error.clone_from(&error);
        change.error = Some(error);
    }
    change
}

/// Keeps what an answer lists; how many there are if that differs, and a sentence on what of it
/// cannot be used.
fn keep(
    state: &mut CatalogState,
    topic: &Topic,
    index: u64,
    body: Body,
) -> (Option<usize>, Option<String>) {
    match (topic, body) {
        (
            Topic::Instances {
                service,
                datacenter,
                ..
            },
            Body::Instances(listing),
        ) => {
            let key = service_key(service, datacenter.as_deref());
            let invalid = left_out(topic, "instance", &listing.invalid);
            let count = instances(&mut state.services, key, listing.instances);
            (count, invalid)
        }
        // What cannot be used of a service that nobody wants is nobody's business.
        (Topic::Glance(service), Body::Instances(listing)) => {
            let count = instances(&mut state.glanced, service.clone(), listing.instances);
            (count, None)
        }
        (Topic::Entries(kind), Body::Entries(entries, invalid)) => {
            let count = entries.len();
            let invalid = left_out(topic, "entry", &invalid);
            let changed = listed(state.entries.entry(*kind).or_default(), index, entries);
            (changed.then_some(count), invalid)
        }
        (Topic::Keys, Body::Keys(keys)) => {
            let count = keys.len();
            let first = state.keys.is_none();
            let changed = listed(state.keys.get_or_insert_default(), index, keys);
            ((first || changed).then_some(count), None)
        }
        (Topic::Names, Body::Names(names)) => {
            let count = names.len();
            let first = state.names.is_none();
            let changed = listed(state.names.get_or_insert_default(), index, names);
            ((first || changed).then_some(count), None)
        }
        // The client answers each topic in its own form.
        (topic, _) => (
            None,
            Some(format!("{topic}: an answer to another question")),
        ),
    }
}

/// A return is no proof of a change.
fn instances(
    services: &mut BTreeMap<String, Arc<Vec<Instance>>>,
    key: String,
    instances: Vec<Instance>,
) -> Option<usize> {
    let known = services.get(&key);
    let count = known
        .is_none_or(|known| **known != instances)
        .then_some(instances.len());
    if count.is_some() {
        services.insert(key, Arc::new(instances));
    }
    count
}

/// The index counts too: whether something is gone depends on it.
fn listed<V: PartialEq>(known: &mut Listed<V>, index: u64, values: BTreeMap<String, V>) -> bool {
    let changed = *known.values != values;
    if changed {
        known.values = Arc::new(values);
    }
    known.index = index;
    changed
}

/// Drops what is known of a topic that is followed no longer.
pub(super) fn forget(state: &mut CatalogState, topic: &Topic) {
    match topic {
        Topic::Instances {
            service,
            datacenter,
            ..
        } => {
            let key = service_key(service, datacenter.as_deref());
            state.services.remove(&key);
        }
        Topic::Glance(service) => {
            state.glanced.remove(service);
        }
        Topic::Entries(kind) => {
            state.entries.remove(kind);
        }
        Topic::Keys => state.keys = None,
        Topic::Names => state.names = None,
    }
    state.watches.remove(&topic.to_string());
}

/// One sentence on what cannot be used of an answer.
fn left_out(topic: &Topic, what: &str, invalid: &[impl fmt::Display]) -> Option<String> {
    let path = path(topic);
    let plural = match what {
        "entry" => "entries",
        _ => "instances",
    };
    match invalid {
        [] => None,
        [one] => Some(format!("{path}: one {what} is left out: {one}")),
        [first, others @ ..] => Some(format!(
            "{path}: {} {plural} are left out: {first}, and {} more",
            invalid.len(),
            others.len()
        )),
    }
}
