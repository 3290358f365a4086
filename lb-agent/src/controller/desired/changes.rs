//! What a new snapshot changes of each backend besides its health by probes and traffic: what the
//! catalog says, and what people want.

use std::{collections::BTreeMap, time::SystemTime};

use tracing::{info, warn};

use super::health::record;
use crate::domain::{
    backend::{CatalogHealth, InstanceId},
    history::{Change, History, Source},
    snapshot::{BackendState, ServiceState},
    weigh::illness,
};

/// Records what differs. What a service begins with is no change.
pub(super) fn record_all(
    history: &mut History,
    former: &ServiceState,
    state: &ServiceState,
    now: SystemTime,
) {
    if former.pending || former.backends.is_empty() {
        return;
    }
    panicked(former, state);
    let key = |backend: &BackendState| (backend.id().clone(), backend.address());
    let before: BTreeMap<_, &BackendState> = former
        .backends
        .iter()
        .map(|each| (key(each), each))
        .collect();
    let mut note = |backend: &BackendState, word: Word| {
        record(history, word.change(&state.spec.name, backend, now));
    };
    for backend in &state.backends {
        match before.get(&key(backend)) {
            None => note(backend, Word::catalog("absent", "listed", "")),
            Some(former) => differences(former, backend)
                .into_iter()
                .for_each(|word| note(backend, word)),
        }
    }
    let after: std::collections::BTreeSet<(InstanceId, _)> =
        state.backends.iter().map(key).collect();
    for backend in former
        .backends
        .iter()
        .filter(|each| !after.contains(&key(each)))
    {
        note(backend, Word::catalog("listed", "absent", ""));
    }
}

/// Logs that the service begins or ends to use backends that are not healthy.
fn panicked(former: &ServiceState, state: &ServiceState) {
    let service = &state.spec.name;
    let healthy = state.backends.iter().filter(|each| {
        illness(
            &each.instance.health,
            &each.observed,
            each.ejection.as_ref(),
        )
        .is_none()
    });
    let (healthy, of) = (healthy.count(), state.backends.len());
    match (former.panic, state.panic) {
        (false, true) => warn!(
            service,
            healthy, of, "too few backends are healthy, so all are used"
        ),
        (true, false) => info!(
            service,
            healthy, of, "those that are not healthy are left out again"
        ),
        _ => {}
    }
}

/// A change without its backend.
struct Word {
    from: &'static str,
    to: &'static str,
    reason: String,
    source: Source,
}

impl Word {
    fn catalog(from: &'static str, to: &'static str, detail: &str) -> Self {
        let reason = match (to, detail) {
            ("absent", _) => "no longer in the catalog".into(),
            ("listed", _) => "in the catalog".into(),
            (_, "") => format!("{to} in the catalog"),
            (_, detail) => format!("{to} in the catalog: {detail}"),
        };
        Self {
            from,
            to,
            reason,
            source: Source::Catalog,
        }
    }

    fn change(self, service: &str, backend: &BackendState, now: SystemTime) -> Change {
        Change {
            at: now,
            service: service.to_owned(),
            id: backend.id().clone(),
            address: backend.address(),
            from: self.from,
            to: self.to,
            reason: self.reason,
            source: self.source,
        }
    }
}

fn differences(former: &BackendState, backend: &BackendState) -> Vec<Word> {
    let mut words = Vec::new();
    let (was, _) = said(&former.instance.health);
    let (is, detail) = said(&backend.instance.health);
    if was != is {
        words.push(Word::catalog(was, is, detail));
    }
    match (&former.held, &backend.held) {
        (None, Some(_)) => words.push(Word {
            from: "listed",
            to: "held",
            reason: "gone from the catalog together with most others".into(),
            source: Source::Catalog,
        }),
        (Some(_), None) => words.push(Word::catalog("held", "listed", "")),
        _ => {}
    }
    let by_hand = |from, to, reason: &str| Word {
        from,
        to,
        reason: reason.into(),
        source: Source::Operator,
    };
    match (&former.drain, &backend.drain) {
        (None, Some(_)) => words.push(by_hand("enabled", "draining", "drained by an operator")),
        (Some(_), None) => words.push(by_hand("draining", "enabled", "put back by an operator")),
        _ => {}
    }
    words
}

/// The catalog's word, and its detail.
fn said(health: &CatalogHealth) -> (&'static str, &str) {
    match health {
        CatalogHealth::Passing => ("passing", ""),
        CatalogHealth::Warning(detail) => ("warning", detail),
        CatalogHealth::Critical(detail) => ("critical", detail),
        CatalogHealth::Maintenance(detail) => ("maintenance", detail),
    }
}
