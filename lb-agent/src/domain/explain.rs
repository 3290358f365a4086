//! Why a backend has the weight that it has: each factor with its value and where that comes from;
//! and what the kernel holds at this moment, to be compared with.

mod held;
mod request;
mod source;
#[cfg(test)]
mod tests;
mod treatment;

use std::net::SocketAddr;

pub use self::{
    held::{HeldBackend, HeldByKernel, HeldTable, HeldVip},
    request::Request,
    source::Source,
    treatment::{Treatment, treatment},
};
use super::{
    author::Author,
    backend::CatalogHealth,
    health::Observed,
    http::routing::Considered,
    ramp,
    snapshot::{BackendState, ServiceState},
    split::Shares,
    weigh::with_detail,
};

/// One factor of a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// `registered`, `split`, `health`, `drain` and so on.
    pub name: &'static str,
    /// Its value; the product of all is proportional to the weight.
    pub value: f64,
    /// What it means, in words; may be empty.
    pub note: String,
    /// Who says so.
    pub source: Source,
}

/// The facts that [`factors`] needs beside the backend.
pub struct Sources {
    /// Of the backend's entry in its catalog.
    pub instance: Source,
    /// Of the split in force.
    pub split: Option<Source>,
}

/// The shares that count among the backends of the family: those of the split, or of a fallback.
fn shares_in_use(state: &ServiceState, v6: bool) -> Option<&Shares> {
    let split = state.split.as_ref()?;
    let weighty = |shares: &&Shares| {
        state.backends.iter().any(|backend| {
            let share = backend
                .subset
                .as_ref()
                .and_then(|subset| shares.get(subset));
            backend.address().is_ipv6() == v6 && backend.weight > 0 && share.unwrap_or(0) > 0
        })
    };
    let mut all = std::iter::once(&split.shares).chain(&split.fallback);
    all.find(weighty).or(Some(&split.shares))
}

/// The factors of a backend's weight, in the order in which they are multiplied.
pub fn factors(state: &ServiceState, backend: &BackendState, sources: Sources) -> Vec<Factor> {
    let Sources { instance, split } = sources;
    let v6 = backend.address().is_ipv6();
    let mut factors = vec![Factor {
        name: "registered",
        value: f64::from(backend.instance.weight),
        note: String::new(),
        source: instance.clone(),
    }];
    factors.push(share(state, backend, split));
    factors.push(health(state, backend, &instance));
    factors.push(slow_start(state, backend));
    factors.push(match (&backend.drain, &backend.instance.health) {
        (Some(taken), _) => Factor {
            name: "drain",
            value: 0.0,
            note: taken.reason(),
            source: Source::Cli(Author {
                user: taken.by.clone().unwrap_or("unknown user".into()),
                at: taken.since,
            }),
        },
        (None, CatalogHealth::Maintenance(reason)) => Factor {
            name: "drain",
            value: 0.0,
            note: with_detail("in maintenance", reason),
            source: instance.clone(),
        },
        (None, _) => Factor {
            name: "drain",
            value: 1.0,
            note: "not drained".into(),
            source: Source::Default,
        },
    });
    let has_vip =
        state.spec.protocol.is_proxied() || state.spec.vips.iter().any(|vip| vip.is_ipv6() == v6);
    let kept_port = state.spec.kept_port();
    let wrong_port = kept_port.filter(|port| *port != backend.address().port());
    if !has_vip || wrong_port.is_some() {
        factors.push(Factor {
            name: "reach",
            value: 0.0,
            note: backend.reason.to_string(),
            source: file(state),
        });
    }
    factors
}

fn file(state: &ServiceState) -> Source {
    let origin = &state.spec.origin;
    Source::File {
        path: origin.file.clone(),
        line: origin.line,
    }
}

