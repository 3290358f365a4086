//! Headers of one hop (RFC 9110, section 7.6.1): they end here, in both directions.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::request_id;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// What scripts take for their environment's `HTTP_PROXY` (CVE-2016-5385); no header of HTTP.
const PROXY: HeaderName = HeaderName::from_static("proxy");
/// All of one hop, whatever `Connection` lists.
const ONE_HOP: [HeaderName; 9] = [
    CONNECTION,
    UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY,
    TRANSFER_ENCODING,
    TE,
];
/// Without meaning, or worse, behind a body (RFC 9110, section 6.5.1).
const NEVER_BEHIND: [HeaderName; 10] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TRAILER,
];

/// Removes what is meant for one hop, all that `Connection` lists with it. Answers with the
/// protocol that an upgrade is asked for or granted to.
pub fn remove(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // One pass over the names instead of a search for each.
    if !headers.keys().any(|name| ONE_HOP.contains(name)) {
        return None;
    }
    let mut upgrade = None;
    if headers.contains_key(CONNECTION) {
        let (listed, upgrades) = listed(headers);
        if upgrades {
            upgrade = headers.get(UPGRADE).filter(|to| !is_http(to)).cloned();
        }
        for name in listed {
            headers.remove(name);
        }
    }
    let trailers = headers.get(TE).is_some_and(has_trailers);
    for name in ONE_HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Removes from trailers what is meant for one hop, and what must not stand there.
pub fn remove_from_trailers(trailers: &mut HeaderMap) {
    remove(trailers);
    for name in NEVER_BEHIND {
        trailers.remove(name);
    }
}

/// The headers that `Connection` names, and whether `upgrade` is among them. Those that frame or
/// address the message are none of one hop, whoever names them, and neither is the request's id;
/// `TE` has a rule of its own.
fn listed(headers: &HeaderMap) -> (Vec<HeaderName>, bool) {
    let mut upgrades = false;
    let mut names = Vec::new();
    let values = headers.get_all(CONNECTION).iter();
    for token in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let token = token.trim();
        if token.eq_ignore_ascii_case("upgrade") {
            upgrades = true;
        } else if !token.eq_ignore_ascii_case("keep-alive")
            && !token.eq_ignore_ascii_case("close")
            && let Ok(name) = HeaderName::try_from(token)
            && ![HOST, CONTENT_LENGTH, TE, request_id::REQUEST_ID].contains(&name)
        {
            names.push(name);
        }
    }
    (names, upgrades)
}

/// Another version of HTTP: its requests would come past everything that looks at requests.
fn is_http(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().split(|byte| *byte == b',').any(|one| {
        let name = one.split(|byte| *byte == b'/').next().unwrap_or_default();
        let name = name.trim_ascii();
        [&b"h2c"[..], b"h2", b"http"]
            .iter()
            .any(|http| name.eq_ignore_ascii_case(http))
    })
}

fn has_trailers(te: &HeaderValue) -> bool {
    let te = te.as_bytes();
    te.split(|byte| *byte == b',')
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_kept() {
        // headers → what is left, and the upgrade
        for (given, left, upgrade) in [
            (
                &[("a", "1"), ("host", "h")][..],
                &[("a", "1"), ("host", "h")][..],
                None,
            ),
            (
                &[("connection", "close"), ("keep-alive", "x"), ("a", "1")],
                &[("a", "1")],
                None,
            ),
            (
                &[("connection", "A, b"), ("a", "1"), ("b", "2"), ("c", "3")],
                &[("c", "3")],
                None,
            ),
            (
                &[
                    ("connection", "a"),
                    ("connection", "b"),
                    ("a", "1"),
                    ("b", "2"),
                ],
                &[],
                None,
            ),
            (
                &[("connection", "host, content-length"), ("host", "h")],
                &[("host", "h")],
                None,
            ),
            (
                &[("proxy-connection", "x"), ("transfer-encoding", "chunked")],
                &[],
                None,
            ),
            (&[("te", "gzip;q=1, Trailers")], &[("te", "trailers")], None),
            (
                &[("te", "trailers"), ("connection", "te")],
                &[("te", "trailers")],
                None,
            ),
            (&[("te", "gzip")], &[], None),
            (
                &[("connection", "x-request-id"), ("x-request-id", "1")],
                &[("x-request-id", "1")],
                None,
            ),
            (
                &[
                    ("proxy-authorization", "x"),
                    ("proxy-authenticate", "x"),
                    ("proxy", "x"),
                    ("authorization", "x"),
                ],
                &[("authorization", "x")],
                None,
            ),
            (
                &[
                    ("connection", "keep-alive, Upgrade"),
                    ("upgrade", "websocket"),
                ],
                &[],
                Some("websocket"),
            ),
            (&[("upgrade", "websocket")], &[], None),
            (
                &[
                    ("connection", "Upgrade, HTTP2-Settings"),
                    ("upgrade", "H2C"),
                    ("http2-settings", "x"),
                ],
                &[],
                None,
            ),
            (
                &[
                    ("connection", "upgrade"),
                    ("upgrade", "websocket, HTTP/2.0"),
                ],
                &[],
                None,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for &(name, value) in given {
                headers.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                );
            }
            let found = remove(&mut headers);
            assert_eq!(
                found.as_ref().map(|value| value.to_str().unwrap()),
                upgrade,
                "{given:?}"
            );
            let kept: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            assert_eq!(kept, left, "{given:?}");
        }
    }

    #[test]
    fn trailers_do_not_frame() {
        let mut trailers = HeaderMap::new();
        let rows = [
            "content-length",
            "host",
            "te",
            "connection",
            "x",
            "x-sum",
            "grpc-status",
        ];
        for name in rows {
            trailers.insert(name, HeaderValue::from_static("x"));
        }
        remove_from_trailers(&mut trailers);
        let left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-sum", "grpc-status"]);
    }
}
