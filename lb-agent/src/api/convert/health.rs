//! Probes, what else decides on health, and what it comes to.

use super::{super::proto, millis, unix_ms};
use crate::domain::{
    backend::CatalogHealth,
    health::Observed,
    history::Change,
    service::{HealthPolicy, ProbeKind, ProbeSpec, TlsSpec},
    snapshot::BackendState,
};

pub(in crate::api) fn probe(spec: &ProbeSpec) -> proto::Probe {
    let mut probe = proto::Probe {
        port: spec.port.map(u32::from),
        interval_ms: millis(spec.interval),
        timeout_ms: millis(spec.timeout),
        rise: spec.rise,
        fall: spec.fall,
        ..Default::default()
    };
    match &spec.kind {
        ProbeKind::Tcp => probe.kind = "tcp".into(),
        ProbeKind::Http {
            path,
            host,
            status,
            body,
            tls,
        } => {
            probe.kind = "http".into();
            probe.path = Some(path.clone());
            probe.host = host.clone();
            let (first, last) = (status.first(), status.last());
            probe.status_min = first.map(|range| range.0.into());
            probe.status_max = last.map(|range| range.1.into());
            probe.statuses = status.iter().map(range).collect();
            probe.body = body.clone();
            probe.tls = tls.as_ref().map(self::tls);
        }
        ProbeKind::Grpc { service, host, tls } => {
            probe.kind = "grpc".into();
            probe.host = host.clone();
            probe.grpc_service = Some(service.clone());
            probe.tls = tls.as_ref().map(self::tls);
        }
    }
    probe
}

/// `200` or `200-399`.
fn range((first, last): &(u16, u16)) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn tls(spec: &TlsSpec) -> proto::ProbeTls {
    proto::ProbeTls {
        server_name: spec.server_name.clone(),
        ca_cert: spec.ca_cert.as_ref().map(|path| path.display().to_string()),
        client_cert: spec
            .identity
            .as_ref()
            .map(|(cert, _)| cert.display().to_string()),
        insecure: spec.insecure,
    }
}

pub(in crate::api) fn policy(policy: &HealthPolicy) -> proto::HealthPolicy {
    proto::HealthPolicy {
        panic_percent: policy.panic,
        slow_start_ms: millis(policy.slow_start),
        passive: policy.passive.as_ref().map(|passive| proto::Passive {
            failures: passive.failures,
            eject_ms: millis(passive.base),
            eject_max_ms: millis(passive.longest),
        }),
    }
}

/// A change in a backend's history.
pub(in crate::api) fn change(change: &Change) -> proto::BackendChange {
    proto::BackendChange {
        at_unix_ms: unix_ms(change.at),
        service: change.service.clone(),
        id: change.id.to_string(),
        address: change.address.to_string(),
        from: change.from.into(),
        to: change.to.into(),
        reason: change.reason.clone(),
        source: change.source.name().into(),
    }
}

/// Why a person does not want it used; `None`: it is wanted. Another matter than its health.
pub(in crate::api) fn disabled(backend: &BackendState) -> Option<String> {
    match (&backend.drain, &backend.instance.health) {
        (Some(_), _) => Some("draining".into()),
        (None, CatalogHealth::Maintenance(_)) => Some("maintenance".into()),
        _ => None,
    }
}

/// What catalog, probes and traffic come to, in one word. Weights follow the same order of
/// precedence (`domain::weigh`); what people want is another matter ([`disabled`]).
pub(in crate::api) fn health(backend: &BackendState) -> &'static str {
    match (&backend.instance.health, &backend.observed) {
        (CatalogHealth::Critical(_), _) | (_, Observed::Unhealthy { .. }) => "unhealthy",
        _ if backend.ejection.is_some() => "ejected",
        (CatalogHealth::Maintenance(_), Observed::Healthy { .. }) => "healthy",
        // Maintenance hides what the checks say.
        (CatalogHealth::Maintenance(_), Observed::Unknown) => "unknown",
        (CatalogHealth::Warning(_), _) => "warning",
        (CatalogHealth::Passing, Observed::Healthy { .. } | Observed::Unknown) => "healthy",
    }
}
