//! Explanations, asked for and as messages.

use std::{collections::BTreeSet, net::SocketAddr};

use http::{HeaderMap, HeaderName, Method};
use tonic::Status;

use super::{
    convert::{self, percent, unix_ms},
    input::InvalidRequest,
    proto,
    refusal::find,
    service::now_unix_ms,
};
use crate::{
    controller::Handle,
    domain::{
        explain::{Explained, ExplainedBackend, Factor, HeldTable, Request, Source, Subject},
        service::Protocol,
        snapshot::ServiceState,
    },
};

/// What a request asks to be explained.
///
/// # Errors
///
/// It asks for nothing, or for several things, or cannot be read.
fn subject(request: proto::ExplainRequest) -> Result<Subject, InvalidRequest> {
    let proto::ExplainRequest {
        service,
        address,
        host,
        path,
        method,
        headers,
    } = request;
    match (service, address, host, path) {
        (Some(name), None, None, None) => Ok(Subject::Service(name)),
        (None, Some(text), None, None) => address_of(&text),
        (None, None, Some(host), Some(path)) => {
            if !path.starts_with('/') {
                return Err(InvalidRequest::Subject(format!(
                    "`{path}` is no path; it begins with a slash"
                )));
            }
            let name = match host.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() => name,
                _ => &host,
            };
            if name.is_empty() || name.contains(['/', ' ']) {
                return Err(InvalidRequest::Subject(format!(
                    "`{host}` is no name of a host"
                )));
            }
            let (path, query) = match path.split_once('?') {
                Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
                None => (path, None),
            };
            Ok(Subject::Request(Request {
                host: name.to_ascii_lowercase(),
                path,
                query,
                method: method_of(method)?,
                headers: headers_of(headers)?,
            }))
        }
        _ => Err(InvalidRequest::Subject(
            "ask for a service, or an address, or a host with a path".into(),
        )),
    }
}

fn method_of(name: Option<String>) -> Result<Method, InvalidRequest> {
    let Some(name) = name else {
        return Ok(Method::GET);
    };
    let odd = || InvalidRequest::Subject(format!("`{name}` is no method"));
    name.to_ascii_uppercase().parse().map_err(|_| odd())
}

