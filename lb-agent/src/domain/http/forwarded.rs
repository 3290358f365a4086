//! `X-Forwarded-*` and `Forwarded` (RFC 7239): who asked for what, as backends are told.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{Entry, FORWARDED},
};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

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

/// Adds the hop to the headers. What a client that is not trusted has written there is removed.
pub fn add(headers: &mut HeaderMap, hop: Hop<'_>) {
    let client = hop.client.ip().to_canonical();
    let proto = if hop.tls { "https" } else { "http" };
    let mut text = String::with_capacity(96);
    let _ = write!(text, "{client}");
    extend(headers, FOR, &text, hop.trusted);
    first(headers, PROTO, HeaderValue::from_static(proto), hop.trusted);
    if let Ok(host) = HeaderValue::from_str(hop.host)
        && !hop.host.is_empty()
    {
        first(headers, HOST, host, hop.trusted);
    } else if !hop.trusted {
        headers.remove(HOST);
    }
    let port = match hop.listener.port() {
        80 => HeaderValue::from_static("80"),
        443 => HeaderValue::from_static("443"),
        other => HeaderValue::from(other),
    };
    first(headers, PORT, port, hop.trusted);

    text.clear();
    let _ = match client {
        IpAddr::V4(client) => write!(text, "for={client};"),
        IpAddr::V6(client) => write!(text, "for=\"[{client}]\";"),
    };
    if !hop.host.is_empty() {
        let plain = hop
            .host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
        let _ = if plain {
            write!(text, "host={};", hop.host)
        } else {
            write!(text, "host=\"{}\";", hop.host)
        };
    }
    let _ = write!(text, "proto={proto}");
    extend(headers, FORWARDED, &text, hop.trusted);
}

/// Writes `value` behind what the hops before have written.
fn extend(headers: &mut HeaderMap, name: HeaderName, value: &str, trusted: bool) {
    let before = trusted.then(|| {
        let before = headers.get_all(&name).iter();
        let before: Vec<&str> = before.filter_map(|one| one.to_str().ok()).collect();
        before.join(", ")
    });
    let value = match before {
        Some(before) if !before.is_empty() => HeaderValue::try_from(format!("{before}, {value}")),
        _ => HeaderValue::from_str(value),
    };
    if let Ok(value) = value {
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
            add(&mut headers, hop);
            for (name, expected) in NAMES.into_iter().zip(expected) {
                assert_eq!(headers[name], expected, "{name} of {client}");
            }
        }
    }
}
