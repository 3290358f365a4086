//! `X-Forwarded-*` and `Forwarded` (RFC 7239): who asked for what, as backends are told.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry, FORWARDED},
};

use super::texts::Texts;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The hop from the client.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The client's address.
    pub client: SocketAddr,
    /// Where it connected to.
    pub listener: SocketAddr,
    /// Over TLS.
    pub tls: bool,
    /// `Host`; it has been checked.
    pub host: &'a str,
    /// What it says of the hops before is believed.
    pub trusted: bool,
}

/// Adds the hop to the headers. What a client that is not trusted has written there is removed, and
/// so is all else that it says as if it were a proxy.
pub fn add(headers: &mut HeaderMap, hop: Hop<'_>, texts: &mut Texts) {
    if !hop.trusted {
        remove(headers, is_other);
    }
    let proto = if hop.tls { "https" } else { "http" };
    let text = texts.room(160);
    let client = write_element(text, proto, hop);
    let element = text.len();
    write_number(text, hop.listener.port());
    let text = texts.take();

    let piece = |range| HeaderValue::from_maybe_shared(text.slice(range)).ok();
    extend(headers, FOR, piece(client), hop.trusted);
    first(headers, PROTO, HeaderValue::from_static(proto), hop.trusted);
    let host = match headers.get(header::HOST) {
        Some(named) if named.as_bytes() == hop.host.as_bytes() => Some(named.clone()),
        _ => HeaderValue::from_str(hop.host).ok(),
    };
    match host.filter(|host| !host.is_empty()) {
        Some(host) => first(headers, HOST, host, hop.trusted),
        None if hop.trusted => {}
        None => {
            headers.remove(HOST);
        }
    }
    if let Some(port) = piece(element..text.len()) {
        first(headers, PORT, port, hop.trusted);
    }
    extend(headers, FORWARDED, piece(0..element), hop.trusted);
}

/// Removes what tells of the way of a request from behind its body, where nobody of ours has written it
/// and some backends take it for a header.
pub fn remove_from_trailers(trailers: &mut HeaderMap) {
    remove(trailers, tells);
}

