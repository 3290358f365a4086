//! Why a try has no answer, and what follows from that.

use http::StatusCode;

use super::{answer::Refusal, replay::BodyError, upstream::ConnectError};
use crate::domain::http::{
    exchange::{NoAnswer, Outcome},
    head::InvalidAnswer,
    retry::Failure,
};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Cause {
    Connect(ConnectError),
    Broke,
    /// The backend of HTTP/2 says that it has not looked at the request, which was the first time for
    /// the request: its stream, or all of its connection, was at its end as it may be.
    Unseen,
    /// Another answered.
    Cancelled,
    /// One try has had its time.
    Slow,
    /// All tries together have.
    Late,
    /// Nothing of the request came for too long.
    Idle,
    Full,
    Body(BodyError),
    Head,
    /// There is one that must not be passed on.
    Answer(InvalidAnswer),
}

/// A failed try.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    /// Some of the request may have reached the backend.
    pub(super) begun: bool,
}

impl Failed {
    /// As the rules of retries know it; `None`: no other backend could do better.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self.cause {
            Cause::Connect(_) => Some(Failure::Connect),
            Cause::Broke | Cause::Answer(_) => Some(Failure::Broke),
            Cause::Slow => Some(Failure::Slow),
            Cause::Full => Some(Failure::Connect),
            Cause::Cancelled
            | Cause::Unseen
            | Cause::Late
            | Cause::Idle
            | Cause::Body(_)
            | Cause::Head => None,
        }
    }

    /// The backend has not looked at the request, as where its connection is at its end (GOAWAY of RFC 9113,
    /// section 6.8, or REFUSED_STREAM): the same one may be asked anew.
    pub(super) fn is_unseen(&self) -> bool {
        matches!(self.cause, Cause::Broke | Cause::Unseen) && !self.begun
    }

    /// For the record.
    pub(super) fn describe(&self) -> NoAnswer {
        let (kind, text) = match &self.cause {
            Cause::Connect(error) => (error.kind(), error.to_string()),
            Cause::Broke => ("broke", "the connection broke before an answer".into()),
            Cause::Unseen => ("unseen", "the backend did not look at the request".into()),
            Cause::Slow | Cause::Late => ("timeout", "no answer in time".into()),
            Cause::Cancelled => ("cancelled", "another answered first".into()),
            Cause::Idle => ("idle", "nothing of the request came for too long".into()),
            Cause::Full => (
                "overloaded",
                "too many requests wait for a connection".into(),
            ),
            Cause::Body(error) => ("request_body", error.to_string()),
            Cause::Answer(invalid) => ("answer_head", invalid.to_string()),
            Cause::Head => ("request_head", "the request cannot be passed on".into()),
        };
        NoAnswer { kind, text }
    }

    /// What the client is told, if it stays at that.
    pub(super) fn refusal(&self) -> Refusal {
        let (status, outcome) = match &self.cause {
            Cause::Connect(ConnectError::TimedOut) => {
                (StatusCode::GATEWAY_TIMEOUT, Outcome::BackendFailed)
            }
            // Nothing was sent: the client may well come again.
            Cause::Connect(ConnectError::Refused | ConnectError::Other(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, Outcome::BackendFailed)
            }
            Cause::Connect(_) | Cause::Broke | Cause::Unseen | Cause::Answer(_) => {
                (StatusCode::BAD_GATEWAY, Outcome::BackendFailed)
            }
            Cause::Slow | Cause::Late | Cause::Cancelled => {
                (StatusCode::GATEWAY_TIMEOUT, Outcome::TimedOut)
            }
            Cause::Idle => (StatusCode::REQUEST_TIMEOUT, Outcome::Idle),
            Cause::Full => (StatusCode::SERVICE_UNAVAILABLE, Outcome::Overloaded),
            Cause::Body(BodyError::TooLong) => (StatusCode::PAYLOAD_TOO_LARGE, Outcome::BadRequest),
            Cause::Body(BodyError::Client) => (StatusCode::BAD_REQUEST, Outcome::ClientGone),
            Cause::Body(BodyError::Gone) => (StatusCode::BAD_GATEWAY, Outcome::BackendFailed),
            Cause::Head => (StatusCode::BAD_REQUEST, Outcome::BadRequest),
        };
        Refusal::new(status, outcome, self.describe().text)
    }
}
