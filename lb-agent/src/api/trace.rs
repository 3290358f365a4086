//! The stream of single packets: from request to filter, from event to message, until a limit is
//! reached or somebody goes away.

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use lb_common::{IPPROTO_TCP, IPPROTO_UDP, flow::tcp_flags, trace::TRACE_SNAP, verdict::Action};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{input::InvalidRequest, naming::Naming, proto};
use crate::{
    domain::{
        block::parse_prefix,
        trace::{
            Ends, IPPROTO_ICMP, IPPROTO_ICMPV6, PacketEvent, PacketFilter, PacketProtocol,
            VerdictSet,
        },
    },
    watch::Watcher,
};

/// Packets in one message.
const BATCH: usize = 256;
/// Longest time that can be asked for, and what no limit comes to.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Packets a second and CPU, unless the request says otherwise.
const RATE: u32 = 10_000;
/// How often what is lost is told while nothing else is.
const PULSE: Duration = Duration::from_secs(1);

/// When a trace ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Packets.
    pub(super) count: u64,
    pub(super) duration: Duration,
}

/// Reads a request.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(
    request: &proto::TraceRequest,
) -> Result<(PacketFilter, Limits), InvalidRequest> {
    let prefix = |text: &Option<String>| text.as_deref().map(parse_prefix).transpose();
    let one = |error| InvalidRequest::Prefixes(vec![error]);
    let src = prefix(&request.src).map_err(one)?;
    let dst = prefix(&request.dst).map_err(one)?;
    if let (Some(src), Some(dst)) = (src, dst)
        && src.addr().is_ipv4() != dst.addr().is_ipv4()
    {
        return Err(InvalidRequest::MixedFamilies(src, dst));
    }
    let verdicts = if request.verdicts.is_empty() {
        VerdictSet::all()
    } else {
        VerdictSet::named(request.verdicts.iter().map(String::as_str))?
    };
    let protocol = match request.protocol.as_deref() {
        None => None,
        Some(name) => Some(
            PacketProtocol::ALL
                .into_iter()
                .find(|protocol| protocol.name() == name)
                .ok_or_else(|| {
                    InvalidRequest::unknown("protocol", name, &["tcp", "udp", "icmp"])
                })?,
        ),
    };
    let port = match request.port {
        None => None,
        Some(port) => match u16::try_from(port) {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(InvalidRequest::Port(port)),
        },
    };
    if request.snap as usize > TRACE_SNAP {
        return Err(InvalidRequest::Snap(request.snap));
    }
    let filter = PacketFilter {
        src,
        dst,
        verdicts,
        protocol,
        port,
        snap: request.snap as u16,
        rate: if request.rate == 0 {
            RATE
        } else {
            request.rate
        },
    };
    let limits = Limits {
        count: if request.count == 0 {
            u64::MAX
        } else {
            request.count
        },
        duration: match request.duration_ms {
            0 => LONGEST,
            millis => Duration::from_millis(millis).min(LONGEST),
        },
    };
    Ok((filter, limits))
}

/// Sends what the watcher sees until a limit is reached, the receiver is gone, or the agent ends.
pub(super) async fn send(
    mut watcher: Watcher,
    mut naming: Naming,
    limits: Limits,
    messages: mpsc::Sender<Result<proto::TraceResponse, Status>>,
) {
    let end = tokio::time::sleep_until(Instant::now() + limits.duration);
    tokio::pin!(end);
    let mut pulse = tokio::time::interval(PULSE);
    let mut interfaces = HashMap::new();
    let mut left = limits.count;
    // Empty: the trace has begun.
    if messages
        .send(Ok(proto::TraceResponse::default()))
        .await
        .is_err()
    {
        return;
    }
    while left > 0 {
        let most = BATCH.min(usize::try_from(left).unwrap_or(BATCH));
        let (events, over) = tokio::select! {
            events = watcher.next(most) => {
                if events.is_empty() {
                    let gone = Status::unavailable("the agent is shutting down");
                    let _ = messages.send(Err(gone)).await;
                    return;
                }
                (events, false)
            }
            () = &mut end => (Vec::new(), true),
            _ = pulse.tick() => (Vec::new(), false),
            () = messages.closed() => return,
        };
        left -= events.len() as u64;
        if let Err(error) = naming
            .renew(events.iter().filter_map(|event| event.backend))
            .await
        {
            let _ = messages.send(Err(error.into())).await;
            return;
        }
        let response = proto::TraceResponse {
            events: events
                .into_iter()
                .map(|event| message(event, &naming, &mut interfaces))
                .collect(),
            lost: watcher.lost(),
        };
        if messages.send(Ok(response)).await.is_err() || over {
            return;
        }
    }
}

