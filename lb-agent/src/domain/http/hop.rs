//! Headers of one hop (RFC 9110, section 7.6.1): they end here, in both directions.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what is meant for one hop, all that `Connection` lists with it. Answers with the
/// protocol that an upgrade is asked for or granted to.
pub fn remove(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut upgrade = None;
    if headers.contains_key(CONNECTION) {
        let (listed, upgrades) = listed(headers);
        if upgrades {
            upgrade = headers.get(UPGRADE).cloned();
        }
        for name in listed {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    headers.remove(UPGRADE);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if let Some(te) = headers.remove(TE)
        && has_trailers(&te)
    {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// The headers that `Connection` names, and whether `upgrade` is among them. Those that frame or
/// address the message are none of one hop, whoever names them; `TE` has a rule of its own.
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
            && ![HOST, CONTENT_LENGTH, TE].contains(&name)
        {
            names.push(name);
        }
    }
    (names, upgrades)
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
                &[
                    ("connection", "keep-alive, Upgrade"),
                    ("upgrade", "websocket"),
                ],
                &[],
                Some("websocket"),
            ),
            (&[("upgrade", "websocket")], &[], None),
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
}
