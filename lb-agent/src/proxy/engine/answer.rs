//! Answers of the proxy's own: short texts, and for gRPC a status (gRPC over HTTP/2,
//! "Responses", Trailers-Only).

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};

use http_body::Body as _;

use super::body::EngineBody;
use crate::domain::http::exchange::Outcome;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The `grpc-status` of calls that nobody served.
pub(super) const UNAVAILABLE: u32 = 14;

/// What ends a call whose answer has begun.
pub(super) fn grpc_trailers(code: u32, reason: &impl std::fmt::Display) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, code.into());
    if let Ok(message) = HeaderValue::from_str(&reason.to_string()) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

/// Why the proxy answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) outcome: Outcome,
    /// For the client; it names nothing that only the node knows.
    pub(super) reason: String,
}

/// The same to HEAD: hyper leaves a body out over HTTP/1 only.
pub(super) fn without_body(answer: Response<EngineBody>) -> Response<EngineBody> {
    let length = answer.body().size_hint().exact();
    let mut answer = answer.map(|_| EngineBody::empty());
    if let Some(length @ 1..) = length {
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    answer
}

impl Refusal {
    pub(super) fn new(status: StatusCode, outcome: Outcome, reason: impl Into<String>) -> Self {
        Self {
            status,
            outcome,
            reason: reason.into(),
        }
    }

    pub(super) fn too_many_headers(allowed: usize) -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(
            status,
            Outcome::BadRequest,
            format!("more than {allowed} headers"),
        )
    }

    /// The code of gRPC that says the same.
    pub(super) fn grpc_code(&self) -> u32 {
        match (self.outcome, self.status) {
            (Outcome::TimedOut | Outcome::Idle, _) => 4,
            (_, StatusCode::PAYLOAD_TOO_LARGE) => 8,
            (Outcome::RateLimited | Outcome::Overloaded, _) => 8,
            (Outcome::Forbidden, _) => 7,
            (Outcome::NoRoute, _) => 12,
            (Outcome::BadRequest, _) => 13,
            _ => UNAVAILABLE,
        }
    }

    /// The answer over a version of HTTP. Over one connection for one request after another,
    /// whoever has said what must not be said is not heard further.
    pub(super) fn answer_over(&self, version: Version, grpc: bool) -> Response<EngineBody> {
        let mut response = self.answer(grpc);
        if self.outcome == Outcome::BadRequest && version < Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    pub(super) fn answer(&self, grpc: bool) -> Response<EngineBody> {
        if grpc {
            let mut response = Response::new(EngineBody::empty());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, self.grpc_code().into());
            if let Ok(message) = HeaderValue::from_str(&self.reason.replace('%', "%25")) {
                headers.insert(GRPC_MESSAGE, message);
            }
            return response;
        }
        let text = Bytes::from(format!("{}\n", self.reason));
        let mut response = Response::new(EngineBody::text(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, plain);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                let served =
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                headers.insert(ALLOW, served);
            }
            _ => {}
        }
        response
    }
}
