//! Services that publish themselves: their instances carry `lb-vip` and the like in their meta, or tags
//! that ask for routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{
    backend::Instance,
    block::parse_prefix,
    gate::GateSpec,
    http::policy::HttpPolicy,
    service::{
        Affinity, Catalog, Forwarding, HealthPolicy, Origin, ProbeKind, ProbeSpec, Protocol,
        ServiceSpec, TlsSpec,
    },
    tag_route,
};

/// The meta entry that makes the difference.
pub const VIP: &str = "lb-vip";

/// The specification that the instances of a Consul service ask for; `None`: they ask for nothing.
///
/// The first instance (by identity) that carries `lb-vip` speaks for all; where none does, the first
/// whose tags ask for routes, for a service without VIPs. `spoken` is the protocol in Consul's
/// service-defaults; what the meta says goes before it.
///
/// # Errors
///
/// What it asks for cannot be done; a sentence.
pub fn read<'a>(
    service: &str,
    spoken: Option<&str>,
    instances: impl IntoIterator<Item = &'a Instance>,
) -> Option<Result<ServiceSpec, String>> {
    let rank = |instance: &Instance| match instance.meta.contains_key(VIP) {
        true => Some(0),
        false => tag_route::any(&instance.tags).then_some(1),
    };
    let ranked = instances
        .into_iter()
        .filter_map(|instance| Some((rank(instance)?, &instance.id, instance)));
    let (rank, id, speaker) = ranked.min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)))?;
    let what = if rank == 0 { "meta" } else { "tags" };
    let origin = format!("consul {what} of {id}");
    let spec = specify(service, &speaker.meta, spoken, &origin);
    Some(spec.map_err(|reason| {
        format!("the service {service} in Consul is not published: {reason} ({origin})")
    }))
}

/// The specification of a service that the service-router of `router` leads to.
///
/// # Errors
///
/// It cannot be served under its name; a sentence.
pub fn destination(
    service: &str,
    spoken: Option<&str>,
    router: &str,
) -> Result<ServiceSpec, String> {
    let origin = format!("service-router of {router} in Consul");
    let spec = specify(service, &BTreeMap::new(), spoken, &origin);
    let mut spec = spec.map_err(|reason| {
        format!("routes to the service {service} lead nowhere: {reason} ({origin})")
    })?;
    spec.http = Arc::new(HttpPolicy {
        only_routed: true,
        ..HttpPolicy::default()
    });
    Ok(spec)
}

fn specify(
    service: &str,
    meta: &BTreeMap<String, String>,
    spoken: Option<&str>,
    origin: &str,
) -> Result<ServiceSpec, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !(1..=63).contains(&service.len()) || !service.chars().all(fits) {
        return Err("its name is not of 1 to 63 letters, digits, `_`, `.` or `-`".into());
    }
    let health = |key: &String| key.strip_prefix("lb-health-").map(str::to_owned);
    let unknown = meta.keys().filter_map(health);
    if let Some(key) = unknown
        .into_iter()
        .find(|key| !HEALTH_KEYS.contains(&key.as_str()))
    {
        let known = HEALTH_KEYS.join(", ");
        return Err(format!(
            "`lb-health-{key}` means nothing; there are {known}"
        ));
    }
    let vips = match meta.get(VIP) {
        Some(text) => vips(text)?,
        None => Vec::new(),
    };
    let protocol = protocol(meta, spoken, vips.is_empty())?;
    let forwarding = forwarding(meta.get("lb-forwarding").map(String::as_str), &vips)?;
    if protocol.is_proxied() && forwarding.keeps_port() {
        return Err(format!(
            "lb-forwarding is `{}`, with which backends answer clients themselves, but those of a \
             service that speaks {protocol} speak to the proxy; lb-protocol = tcp has connections balanced",
            forwarding.name()
        ));
    }
    Ok(ServiceSpec {
        name: service.to_owned(),
        protocol,
        forwarding,
        affinity: match meta.get("lb-affinity").map(String::as_str) {
            None | Some("connection") => Affinity::Connection,
            Some("client") if protocol.is_proxied() => {
                return Err(format!(
                    "lb-affinity is about connections, but of a service that speaks {protocol} each \
                     request is balanced"
                ));
            }
            Some("client") => Affinity::Client,
            Some(other) => {
                return Err(format!(
                    "lb-affinity is `{other}`; it must be connection or client"
                ));
            }
        },
        allow: match meta.get("lb-allow") {
            None => None,
            Some(text) => Some(allow(text, &vips)?),
        },
        vips,
        catalog: Catalog::Consul {
            service: service.to_owned(),
            datacenter: None,
        },
        subsets: BTreeMap::new(),
        split: None,
        probe: probe(meta)?,
        gate: GateSpec::default(),
        health: HealthPolicy::default(),
        http: Default::default(),
        origin: Origin {
            file: PathBuf::from(origin),
            line: 0,
        },
    })
}

