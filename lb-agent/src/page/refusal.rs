//! What is refused, as HTTP says it: the codes and sentences of the socket.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tonic::Code;

use super::look::answer;
use crate::controller::OperatorError;

/// Longer sentences, which may name every service there is, are cut.
const LONGEST: usize = 500;

/// Why a request is not carried out: a sentence for people.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// A header that goes with it.
    header: Option<(header::HeaderName, HeaderValue)>,
}

impl Refusal {
    /// With the code that goes with `status`.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
            StatusCode::FORBIDDEN => "PERMISSION_DENIED",
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
            StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
            StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
            status if status.is_client_error() => "INVALID_ARGUMENT",
            _ => "INTERNAL",
        };
        Self {
            status,
            code,
            message: message.into(),
            header: None,
        }
    }

    /// The sentence.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Nobody has shown who they are.
    pub(super) fn unauthenticated(message: &str) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"lb-agent\"");
        Self {
            header: Some((header::WWW_AUTHENTICATE, challenge)),
            ..Self::new(StatusCode::UNAUTHORIZED, message)
        }
    }

    /// Too many wrong tokens.
    pub(super) fn locked_out(wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let message = format!("too many wrong tokens from this address; try again in {seconds} s");
        Self {
            header: Some((header::RETRY_AFTER, seconds.into())),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }
}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        let (http, code) = match status.code() {
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Code::FailedPrecondition => (StatusCode::CONFLICT, "FAILED_PRECONDITION"),
            Code::Aborted => (StatusCode::CONFLICT, "ABORTED"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        Self {
            code,
            ..Self::new(http, status.message())
        }
    }
}

impl From<OperatorError> for Refusal {
    fn from(error: OperatorError) -> Self {
        tonic::Status::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message = match self.message.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &self.message[..end]),
            None => self.message,
        };
        let body = json!({ "error": { "code": self.code, "message": message } });
        let mut response = answer(self.status, &body);
        response.headers_mut().extend(self.header);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_controller_have_a_status() {
        let rows = [
            (
                OperatorError::UnknownService {
                    name: "x".into(),
                    known: vec![],
                },
                404,
                "NOT_FOUND",
            ),
            (
                OperatorError::Refused("latched".into()),
                409,
                "FAILED_PRECONDITION",
            ),
            (OperatorError::Failed("disk".into()), 500, "INTERNAL"),
            (OperatorError::ShuttingDown, 503, "UNAVAILABLE"),
        ];
        for (error, status, code) in rows {
            let sentence = error.to_string();
            let refusal = Refusal::from(error);
            assert_eq!(refusal.status.as_u16(), status, "{sentence}");
            assert_eq!(refusal.code, code, "{sentence}");
            assert_eq!(refusal.message, sentence);
        }
    }
}