fn headers_of(list: Vec<proto::RequestHeader>) -> Result<HeaderMap, InvalidRequest> {
    let mut headers = HeaderMap::new();
    for proto::RequestHeader { name, value } in list {
        let pair = name.parse::<HeaderName>().ok().zip(value.parse().ok());
        let odd = || InvalidRequest::Subject(format!("`{name}: {value}` is no header"));
        let (name, value) = pair.ok_or_else(odd)?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn address_of(text: &str) -> Result<Subject, InvalidRequest> {
    let (address, protocol) = match text.rsplit_once('/') {
        Some((address, "tcp")) => (address, Some(Protocol::Tcp)),
        Some((address, "udp")) => (address, Some(Protocol::Udp)),
        _ => (text, None),
    };
    let parsed: Result<SocketAddr, _> = address.parse();
    match parsed {
        Ok(address) => Ok(Subject::Address(address, protocol)),
        Err(_) => Err(InvalidRequest::Subject(format!(
            "`{text}` is no address; it must be as in 198.51.100.10:80 or [2001:db8::10]:53/udp"
        ))),
    }
}

/// Answers a request.
pub(super) async fn answer(
    handle: &Handle,
    request: proto::ExplainRequest,
) -> Result<proto::ExplainResponse, Status> {
    let subject = subject(request)?;
    let counters = handle.counters().await?;
    let explained = handle.explain(subject).await?;
    let snapshot = handle.snapshot();
    let mut services = Vec::new();
    for one in &explained {
        // It may have gone in between.
        let Ok(state) = find(&snapshot, &one.service) else {
            continue;
        };
        services.push(proto::ExplainedService {
            matched: one.matched.into(),
            because: one.because.clone(),
            service: Some(convert::service(state, &counters)),
            backends: convert::backends(state, &counters),
            explanation: Some(explanation(one, state)),
            routes: one
                .considered
                .iter()
                .map(|route| convert::route(&route.route, route.of_consul, route.misfit.clone()))
                .collect(),
            treatment: convert::treatment(&one.treatment),
        });
    }
    Ok(proto::ExplainResponse {
        services,
        now_unix_ms: now_unix_ms(),
    })
}

/// The explanation of one service, by its name; `None`: it has gone.
pub(super) async fn of_service(
    handle: &Handle,
    name: &str,
) -> Result<Option<proto::Explanation>, Status> {
    let explained = handle.explain(Subject::Service(name.to_owned())).await?;
    let snapshot = handle.snapshot();
    let state = find(&snapshot, name)?;
    Ok(explained.first().map(|one| explanation(one, state)))
}

fn explanation(explained: &Explained, state: &ServiceState) -> proto::Explanation {
    let own: BTreeSet<u32> = explained.backends.iter().filter_map(|one| one.id).collect();
    let held = &explained.held;
    let vips = held.vips.iter().map(|(key, entry)| proto::KernelVip {
        vip: key.address.to_string(),
        present: entry.is_some(),
        service: entry.map_or(0, |entry| entry.vip.service),
        slots: entry.map_or(0, |entry| entry.vip.slots),
        flags: entry.map_or(0, |entry| entry.flags),
    });
    let tables = held.tables.iter().map(|(service, table)| {
        let foreign = |table: &HeldTable| {
            let all = table.by_backend.iter();
            all.filter(|(id, _)| !own.contains(id))
                .map(|(_, slots)| slots)
                .sum()
        };
        proto::KernelTable {
            service: *service,
            present: table.is_some(),
            map: table.as_ref().map_or(0, |table| table.map),
            slots: table.as_ref().map_or(0, |table| table.slots),
            foreign: table.as_ref().map_or(0, foreign),
        }
    });
    proto::Explanation {
        split_origins: explained.layers.iter().map(origin).collect(),
        backends: explained
            .backends
            .iter()
            .map(|backend| self::backend(backend, explained, state))
            .collect(),
        vips: vips.collect(),
        tables: tables.collect(),
    }
}

fn backend(
    backend: &ExplainedBackend,
    explained: &Explained,
    state: &ServiceState,
) -> proto::BackendExplanation {
    let held = &explained.held;
    let v6 = backend.address.is_ipv6();
    let family = || {
        state
            .backends
            .iter()
            .filter(|one| one.address().is_ipv6() == v6)
    };
    // Two instances at one address are one backend to the kernel.
    let own = family().filter(|one| one.address() == backend.address);
    let own: u64 = own.map(|one| u64::from(one.weight)).sum();
    let total: u64 = family().map(|one| u64::from(one.weight)).sum();
    let table = backend
        .service
        .and_then(|id| held.tables.get(&id)?.as_ref());
    let slots = table
        .zip(backend.id)
        .and_then(|(table, id)| table.by_backend.get(&id))
        .copied()
        .unwrap_or(0);
    let kernel = backend
        .id
        .map(|id| match held.backends.get(&id).and_then(Option::as_ref) {
            None => proto::KernelBackend {
                id,
                ..Default::default()
            },
            Some(entry) => proto::KernelBackend {
                id,
                present: true,
                service: entry.backend.service,
                address: entry.backend.address.to_string(),
                active: entry.backend.active,
                source: entry.source.to_string(),
                interface: entry.interface.clone(),
                mac: entry.mac.clone(),
                router: entry.router.map(|router| router.to_string()),
            },
        });
    proto::BackendExplanation {
        address: backend.address.to_string(),
        factors: backend.factors.iter().map(factor).collect(),
        flows: backend.flows,
        kernel,
        expected_percent: percent(own, total),
        slots,
        slots_percent: percent(slots.into(), table.map_or(0, |table| table.slots).into()),
    }
}

fn factor(factor: &Factor) -> proto::Factor {
    proto::Factor {
        name: factor.name.into(),
        value: factor.value,
        note: factor.note.clone(),
        origin: Some(origin(&factor.source)),
    }
}

fn origin(source: &Source) -> proto::Origin {
    proto::Origin {
        kind: source.kind().into(),
        text: source.to_string(),
        index: source.index(),
        user: match source {
            Source::Cli(author) => Some(author.user.clone()),
            _ => None,
        },
        // Nobody gave an order in 1970: it is not known when.
        at_unix_ms: source.at().map(unix_ms).filter(|at| *at > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: [Option<&str>; 4]) -> Result<Subject, String> {
        let [service, address, host, path] = words.map(|word| word.map(str::to_owned));
        let request = proto::ExplainRequest {
            service,
            address,
            host,
            path,
            ..Default::default()
        };
        subject(request).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        let address = |text: &str| asked([None, Some(text), None, None]);
        let vip: SocketAddr = "198.51.100.10:80".parse().unwrap();
        assert_eq!(address("198.51.100.10:80"), Ok(Subject::Address(vip, None)));
        assert_eq!(
            address("198.51.100.10:80/udp"),
            Ok(Subject::Address(vip, Some(Protocol::Udp)))
        );
        assert!(
            address("198.51.100.10:80/sctp")
                .unwrap_err()
                .contains("no address")
        );
        assert_eq!(
            asked([Some("echo"), None, None, None]),
            Ok(Subject::Service("echo".into()))
        );
        let request = Request {
            host: "web.example".into(),
            path: "/x".into(),
            query: Some("y=1".into()),
            method: Method::GET,
            headers: HeaderMap::new(),
        };
        assert_eq!(
            asked([None, None, Some("Web.Example:8080"), Some("/x?y=1")]),
            Ok(Subject::Request(request))
        );
        for (words, expected) in [
            ([None, None, Some("a"), Some("x")], "begins with a slash"),
            ([None, None, Some("a/b"), Some("/x")], "no name of a host"),
            ([None, None, Some("a"), None], "or a host with a path"),
            ([Some("a"), Some("b"), None, None], "ask for a service"),
            ([None; 4], "ask for a service"),
        ] {
            let error = asked(words).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