/// What it speaks: as its meta says, else Consul's service-defaults (`spoken`). Without a VIP there is
/// nothing but the proxy.
fn protocol(
    meta: &BTreeMap<String, String>,
    spoken: Option<&str>,
    only_routes: bool,
) -> Result<Protocol, String> {
    let of_defaults = match spoken {
        Some("http" | "http2") => Protocol::Http,
        Some("grpc") => Protocol::Grpc,
        _ if only_routes => Protocol::Http,
        _ => Protocol::Tcp,
    };
    match meta.get("lb-protocol").map(String::as_str) {
        None => Ok(of_defaults),
        Some("http") => Ok(Protocol::Http),
        Some("grpc") => Ok(Protocol::Grpc),
        Some(other @ ("tcp" | "udp")) if only_routes => Err(format!(
            "lb-protocol is `{other}`, but routes are about requests, and there is no {VIP} for \
             connections"
        )),
        Some("tcp") => Ok(Protocol::Tcp),
        Some("udp") => Ok(Protocol::Udp),
        Some(other) => Err(format!(
            "lb-protocol is `{other}`; it must be tcp, udp, http or grpc"
        )),
    }
}

fn forwarding(text: Option<&str>, vips: &[SocketAddr]) -> Result<Forwarding, String> {
    let text = text.unwrap_or(Forwarding::Nat.name());
    let all = [Forwarding::Nat, Forwarding::DsrL2, Forwarding::DsrIpip];
    let Some(found) = all.into_iter().find(|one| one.name() == text) else {
        let names = all.map(Forwarding::name).join(", ");
        return Err(format!(
            "lb-forwarding is `{text}`; it must be one of {names}"
        ));
    };
    let ports: BTreeSet<u16> = vips.iter().map(SocketAddr::port).collect();
    if found.keeps_port() && ports.len() > 1 {
        return Err(format!(
            "lb-forwarding is `{text}`, which cannot translate ports, so all of {VIP} need the same"
        ));
    }
    Ok(found)
}

/// The source ranges that may connect: of each family that there are VIPs of.
fn allow(text: &str, vips: &[SocketAddr]) -> Result<BTreeSet<IpNet>, String> {
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    let prefixes: Result<BTreeSet<IpNet>, _> = words.map(parse_prefix).collect();
    let prefixes = prefixes.map_err(|error| format!("lb-allow: {error}"))?;
    for vip in vips {
        let mut same = prefixes.iter().map(|prefix| prefix.addr().is_ipv6());
        if !same.any(|v6| v6 == vip.is_ipv6()) {
            return Err(format!(
                "lb-allow names no clients that could reach {vip}; leave it out to let all"
            ));
        }
    }
    Ok(prefixes)
}

/// What may follow `lb-health-`.
const HEALTH_KEYS: [&str; 12] = [
    "kind", "path", "host", "status", "body", "service", "tls", "port", "interval", "timeout",
    "rise", "fall",
];

fn vips(text: &str) -> Result<Vec<SocketAddr>, String> {
    let mut vips = Vec::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let vip: SocketAddr = word
            .parse()
            .map_err(|_| format!("`{word}` in {VIP} is not of the form ADDRESS:PORT"))?;
        let ip = vip.ip().to_canonical();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || vip.port() == 0 {
            return Err(format!(
                "{vip} in {VIP} is no address that clients can send to"
            ));
        }
        vips.push(SocketAddr::new(ip, vip.port()));
    }
    vips.sort_unstable();
    vips.dedup();
    match vips.is_empty() {
        true => Err(format!("{VIP} is empty")),
        false => Ok(vips),
    }
}

