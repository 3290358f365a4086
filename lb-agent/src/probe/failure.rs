//! The ways a probe can fail, in words for people and as labels for metrics.

use std::{error::Error, io, time::Duration};

/// Why a probe did not succeed. Its text becomes the reason of an unhealthy backend.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeFailure {
    /// The whole probe did not end in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// No way to the host, by the word of this node or a router.
    #[error("{0}")]
    Unreachable(&'static str),
    /// The connection was reset.
    #[error("connection reset")]
    Reset,
    /// The connection ended before the answer did.
    #[error("connection closed before an answer")]
    Closed,
    /// The answer is not HTTP/1, or its header is too large.
    #[error("the answer is not valid HTTP/1")]
    NotHttp,
    /// An HTTP status outside the range.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The body does not contain what it has to.
    #[error("the answer's body does not contain {0:?}")]
    Body(String),
    /// TLS was not agreed on: a certificate that is not trusted, most likely.
    #[error("TLS: {0}")]
    Tls(String),
    /// A gRPC server that is up and does not serve.
    #[error("gRPC health is {0}")]
    NotServing(String),
    /// Another answer than one about health.
    #[error("gRPC: {0}")]
    Grpc(String),
    /// Another error of the connection.
    #[error("{0}")]
    Connection(#[source] io::Error),
    /// The request cannot be built from the spec. Says nothing of the backend.
    #[error("the probe's path or host makes no valid HTTP request: {0}")]
    Request(#[source] hyper::http::Error),
    /// The files that the spec names for TLS cannot be used. Says nothing of the backend.
    #[error("the probe's certificates cannot be used: {0}")]
    TlsFiles(String),
    /// This node lacks what a connection takes: descriptors, ports, memory. Says nothing of the
    /// backend.
    #[error("this node cannot open a connection: {0}")]
    Local(#[source] io::Error),
    /// The probe itself broke off; a defect of the agent. Says nothing of the backend.
    #[error("the probe broke off: {0}")]
    Aborted(#[source] tokio::task::JoinError),
}

impl ProbeFailure {
    /// The name of each kind, as a label; the position is [`Self::index`].
    pub(super) const NAMES: [&str; 16] = [
        "timeout",
        "refused",
        "unreachable",
        "reset",
        "closed",
        "not_http",
        "status",
        "connection_error",
        "invalid_request",
        "local_error",
        "aborted",
        "body",
        "tls",
        "not_serving",
        "grpc_error",
        "invalid_certificates",
    ];

    /// Position of this kind in [`Self::NAMES`].
    pub(super) fn index(&self) -> usize {
        match self {
            ProbeFailure::Timeout(_) => 0,
            ProbeFailure::Refused => 1,
            ProbeFailure::Unreachable(_) => 2,
            ProbeFailure::Reset => 3,
            ProbeFailure::Closed => 4,
            ProbeFailure::NotHttp => 5,
            ProbeFailure::Status(_) => 6,
            ProbeFailure::Connection(_) => 7,
            ProbeFailure::Request(_) => 8,
            ProbeFailure::Local(_) => 9,
            ProbeFailure::Aborted(_) => 10,
            ProbeFailure::Body(_) => 11,
            ProbeFailure::Tls(_) => 12,
            ProbeFailure::NotServing(_) => 13,
            ProbeFailure::Grpc(_) => 14,
            ProbeFailure::TlsFiles(_) => 15,
        }
    }

    /// Whether the failure tells anything of the backend. One that does not must not count
    /// against it: an agent out of descriptors would else take every backend out at once.
    pub(super) fn blames_backend(&self) -> bool {
        !matches!(
            self,
            ProbeFailure::Request(_)
                | ProbeFailure::TlsFiles(_)
                | ProbeFailure::Local(_)
                | ProbeFailure::Aborted(_)
        )
    }

    /// Whether the backend was there to answer, be it with a refusal of what was asked.
    pub(super) fn is_answer(&self) -> bool {
        matches!(
            self,
            ProbeFailure::Status(_)
                | ProbeFailure::Body(_)
                | ProbeFailure::NotHttp
                | ProbeFailure::Tls(_)
                | ProbeFailure::NotServing(_)
                | ProbeFailure::Grpc(_)
        )
    }

    /// From an error of a socket that was opened for `timeout` at most.
    pub(super) fn from_io(error: io::Error, timeout: Duration) -> Self {
        // Not all of these have an `ErrorKind`.
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                return Self::Local(error);
            }
            Some(libc::EADDRNOTAVAIL) => return Self::Local(error),
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut => Self::Timeout(timeout),
            io::ErrorKind::HostUnreachable => Self::Unreachable("host unreachable"),
            io::ErrorKind::NetworkUnreachable => Self::Unreachable("network unreachable"),
            _ => Self::Connection(error),
        }
    }

    /// From an error of the HTTP client, whose cause may be the socket's.
    pub(super) fn from_hyper(error: &hyper::Error, timeout: Duration) -> Self {
        if error.is_parse() {
            return Self::NotHttp;
        }
        Self::from_cause(error, timeout)
    }

    /// From an error of a client over a connection: what the connection met, if the error's causes
    /// tell, else that it ended.
    pub(super) fn from_cause(error: &dyn Error, timeout: Duration) -> Self {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                // What TLS has to say once hands are shaken: a certificate that is asked for.
                let tls = io.get_ref().and_then(|tls| tls.downcast_ref());
                if let Some(tls) = tls {
                    let tls: &rustls::Error = tls;
                    return Self::Tls(tls.to_string());
                }
                // An error of the operating system is known by its number; others by their kind.
                let copy = match io.raw_os_error() {
                    Some(number) => io::Error::from_raw_os_error(number),
                    None => io::Error::from(io.kind()),
                };
                return Self::from_io(copy, timeout);
            }
            cause = inner.source();
        }
        // What is left is a connection that ended: before, amid or instead of the answer.
        Self::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors of the operating system, the words for them, the label, and who is to blame.
    #[test]
    fn errors_of_the_system() {
        let rows = [
            (libc::ECONNREFUSED, "connection refused", "refused", true),
            (libc::ECONNRESET, "connection reset", "reset", true),
            (libc::EPIPE, "connection reset", "reset", true),
            (libc::EHOSTUNREACH, "host unreachable", "unreachable", true),
            (
                libc::ENETUNREACH,
                "network unreachable",
                "unreachable",
                true,
            ),
            (libc::ETIMEDOUT, "no answer within 1s", "timeout", true),
            (libc::EACCES, "Permission denied", "connection_error", true),
            (
                libc::EMFILE,
                "this node cannot open a connection: Too many open files",
                "local_error",
                false,
            ),
            (
                libc::EADDRNOTAVAIL,
                "this node cannot open a connection: Cannot assign requested address",
                "local_error",
                false,
            ),
        ];
        for (number, words, label, blames_backend) in rows {
            let error = io::Error::from_raw_os_error(number);
            let failure = ProbeFailure::from_io(error, Duration::from_secs(1));
            assert!(failure.to_string().starts_with(words), "{failure}");
            assert_eq!(ProbeFailure::NAMES[failure.index()], label);
            assert_eq!(failure.blames_backend(), blames_backend, "{failure}");
        }
    }
}
