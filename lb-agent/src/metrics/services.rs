//! Metrics of services, their splits and their backends.
//!
//! The snapshot says which services and backends there are; what is only counted still, and no
//! longer there, has no series.

use super::family::Family;
use crate::{
    controller::{BackendCounters, handle::Counters},
    domain::{
        backend::CatalogHealth,
        health::Observed,
        shift::{Phase, ShiftState},
        snapshot::{BackendState, ServiceState, Snapshot},
    },
};

/// All families of services and backends.
pub(super) fn families(snapshot: &Snapshot, counters: &Counters) -> Vec<Family> {
    let mut services = ServiceFamilies::new();
    let mut backends = BackendFamilies::new();
    for (name, service) in &snapshot.services {
        let total = counters.services.get(name).copied().unwrap_or_default();
        let returns = counters.returns.get(name).copied().unwrap_or(0);
        services.add(name, service, &total, returns);
        for backend in &service.backends {
            let key = (name.clone(), backend.id().clone(), backend.address());
            let counted = counters.backends.get(&key).copied().unwrap_or_default();
            backends.add(name, backend, &counted);
        }
    }
    services
        .finish()
        .into_iter()
        .chain(backends.finish())
        .collect()
}

/// Whether the backend counts as healthy: the agent's own probes say so, or, before the first
/// has decided and where there are none, the catalog. Maintenance is a person's will and no
/// illness.
fn is_healthy(backend: &BackendState) -> bool {
    match backend.observed {
        Observed::Healthy { .. } => true,
        Observed::Unhealthy { .. } => false,
        Observed::Unknown => !matches!(backend.instance.health, CatalogHealth::Critical(_)),
    }
}

/// Packets, bytes and flows, by direction.
struct Traffic {
    packets: Family,
    bytes: Family,
    flows: Family,
}

impl Traffic {
    fn add(&mut self, labels: &[(&str, &str)], counters: &BackendCounters) {
        for (direction, counter) in [("in", counters.inbound), ("out", counters.outbound)] {
            let mut labels = labels.to_vec();
            labels.push(("direction", direction));
            self.packets.add(&labels, counter.packets as f64);
            self.bytes.add(&labels, counter.bytes as f64);
        }
        self.flows.add(labels, counters.flows as f64);
    }
}

struct ServiceFamilies {
    traffic: Traffic,
    panic: Family,
    held: Family,
    shares: Family,
    shifts: Family,
    returns: Family,
}

impl ServiceFamilies {
    fn new() -> Self {
        Self {
            traffic: Traffic {
                packets: Family::counter(
                    "lb_service_packets_total",
                    "Packets of the service, from clients (in) and to them (out).",
                ),
                bytes: Family::counter(
                    "lb_service_bytes_total",
                    "Bytes of the service, from clients (in) and to them (out).",
                ),
                flows: Family::counter("lb_service_flows_total", "Flows created for the service."),
            },
            panic: Family::gauge(
                "lb_service_panic",
                "Whether the service uses all its backends because none is healthy (1).",
            ),
            held: Family::gauge(
                "lb_service_held_backends",
                "Backends that the catalog no longer lists and that are used until that is certain.",
            ),
            shares: Family::gauge(
                "lb_service_split_share",
                "Share of each subset in the split in force, of 1 in all, and who set it.",
            ),
            shifts: Family::gauge(
                "lb_service_shift_phase",
                "Where the shift of traffic to the subset stands: 1 in one phase; returned is \
                 traffic taken back and not acknowledged.",
            ),
            returns: Family::counter(
                "lb_service_split_returns_total",
                "Times that traffic was taken back from a subset because its gate failed, since \
                 the agent started.",
            ),
        }
    }

    fn add(
        &mut self,
        name: &str,
        service: &ServiceState,
        counters: &BackendCounters,
        returns: u64,
    ) {
        let labels = [("service", name)];
        self.traffic.add(&labels, counters);
        self.panic.add(&labels, f64::from(service.panic));
        let held = service
            .backends
            .iter()
            .filter(|backend| backend.held.is_some())
            .count();
        self.held.add(&labels, held as f64);
        if let Some(split) = &service.split {
            let total = f64::from(split.shares.total());
            for (subset, share) in split.shares.iter() {
                let labels = [
                    ("service", name),
                    ("subset", subset),
                    ("source", split.source.name()),
                ];
                self.shares.add(&labels, f64::from(share) / total);
            }
        }
        if let Some(ShiftState { shift, .. }) = &service.shift {
            for phase in Phase::NAMES {
                let labels = [
                    ("service", name),
                    ("subset", &*shift.subset),
                    ("phase", phase),
                ];
                let is = phase == shift.phase.name();
                self.shifts.add(&labels, f64::from(is));
            }
        }
        self.returns.add(&labels, returns as f64);
    }

    fn finish(self) -> [Family; 8] {
        let Traffic {
            packets,
            bytes,
            flows,
        } = self.traffic;
        [
            packets,
            bytes,
            flows,
            self.panic,
            self.held,
            self.shares,
            self.shifts,
            self.returns,
        ]
    }
}

struct BackendFamilies {
    traffic: Traffic,
    active: Family,
    healthy: Family,
    weight: Family,
}

impl BackendFamilies {
    fn new() -> Self {
        Self {
            traffic: Traffic {
                packets: Family::counter(
                    "lb_backend_packets_total",
                    "Packets to the backend (in) and from it (out).",
                ),
                bytes: Family::counter(
                    "lb_backend_bytes_total",
                    "Bytes to the backend (in) and from it (out).",
                ),
                flows: Family::counter(
                    "lb_backend_flows_total",
                    "Flows created towards the backend.",
                ),
            },
            active: Family::gauge(
                "lb_backend_active_flows",
                "Flows to the backend that exist now.",
            ),
            healthy: Family::gauge(
                "lb_backend_healthy",
                "Whether the backend is healthy (1) by the agent's probes, or by the catalog \
                 before they have decided and where there are none.",
            ),
            weight: Family::gauge(
                "lb_backend_weight",
                "Effective weight of the backend among those of its service; 0 takes no new flows.",
            ),
        }
    }

    fn add(&mut self, service: &str, backend: &BackendState, counters: &BackendCounters) {
        let address = backend.address().to_string();
        let labels = [
            ("service", service),
            ("backend", &*address),
            ("instance", &*backend.id().0),
            ("subset", backend.subset.as_deref().unwrap_or_default()),
        ];
        self.traffic.add(&labels, counters);
        self.active.add(&labels, counters.live_flows as f64);
        self.healthy.add(&labels, f64::from(is_healthy(backend)));
        self.weight.add(&labels, f64::from(backend.weight));
    }

    fn finish(self) -> [Family; 6] {
        let Traffic {
            packets,
            bytes,
            flows,
        } = self.traffic;
        [
            packets,
            bytes,
            flows,
            self.active,
            self.healthy,
            self.weight,
        ]
    }
}