fn remove(headers: &mut HeaderMap, unwanted: fn(&HeaderName) -> bool) {
    let unwanted = headers.keys().filter(|name| unwanted(name));
    for name in unwanted.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Whether a name tells of the way of a request, also to a backend that hands headers on as variables
/// of its environment (RFC 3875, section 4.1.18), where `_` and `-` are the same.
fn tells(name: &HeaderName) -> bool {
    let text = name.as_str().replace('_', "-");
    text.starts_with("x-forwarded-")
        || text.starts_with("x-b3-")
        || [FORWARDED.as_str(), REAL_IP.as_str()].contains(&&*text)
        || ["x-request-id", "traceparent", "tracestate", "b3"].contains(&&*text)
}

/// `X-Forwarded-Prefix`, `X-Forwarded-Ssl` and what more of these there are, `X-Real-IP`, by which
/// others tell the client, and all that tells of the way in another spelling.
fn is_other(name: &HeaderName) -> bool {
    let text = name.as_str();
    let forwarded = text.starts_with("x-forwarded-");
    forwarded && ![FOR, PROTO, HOST, PORT].contains(name)
        || *name == REAL_IP
        || text.starts_with('x') && text.contains('_') && tells(name)
}

/// The hop as an element of `Forwarded` (RFC 7239, section 4). Answers with where in it the client's
/// address stands alone.
fn write_element(text: &mut BytesMut, proto: &str, hop: Hop<'_>) -> Range<usize> {
    let ip = hop.client.ip().to_canonical();
    let (before, behind): (&[u8], &[u8]) = match ip {
        IpAddr::V4(_) => (b"for=", b";"),
        IpAddr::V6(_) => (b"for=\"[", b"]\";"),
    };
    text.extend_from_slice(before);
    let client = text.len();
    write_ip(text, ip);
    let client = client..text.len();
    text.extend_from_slice(behind);
    if !hop.host.is_empty() {
        let plain = hop
            .host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
        let quote: &[u8] = if plain { b"" } else { b"\"" };
        for part in [b"host=", quote, hop.host.as_bytes(), quote, b";"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"proto=");
    text.extend_from_slice(proto.as_bytes());
    client
}

fn write_ip(text: &mut BytesMut, ip: IpAddr) {
    let IpAddr::V4(v4) = ip else {
        let _ = write!(text, "{ip}");
        return;
    };
    for (place, octet) in v4.octets().into_iter().enumerate() {
        if place > 0 {
            text.put_u8(b'.');
        }
        write_number(text, octet.into());
    }
}

/// The machinery of formatting costs more than a few digits.
fn write_number(text: &mut BytesMut, number: u16) {
    for power in [10_000, 1000, 100, 10] {
        if number >= power {
            text.put_u8(b'0' + (number / power % 10) as u8);
        }
    }
    text.put_u8(b'0' + (number % 10) as u8);
}

/// Writes `value` behind what the hops before have written.
fn extend(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>, trusted: bool) {
    let Some(value) = value else { return };
    let mut all = Vec::new();
    if trusted {
        let before = headers.get_all(&name).iter();
        for one in before.filter(|one| one.to_str().is_ok_and(|one| !one.is_empty())) {
            all.extend_from_slice(one.as_bytes());
            all.extend_from_slice(b", ");
        }
    }
    if all.is_empty() {
        headers.insert(name, value);
        return;
    }
    all.extend_from_slice(value.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(all)) {
        headers.insert(name, value);
    }
}

/// Writes `value`, unless the hop that met the client itself has.
fn first(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue, trusted: bool) {
    match headers.entry(name) {
        Entry::Occupied(_) if trusted => {}
        Entry::Occupied(mut held) => {
            held.insert(value);
        }
        Entry::Vacant(free) => {
            free.insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
    ];

    #[test]
    fn addresses_as_they_are_written_elsewhere() {
        for ip in ["0.0.0.0", "9.10.99.100", "255.199.200.1", "fd00::1"] {
            let mut text = BytesMut::new();
            write_ip(&mut text, ip.parse().unwrap());
            assert_eq!(text, ip.as_bytes());
        }
        for number in [0, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 65_535] {
            let mut text = BytesMut::new();
            write_number(&mut text, number);
            assert_eq!(text, number.to_string().as_bytes());
        }
    }

    #[test]
    fn others_are_believed_from_trusted_peers_only() {
        for trusted in [false, true] {
            let mut headers = HeaderMap::new();
            for name in [
                "x-forwarded-prefix",
                "x-forwarded-ssl",
                "x-real-ip",
                "x-forward",
                "x_forwarded_for",
                "x-forwarded_proto",
                "x_real_ip",
                "x_forward",
            ] {
                headers.insert(name, HeaderValue::from_static("on"));
            }
            let hop = Hop {
                client: "10.0.0.1:5".parse().unwrap(),
                listener: "10.0.0.2:80".parse().unwrap(),
                tls: false,
                host: "a",
                trusted,
            };
            add(&mut headers, hop, &mut Texts::default());
            assert_eq!(headers.contains_key("x-forwarded-prefix"), trusted);
            assert_eq!(headers.contains_key("x-forwarded-ssl"), trusted);
            assert_eq!(headers.contains_key("x-real-ip"), trusted);
            // Names that become the same variable for a backend.
            for name in ["x_forwarded_for", "x-forwarded_proto", "x_real_ip"] {
                assert_eq!(headers.contains_key(name), trusted, "{name}");
            }
            assert!(headers.contains_key("x-forward") && headers.contains_key("x_forward"));
        }
    }

    #[test]
    fn appended_from_trusted_peers_only() {
        let before = ["9.9.9.9", "https", "evil", "1", "for=9.9.9.9"];
        for (client, host, trusted, expected) in [
            (
                "10.0.0.1:5",
                "a.b",
                false,
                [
                    "10.0.0.1",
                    "http",
                    "a.b",
                    "8080",
                    "for=10.0.0.1;host=a.b;proto=http",
                ],
            ),
            (
                "[::ffff:10.0.0.1]:5",
                "a:81",
                false,
                [
                    "10.0.0.1",
                    "http",
                    "a:81",
                    "8080",
                    "for=10.0.0.1;host=\"a:81\";proto=http",
                ],
            ),
            (
                "[fd00::1]:5",
                "",
                true,
                [
                    "9.9.9.9, fd00::1",
                    "https",
                    "evil",
                    "1",
                    "for=9.9.9.9, for=\"[fd00::1]\";proto=http",
                ],
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in NAMES.into_iter().zip(before) {
                headers.insert(name, HeaderValue::from_static(value));
            }
            let hop = Hop {
                client: client.parse().unwrap(),
                listener: "10.0.0.2:8080".parse().unwrap(),
                tls: false,
                host,
                trusted,
            };
            add(&mut headers, hop, &mut Texts::default());
            for (name, expected) in NAMES.into_iter().zip(expected) {
                assert_eq!(headers[name], expected, "{name} of {client}");
            }
        }
    }
}
