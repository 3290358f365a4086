//! The head of a request as backends get it.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};

use http_body::Body as _;

use super::{replay::Outgoing, view::Backend};

/// The head, the same for every try.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    /// Without those of one hop, with those that tell of it.
    pub(super) headers: HeaderMap,
    /// The client's `Host`.
    pub(super) host: String,
    /// What the client asks to change to.
    pub(super) upgrade: Option<HeaderValue>,
}

impl Head {
    /// Readies the headers for the way on: the body goes when it is asked for, so the client is
    /// told to continue by that, and no backend need be asked first.
    pub(super) fn tidy(headers: &mut HeaderMap) {
        headers.remove(EXPECT);
        // HTTP/2 may send it in pieces, which HTTP/1.1 does not know (RFC 9113, section 8.2.3).
        let mut cookies = headers.get_all(COOKIE).iter();
        if cookies.next().is_some() && cookies.next().is_some() {
            let pieces: Vec<&[u8]> = headers
                .get_all(COOKIE)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
                headers.insert(COOKIE, whole);
            }
        }
    }

    /// The request for `backend`; `None`: it cannot be one.
    pub(super) fn request(&self, backend: &Backend, body: Outgoing) -> Option<Request<Outgoing>> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        let host: Cow<'_, str> = match &backend.upstream.host {
            Some(host) => host.as_str().into(),
            None if self.host.is_empty() => backend.address.to_string().into(),
            None => self.host.as_str().into(),
        };
        let mut headers = self.headers.clone();
        let mut uri = Uri::default().into_parts();
        uri.path_and_query = Some(self.path.clone());
        if backend.http2 {
            let tls = backend.upstream.tls.is_some();
            uri.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(Authority::try_from(&*host).ok()?);
            headers.remove(HOST);
            *request.version_mut() = Version::HTTP_2;
        } else {
            if headers
                .get(HOST)
                .is_none_or(|held| held.as_bytes() != host.as_bytes())
            {
                headers.insert(HOST, HeaderValue::from_str(&host).ok()?);
            }
            // Said in so many words, for of a GET hyper takes it that nobody means a body.
            if request.body().size_hint().exact().is_none() && !headers.contains_key(CONTENT_LENGTH)
            {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            if let Some(protocol) = &self.upgrade {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, protocol.clone());
            }
        }
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }
}
