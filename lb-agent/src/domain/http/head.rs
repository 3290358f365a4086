//! What the head of a request or an answer must be like, beyond what the parser insists on.

mod answer;

use http::{
    HeaderMap, Method, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
};

pub use self::answer::{InvalidAnswer, check_answer};

/// Why a request is refused before anybody asks where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHead {
    /// RFC 9112, section 3.2.
    #[error("more than one Host")]
    SeveralHosts,
    /// The same.
    #[error("no Host")]
    NoHost,
    /// The same, or RFC 3986, section 3.2.
    #[error("Host is not one")]
    Host,
    /// RFC 9113, section 8.3.1.
    #[error("Host is not :authority")]
    OtherHost,
    /// RFC 9112, section 6.1: what smuggling begins with.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// The same: nobody but us takes codings off.
    #[error("a transfer coding other than chunked")]
    Coding,
    /// RFC 9112, section 3.2: a path, an absolute `http` or `https` URI, or `*` for OPTIONS.
    #[error("the target of the request is not one")]
    Target,
    /// Nobody tunnels through this proxy, and nobody is shown what it tells backends of its clients.
    #[error("CONNECT and TRACE are not served")]
    Method,
}

impl InvalidHead {
    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Checks a head, and answers with the host that the request is for: that of an absolute target
/// or `:authority`, else of `Host` (RFC 9112, section 3.2.2). Empty where HTTP/1.0 names none.
///
/// # Errors
///
/// What is wrong with it.
pub fn check<'a>(
    method: &Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
) -> Result<&'a str, InvalidHead> {
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(InvalidHead::Method);
    }
    let plain = match uri.scheme_str() {
        Some(scheme) => scheme == "http" || scheme == "https",
        None => uri.authority().is_none(),
    };
    if !plain || uri.path() == "*" && method != Method::OPTIONS {
        return Err(InvalidHead::Target);
    }
    if let Some(coding) = headers.get(TRANSFER_ENCODING) {
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(InvalidHead::TwoLengths);
        }
        let alone = headers.get_all(TRANSFER_ENCODING).iter().count() == 1;
        if !alone || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(InvalidHead::Coding);
        }
    }
    let mut hosts = headers.get_all(HOST).iter();
    let named = hosts.next();
    if hosts.next().is_some() {
        return Err(InvalidHead::SeveralHosts);
    }
    let named = match named {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| InvalidHead::Host)?),
    };
    if named.is_some_and(|host| !is_authority(host)) {
        return Err(InvalidHead::Host);
    }
    let host = uri.authority().map(|authority| authority.as_str());
    // HTTP/1.1 ignores it beside an absolute target; HTTP/2 has both say the same (RFC 9113,
    // section 8.3.1).
    if version == Version::HTTP_2
        && let (Some(host), Some(named)) = (host, named)
        && !host.eq_ignore_ascii_case(named)
    {
        return Err(InvalidHead::OtherHost);
    }
    match host.or(named) {
        Some(host) if is_authority(host) => Ok(host),
        Some(_) => Err(InvalidHead::Host),
        None if version == Version::HTTP_10 => Ok(""),
        None => Err(InvalidHead::NoHost),
    }
}

/// A host and perhaps a port, without user information (RFC 9110, section 4.2.4).
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let port = port.is_empty() || port.len() <= 5 && port.parse::<u16>().is_ok();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(is_of_name),
    };
    port && name
}

