//! Lists and counts of flows: from request to filter, from the tables to messages. The tables are
//! read on a thread for blocking work, so that nothing waits for it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{IPPROTO_TCP, IPPROTO_UDP};
use tokio::sync::mpsc;
use tonic::Status;

use super::{input::InvalidRequest, naming::Naming, proto};
use crate::domain::{
    block::parse_prefix,
    flow::{FLOW_STATES, FirstFlows, Flow, FlowCounts, FlowFilter, FlowOrder, FlowReader},
    kernel::KernelError,
};

/// Flows in one message.
const BATCH: usize = 512;
/// Most flows that can be put in order.
const MOST: u64 = 1_000_000;

/// Reads a filter, but for the service's name, which the caller has checked.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn filter(
    filter: &proto::FlowFilter,
    naming: &Naming,
) -> Result<FlowFilter, InvalidRequest> {
    let mut parsed = conditions(filter)?;
    if let Some(service) = &filter.service {
        parsed.backend_ids = Some(naming.backends_of(service).collect());
    }
    Ok(parsed)
}

fn conditions(filter: &proto::FlowFilter) -> Result<FlowFilter, InvalidRequest> {
    let backend = match filter.backend.as_deref() {
        None => None,
        Some(text) => Some(backend(text).ok_or_else(|| InvalidRequest::Backend(text.to_owned()))?),
    };
    let client = filter.client.as_deref().map(parse_prefix).transpose();
    let state = match filter.state.as_deref() {
        None => None,
        Some(name) => Some(
            FLOW_STATES
                .into_iter()
                .find(|state| state.name() == name)
                .ok_or_else(|| {
                    InvalidRequest::unknown("state", name, &FLOW_STATES.map(|state| state.name()))
                })?,
        ),
    };
    let protocol = match filter.protocol.as_deref() {
        None => None,
        Some("tcp") => Some(IPPROTO_TCP),
        Some("udp") => Some(IPPROTO_UDP),
        Some(name) => return Err(InvalidRequest::unknown("protocol", name, &["tcp", "udp"])),
    };
    Ok(FlowFilter {
        backend_ids: None,
        backend,
        client: client.map_err(|error| InvalidRequest::Prefixes(vec![error]))?,
        state,
        protocol,
    })
}

/// An address with or without a port.
fn backend(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    text.parse().ok().map(|ip| (ip, None))
}

/// In which order, and how many; `None`: all, as they come.
///
/// # Errors
///
/// What is wrong with the request.
pub(super) fn order(
    request: &proto::ListFlowsRequest,
) -> Result<Option<(FlowOrder, usize)>, InvalidRequest> {
    let names = FlowOrder::ALL.map(FlowOrder::name);
    let order = match request.sort.as_str() {
        "" => None,
        name => {
            let order = FlowOrder::ALL
                .into_iter()
                .find(|order| order.name() == name);
            Some(order.ok_or_else(|| InvalidRequest::unknown("order", name, &names))?)
        }
    };
    match (request.limit, order) {
        (0, None) => Ok(None),
        (0, Some(_)) => Err(InvalidRequest::SortWithoutLimit),
        (limit, _) if limit > MOST => Err(InvalidRequest::FlowLimit(limit)),
        (limit, order) => Ok(Some((order.unwrap_or(FlowOrder::Client), limit as usize))),
    }
}

/// Sends the flows that are asked for, and how many there are, until the receiver is gone.
/// Blocks.
pub(super) fn send(
    tables: &Arc<dyn FlowReader>,
    filter: &FlowFilter,
    order: Option<(FlowOrder, usize)>,
    naming: &Naming,
    messages: &mpsc::Sender<Result<proto::ListFlowsResponse, Status>>,
) {
    // The receiver may be gone, which is no matter.
    let send = |flows: Vec<proto::Flow>, total| {
        let _ = messages.blocking_send(Ok(proto::ListFlowsResponse { flows, total }));
    };
    let mut total = 0;
    let result = match order {
        Some((order, most)) => {
            let mut first = FirstFlows::new(order, most);
            let result = tables.each(&mut |flow| {
                if filter.wants(flow) {
                    first.offer(*flow);
                }
            });
            total = first.offered;
            for flows in first.into_sorted().chunks(BATCH) {
                send(
                    flows.iter().map(|flow| message(flow, naming)).collect(),
                    None,
                );
            }
            result
        }
        None => {
            let mut batch = Vec::new();
            let result = tables.each(&mut |flow| {
                if !filter.wants(flow) || messages.is_closed() {
                    return;
                }
                total += 1;
                batch.push(message(flow, naming));
                if batch.len() == BATCH {
                    send(std::mem::take(&mut batch), None);
                }
            });
            send(batch, None);
            result
        }
    };
    match result {
        Ok(()) => send(Vec::new(), Some(total)),
        Err(error) => drop(messages.blocking_send(Err(failed(&error)))),
    }
}