fn message(
    event: PacketEvent,
    naming: &Naming,
    interfaces: &mut HashMap<u32, String>,
) -> proto::PacketEvent {
    let backend = event.backend.and_then(|id| naming.backend(id));
    let by_vip = || naming.vip(event.ends?.dst, event.protocol?);
    let service = backend.map(|backend| backend.service).or_else(by_vip);
    let action = event.verdict.action();
    let text = |address: std::net::SocketAddr| match event.has_ports {
        true => address.to_string(),
        false => address.ip().to_string(),
    };
    let sent = event.sent.filter(|_| action == Action::Forward);
    let both = |ends: Option<Ends>| {
        (
            ends.map(|ends| text(ends.src)),
            ends.map(|ends| text(ends.dst)),
        )
    };
    let (src, dst) = both(event.ends);
    let (sent_src, sent_dst) = both(sent);
    let is_icmp = matches!(event.protocol, Some(IPPROTO_ICMP | IPPROTO_ICMPV6));
    let since_1970 = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    proto::PacketEvent {
        time_unix_ns: i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX),
        action: action.name().into(),
        verdict: event.verdict.name().into(),
        reason: event.verdict.help().trim().into(),
        interface: interface(event.ingress, interfaces),
        length: event.length,
        ethertype: event.ethertype.into(),
        protocol: event.protocol.map(protocol),
        src,
        dst,
        sent_src,
        sent_dst,
        service: service.map(str::to_owned),
        backend: backend.map(|backend| backend.address.to_string()),
        backend_id: backend.and_then(|backend| backend.id).map(str::to_owned),
        tcp_flags: (event.protocol == Some(IPPROTO_TCP) && event.has_ports)
            .then(|| flags(event.flags)),
        icmp_type: is_icmp.then(|| event.icmp[0].into()),
        icmp_code: is_icmp.then(|| event.icmp[1].into()),
        fragment: event.fragment,
        frame: event.bytes,
    }
}

fn interface(index: u32, known: &mut HashMap<u32, String>) -> String {
    let name = || {
        nix::net::if_::if_indextoname(index)
            .ok()?
            .into_string()
            .ok()
    };
    let entry = known.entry(index);
    entry
        .or_insert_with(|| name().unwrap_or_else(|| index.to_string()))
        .clone()
}

fn protocol(number: u8) -> String {
    match number {
        IPPROTO_TCP => "tcp".into(),
        IPPROTO_UDP => "udp".into(),
        IPPROTO_ICMP => "icmp".into(),
        IPPROTO_ICMPV6 => "icmpv6".into(),
        other => other.to_string(),
    }
}

/// The flags of RFC 9293, section 3.1, that are set; `none` where none is.
fn flags(bits: u8) -> String {
    let names = [
        (tcp_flags::SYN, "SYN"),
        (tcp_flags::FIN, "FIN"),
        (tcp_flags::RST, "RST"),
        (0x08, "PSH"),
        (tcp_flags::ACK, "ACK"),
        (0x20, "URG"),
    ];
    let set: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "none".into()
    } else {
        set.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_bounds_and_faults_are_named() {
        let good = proto::TraceRequest {
            src: Some("10.0.0.1".into()),
            dst: Some("198.51.100.0/24".into()),
            verdicts: vec!["blocked".into(), "pass".into()],
            protocol: Some("icmp".into()),
            port: Some(65_535),
            snap: 256,
            ..Default::default()
        };
        let (filter, limits) = parse(&good).unwrap();
        assert_eq!(filter.src.unwrap().to_string(), "10.0.0.1/32");
        assert_eq!((filter.rate, filter.snap), (RATE, 256));
        assert_eq!(limits.count, u64::MAX);
        assert_eq!(limits.duration, LONGEST);
        let change = |f: &dyn Fn(&mut proto::TraceRequest)| {
            let mut bad = good.clone();
            f(&mut bad);
            parse(&bad).unwrap_err().to_string()
        };
        let rows = [
            (
                change(&|r| r.src = Some("10.0.0.1/33".into())),
                "`10.0.0.1/33` is neither",
            ),
            (
                change(&|r| r.dst = Some("::1".into())),
                "different address families",
            ),
            (
                change(&|r| r.verdicts.push("x".into())),
                "no verdict `x`; there are drop (blocked",
            ),
            (
                change(&|r| r.protocol = Some("sctp".into())),
                "no protocol `sctp`; there are tcp, udp, icmp",
            ),
            (change(&|r| r.port = Some(0)), "port 0"),
            (change(&|r| r.port = Some(70_000)), "port 70000"),
            (change(&|r| r.snap = 257), "at most 256"),
        ];
        for (error, expected) in rows {
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn flags_are_spelled_out() {
        assert_eq!(flags(0x12), "SYN,ACK");
        assert_eq!(flags(0), "none");
    }
}