/// `reg-name` of RFC 3986, section 3.2.2.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn heads() {
        use InvalidHead::{Coding, Host, Method, NoHost, SeveralHosts, Target, TwoLengths};
        // (method, target, HTTP/1.0, headers) → host
        type Row = (
            &'static str,
            &'static str,
            bool,
            &'static [(&'static str, &'static str)],
            Result<&'static str, InvalidHead>,
        );
        let rows: &[Row] = &[
            ("GET", "/", false, &[("host", "a")], Ok("a")),
            ("GET", "/", false, &[("host", "a:80")], Ok("a:80")),
            ("GET", "/", false, &[("host", "[::1]:80")], Ok("[::1]:80")),
            ("GET", "/", false, &[("host", "[::1]")], Ok("[::1]")),
            ("GET", "http://b:1/x", false, &[("host", "a")], Ok("b:1")),
            ("GET", "http://b/x", false, &[], Ok("b")),
            ("GET", "/", false, &[], Err(NoHost)),
            ("GET", "/", true, &[], Ok("")),
            (
                "GET",
                "/",
                false,
                &[("host", "a"), ("host", "a")],
                Err(SeveralHosts),
            ),
            ("GET", "/", false, &[("host", "")], Err(Host)),
            ("GET", "/", false, &[("host", "a b")], Err(Host)),
            ("GET", "/", false, &[("host", "a/b")], Err(Host)),
            ("GET", "/", false, &[("host", "u@a")], Err(Host)),
            ("GET", "/", false, &[("host", "a:http")], Err(Host)),
            ("GET", "/", false, &[("host", "a:70000")], Err(Host)),
            ("GET", "/", false, &[("host", "[::1")], Err(Host)),
            ("GET", "/", false, &[("host", "[x]")], Err(Host)),
            ("GET", "http://b/", false, &[("host", "a b")], Err(Host)),
            ("CONNECT", "a:443", false, &[("host", "a")], Err(Method)),
            ("TRACE", "/", false, &[("host", "a")], Err(Method)),
            ("OPTIONS", "*", false, &[("host", "a")], Ok("a")),
            ("GET", "*", false, &[("host", "a")], Err(Target)),
            ("GET", "a:80", false, &[("host", "a")], Err(Target)),
            ("GET", "ftp://a/", false, &[("host", "a")], Err(Target)),
            ("GET", "https://b", false, &[("host", "a")], Ok("b")),
            (
                "POST",
                "/",
                false,
                &[
                    ("host", "a"),
                    ("content-length", "3"),
                    ("transfer-encoding", "chunked"),
                ],
                Err(TwoLengths),
            ),
            (
                "POST",
                "/",
                false,
                &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
                Err(Coding),
            ),
            (
                "POST",
                "/",
                false,
                &[
                    ("host", "a"),
                    ("transfer-encoding", "gzip"),
                    ("transfer-encoding", "chunked"),
                ],
                Err(Coding),
            ),
            (
                "POST",
                "/",
                false,
                &[("host", "a"), ("transfer-encoding", "Chunked")],
                Ok("a"),
            ),
        ];
        for (method, target, old, fields, expected) in rows {
            let mut request = http::Request::builder().method(*method).uri(*target);
            for (name, value) in *fields {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let version = if *old {
                Version::HTTP_10
            } else {
                Version::HTTP_11
            };
            let found = check(&head.method, &head.uri, version, &head.headers);
            assert_eq!(found, *expected, "{method} {target} {fields:?}");
        }
    }

    #[test]
    fn one_host_is_named_twice_alike() {
        use InvalidHead::{OtherHost, SeveralHosts};
        // (HTTP/2, hosts) beside the authority `a:80` → host
        for (version, hosts, expected) in [
            (Version::HTTP_2, &["a:80"][..], Ok("a:80")),
            (Version::HTTP_2, &["A:80"], Ok("a:80")),
            (Version::HTTP_2, &["a"], Err(OtherHost)),
            (Version::HTTP_2, &["b"], Err(OtherHost)),
            (Version::HTTP_2, &["a:80", "a:80"], Err(SeveralHosts)),
            (Version::HTTP_11, &["b"], Ok("a:80")),
        ] {
            let uri = Uri::from_static("http://a:80/");
            let values = hosts.iter().map(|host| HeaderValue::from_static(host));
            let headers = values.map(|value| (HOST, value)).collect();
            let found = check(&Method::GET, &uri, version, &headers);
            assert_eq!(found, expected, "{version:?} {hosts:?}");
        }
    }
}