/// Counts the flows that are asked for. Blocks.
///
/// # Errors
///
/// A table that cannot be read.
pub(super) fn count(
    tables: &Arc<dyn FlowReader>,
    filter: &FlowFilter,
    naming: &Naming,
) -> Result<proto::CountFlowsResponse, Status> {
    let mut counts = FlowCounts::default();
    tables
        .each(&mut |flow| {
            if filter.wants(flow) {
                counts.add(flow);
            }
        })
        .map_err(|error| failed(&error))?;
    // Several ids may be the same backend, at different times.
    let mut named: BTreeMap<_, u64> = BTreeMap::new();
    for (id, protocol, state, flows) in counts.iter() {
        let name = naming.backend(id);
        let service = name.map(|name| name.service);
        let backend = name.map(|name| name.address);
        *named
            .entry((service, backend, protocol, state as u8, state.name()))
            .or_default() += flows;
    }
    let counts = named
        .into_iter()
        .map(
            |((service, backend, protocol, _, state), flows)| proto::FlowCount {
                service: service.map(str::to_owned),
                backend: backend.map(|address| address.to_string()),
                protocol: protocol_name(protocol),
                state: state.into(),
                flows,
            },
        )
        .collect();
    Ok(proto::CountFlowsResponse { counts })
}

fn failed(error: &KernelError) -> Status {
    Status::internal(error.to_string())
}

fn message(flow: &Flow, naming: &Naming) -> proto::Flow {
    let name = naming.backend(flow.backend_id);
    proto::Flow {
        protocol: protocol_name(flow.protocol),
        client: flow.client.to_string(),
        vip: flow.vip.to_string(),
        source: flow.source.to_string(),
        backend: flow.backend.to_string(),
        state: flow.state.name().into(),
        idle_ms: u64::try_from(flow.idle.as_millis()).unwrap_or(u64::MAX),
        service: name.map(|name| name.service.to_owned()),
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        IPPROTO_TCP => "tcp".into(),
        IPPROTO_UDP => "udp".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named() {
        let empty = proto::FlowFilter::default;
        assert_eq!(conditions(&empty()), Ok(FlowFilter::default()));
        let good = conditions(&proto::FlowFilter {
            backend: Some("[2001:db8::1]:80".into()),
            state: Some("half_open".into()),
            ..empty()
        });
        assert_eq!(good.unwrap().backend.unwrap().1, Some(80));
        let rows = [
            (
                proto::FlowFilter {
                    backend: Some("here".into()),
                    ..empty()
                },
                "`here` is no address",
            ),
            (
                proto::FlowFilter {
                    client: Some("1.2.3.4/40".into()),
                    ..empty()
                },
                "`1.2.3.4/40`",
            ),
            (
                proto::FlowFilter {
                    state: Some("open".into()),
                    ..empty()
                },
                "no state `open`; there are half_open, answered",
            ),
            (
                proto::FlowFilter {
                    protocol: Some("icmp".into()),
                    ..empty()
                },
                "there are tcp, udp",
            ),
        ];
        for (bad, expected) in rows {
            let error = conditions(&bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let order = |limit, sort: &str| {
            order(&proto::ListFlowsRequest {
                limit,
                sort: sort.into(),
                filter: None,
            })
        };
        assert_eq!(order(0, ""), Ok(None));
        assert_eq!(order(5, ""), Ok(Some((FlowOrder::Client, 5))));
        assert_eq!(order(5, "idle"), Ok(Some((FlowOrder::Idle, 5))));
        assert!(order(0, "idle").is_err());
        assert!(order(MOST + 1, "idle").is_err());
        let error = order(5, "age").unwrap_err().to_string();
        assert!(
            error.contains("no order `age`; there are client, backend"),
            "{error}"
        );
    }
}