/// The part that the split gives to this backend, relative to its registered weight.
fn share(state: &ServiceState, backend: &BackendState, source: Option<Source>) -> Factor {
    let name = "split";
    let Some(shares) = shares_in_use(state, backend.address().is_ipv6()) else {
        return Factor {
            name,
            value: 1.0,
            note: "no split: backends share by their weights".into(),
            source: Source::Default,
        };
    };
    let source = source.unwrap_or_else(|| file(state));
    let Some(subset) = &backend.subset else {
        return Factor {
            name,
            value: 0.0,
            note: "belongs to no subset, and a split is in force".into(),
            source,
        };
    };
    let own = shares.get(subset).unwrap_or(0);
    let taking = state.backends.iter().filter(|other| {
        other.subset.as_ref() == Some(subset)
            && other.weight > 0
            && other.address().is_ipv6() == backend.address().is_ipv6()
    });
    let (mut registered, mut started) = (0_u64, 0.0);
    for other in taking {
        registered += u64::from(other.instance.weight);
        started += f64::from(other.instance.weight) * started_part(other);
    }
    let part = f64::from(own) / f64::from(shares.total());
    let value = if registered == 0 {
        part
    } else {
        part / started
    };
    let mut note = format!("subset {subset} has {own} of {}", shares.total());
    if registered > 0 {
        note.push_str(&format!(", for a weight of {registered} in it"));
    }
    Factor {
        name,
        value,
        note,
        source,
    }
}

/// How much of its share a backend takes while it starts slowly: from 0 to 1.
fn started_part(backend: &BackendState) -> f64 {
    let steps = f64::from(ramp::STEPS);
    backend.ramp.map_or(1.0, |part| f64::from(part) / steps)
}

fn slow_start(state: &ServiceState, backend: &BackendState) -> Factor {
    let (note, source) = match backend.ramp {
        Some(_) => ("has come, or come back, a short while ago", file(state)),
        None => ("not starting slowly", Source::Default),
    };
    Factor {
        name: "slow start",
        value: started_part(backend),
        note: note.into(),
        source,
    }
}

fn health(state: &ServiceState, backend: &BackendState, instance: &Source) -> Factor {
    let (healthy, note, source) = match (&backend.observed, &backend.instance.health) {
        (Observed::Unhealthy { since, reason }, _) => (
            false,
            with_detail("its probes fail", reason),
            Source::Probe(Some(*since)),
        ),
        (_, CatalogHealth::Critical(detail)) => (
            false,
            with_detail("critical in the catalog", detail),
            instance.clone(),
        ),
        (_, CatalogHealth::Warning(detail)) => (
            true,
            with_detail("warning in the catalog", detail),
            instance.clone(),
        ),
        (Observed::Healthy { since }, _) => {
            let note = "its probes succeed".to_owned();
            (true, note, Source::Probe(Some(*since)))
        }
        (Observed::Unknown, _) => {
            let note = match state.spec.probe {
                Some(_) => "not probed yet; the catalog's word counts",
                None => "passing in the catalog",
            };
            (true, note.to_owned(), instance.clone())
        }
    };
    let (healthy, note, source) = match &backend.ejection {
        Some(ejection) if healthy => (
            false,
            with_detail("ejected for a while", &ejection.reason),
            Source::Traffic(ejection.since),
        ),
        _ => (healthy, note, source),
    };
    let used = backend.weight > 0;
    let note = match (healthy, used) {
        (false, true) => format!("{note}, but too few others are healthy, so it is used"),
        _ => note,
    };
    Factor {
        name: "health",
        value: f64::from(u8::from(healthy || used)),
        note,
        source,
    }
}

/// A service explained.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Name of the service.
    pub service: String,
    /// Why it is told of: `name`, `vip`, `backend`, `route`, `tag` or `service-router`.
    pub matched: &'static str,
    /// The same in words.
    pub because: String,
    /// Of each layer of the split, in the order of the layers of the state: who says so.
    pub layers: Vec<Source>,
    /// By backend, in the order of the state's.
    pub backends: Vec<ExplainedBackend>,
    /// Ids of the service in the kernel, one for each address family that it has a VIP of.
    pub ids: Vec<u32>,
    /// What the kernel holds of it.
    pub held: HeldByKernel,
    /// Of a request: the routes up to the one that fits.
    pub considered: Vec<Considered>,
    /// How the proxy treats its requests; empty: it does not.
    pub treatment: Vec<Treatment>,
}

/// A backend explained.
#[derive(Clone, Debug)]
pub struct ExplainedBackend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The factors of its weight.
    pub factors: Vec<Factor>,
    /// Its id in the kernel; `None`: it has none.
    pub id: Option<u32>,
    /// Service id that it has it under.
    pub service: Option<u32>,
    /// Flows that exist now.
    pub flows: u64,
}

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A service by its name.
    Service(String),
    /// A VIP or the address of a backend; the protocol, if it matters.
    Address(SocketAddr, Option<super::service::Protocol>),
    /// Requests for a path of a host.
    Request(Request),
}