fn probe(meta: &BTreeMap<String, String>) -> Result<Option<ProbeSpec>, String> {
    let get = |key: &str| meta.get(&format!("lb-health-{key}")).map(String::as_str);
    let number = |key: &str, min: u32, max: u32| match get(key) {
        None => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(value) if (min..=max).contains(&value) => Ok(Some(value)),
            _ => Err(format!(
                "lb-health-{key} is `{text}`; it must be a whole number from {min} to {max}"
            )),
        },
    };
    let time = |key: &str| match get(key) {
        None => Ok(None),
        Some(text) => match humantime::parse_duration(text) {
            Ok(time) if (SHORTEST..=LONGEST).contains(&time) => Ok(Some(time)),
            _ => Err(format!(
                "lb-health-{key} is `{text}`; it must be a time from 50ms to 1h, as in 2s"
            )),
        },
    };
    let kind = match get("kind") {
        // Any other entry alone says that there should be a probe.
        None if !HEALTH_KEYS.iter().any(|key| get(key).is_some()) => return Ok(None),
        Some("none") => return Ok(None),
        None if get("path").is_some() => "http",
        None => "tcp",
        Some(kind) => kind,
    };
    let defaults = ProbeSpec::default();
    let interval = time("interval")?.unwrap_or(defaults.interval);
    let timeout = time("timeout")?.unwrap_or(defaults.timeout.min(interval));
    if timeout > interval {
        return Err("lb-health-timeout is longer than lb-health-interval".into());
    }
    let port = number("port", 1, u32::from(u16::MAX))?;
    Ok(Some(ProbeSpec {
        kind: asked(kind, &get)?,
        interval,
        timeout,
        rise: number("rise", 1, 100)?.unwrap_or(defaults.rise),
        fall: number("fall", 1, 100)?.unwrap_or(defaults.fall),
        port: port.and_then(|port| u16::try_from(port).ok()),
    }))
}

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(3600);

/// What a probe of a kind asks; `get` knows the entries.
fn asked<'a>(kind: &str, get: &dyn Fn(&str) -> Option<&'a str>) -> Result<ProbeKind, String> {
    let own: &[&str] = match kind {
        "tcp" => &[],
        "http" => &["path", "host", "status", "body", "tls"],
        "grpc" => &["service", "host", "tls"],
        other => {
            return Err(format!(
                "lb-health-kind is `{other}`; it must be tcp, http, grpc or none"
            ));
        }
    };
    let of_others = ["path", "host", "status", "body", "service", "tls"];
    let foreign = |key: &&&str| !own.contains(key) && get(key).is_some();
    if let Some(key) = of_others.iter().find(foreign) {
        return Err(format!(
            "lb-health-{key} means nothing to a probe of kind {kind}"
        ));
    }
    let host = get("host");
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if let Some(host) = host
        && (host.is_empty() || !host.chars().all(is_host))
    {
        return Err(format!("lb-health-host is `{host}`, which is no host"));
    }
    let host = host.map(str::to_owned);
    let tls = match get("tls") {
        None | Some("false") => None,
        Some("true") => Some(TlsSpec::default()),
        Some(other) => {
            return Err(format!(
                "lb-health-tls is `{other}`; it must be true or false"
            ));
        }
    };
    Ok(match kind {
        "http" => ProbeKind::Http {
            path: path(get("path").unwrap_or("/"))?,
            host,
            status: statuses(get("status").unwrap_or("200-399"))?,
            body: body(get("body"))?,
            tls,
        },
        "grpc" => ProbeKind::Grpc {
            service: get("service").unwrap_or_default().to_owned(),
            host,
            tls,
        },
        _ => ProbeKind::Tcp,
    })
}

fn path(path: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_graphic() && c != '#';
    match path.starts_with('/') && path.chars().all(fits) {
        true => Ok(path.to_owned()),
        false => Err(format!(
            "lb-health-path is `{path}`, which is no path of a request"
        )),
    }
}

/// `200-299,401`.
fn statuses(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let range = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range = first.trim().parse().ok().zip(last.trim().parse().ok());
        range.filter(|(first, last)| 100 <= *first && first <= last && *last <= 599)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    ranges
        .ok_or_else(|| format!("lb-health-status is `{text}`; it must be as in 200 or 200-299,401"))
}

fn body(text: Option<&str>) -> Result<Option<String>, String> {
    match text {
        Some("") => Err("lb-health-body is empty: no answer lacks that".into()),
        text => Ok(text.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests;
