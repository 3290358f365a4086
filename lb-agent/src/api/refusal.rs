//! What is refused, as gRPC says it.

use tonic::{Code, Status};

use super::input::InvalidRequest;
use crate::{
    controller::OperatorError,
    domain::{
        shift::InvalidShift,
        snapshot::{ServiceState, Snapshot},
    },
    watch::WatchError,
};

impl From<WatchError> for Status {
    fn from(error: WatchError) -> Self {
        let code = match &error {
            WatchError::Busy => Code::FailedPrecondition,
            WatchError::Kernel(_) => Code::Internal,
            WatchError::ShuttingDown => Code::Unavailable,
        };
        Status::new(code, error.to_string())
    }
}

impl From<InvalidRequest> for Status {
    fn from(error: InvalidRequest) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

impl From<OperatorError> for Status {
    fn from(error: OperatorError) -> Self {
        let code = match &error {
            OperatorError::UnknownService { .. }
            | OperatorError::UnknownBackend { .. }
            | OperatorError::UnknownSubset { .. }
            | OperatorError::NotBlocked(_)
            | OperatorError::NotAllowed(_) => Code::NotFound,
            OperatorError::Shift(InvalidShift::Percent { .. } | InvalidShift::Every(_)) => {
                Code::InvalidArgument
            }
            OperatorError::Refused(_) | OperatorError::Shift(_) => Code::FailedPrecondition,
            OperatorError::Changed(_) => Code::Aborted,
            OperatorError::Failed(_) => Code::Internal,
            OperatorError::ShuttingDown => Code::Unavailable,
        };
        Status::new(code, error.to_string())
    }
}

/// The service of that name, or the error that says which ones there are.
pub(super) fn find<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Result<&'a ServiceState, OperatorError> {
    match snapshot.services.get(name) {
        Some(service) => Ok(service),
        None => Err(OperatorError::UnknownService {
            name: name.to_owned(),
            known: snapshot.services.keys().cloned().collect(),
        }),
    }
}

/// The one service that is asked for, or all.
pub(super) fn select<'a>(
    snapshot: &'a Snapshot,
    name: Option<&str>,
) -> Result<Vec<&'a ServiceState>, OperatorError> {
    match name {
        Some(name) => Ok(vec![find(snapshot, name)?]),
        None => Ok(snapshot.services.values().map(AsRef::as_ref).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every refusal of the controller has a code, and its sentence arrives unchanged.
    #[test]
    fn refusals_become_codes() {
        let rows = [
            (
                OperatorError::UnknownService {
                    name: "x".into(),
                    known: vec!["echo".into()],
                },
                Code::NotFound,
            ),
            (
                OperatorError::UnknownBackend {
                    service: "echo".into(),
                    name: "x".into(),
                },
                Code::NotFound,
            ),
            (
                OperatorError::UnknownSubset {
                    service: "echo".into(),
                    name: "x".into(),
                    known: vec![],
                },
                Code::NotFound,
            ),
            (
                OperatorError::NotBlocked("192.0.2.0/24".parse().unwrap()),
                Code::NotFound,
            ),
            (
                OperatorError::Refused("that would block you".into()),
                Code::FailedPrecondition,
            ),
            (
                InvalidShift::Every(Default::default()).into(),
                Code::InvalidArgument,
            ),
            (
                InvalidShift::Alone("v2".into()).into(),
                Code::FailedPrecondition,
            ),
            (OperatorError::Changed("1".into()), Code::Aborted),
            (OperatorError::Failed("disk full".into()), Code::Internal),
            (OperatorError::ShuttingDown, Code::Unavailable),
        ];
        for (error, code) in rows {
            let sentence = error.to_string();
            let status = Status::from(error);
            assert_eq!(status.code(), code, "{sentence}");
            assert_eq!(status.message(), sentence);
        }
    }
}
