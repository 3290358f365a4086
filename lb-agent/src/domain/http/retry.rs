//! Whether a request that failed is tried again. Never, where it may have been acted on twice.

use http::Method;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about: nothing was sent.
    Connect,
    /// The connection ended, or its stream was reset, without an answer.
    Broke,
    /// No answer within the time of one try.
    Slow,
    /// An answer with this status.
    Status(u16),
    /// An answer that is nothing but this `grpc-status`.
    Grpc(u32),
}

/// A request at the moment of its failure.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// It may be repeated without harm (RFC 9110, section 9.2.2).
    pub idempotent: bool,
    /// Some of it may have reached the backend.
    pub begun: bool,
    /// All of its body that was taken from the client is at hand.
    pub replayable: bool,
}

/// What is tried again at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Connections that failed or broke, and slow answers.
    pub failures: bool,
    /// By status.
    pub status: Vec<u16>,
    /// By `grpc-status`.
    pub grpc: Vec<u32>,
}

impl Rules {
    /// Whether a failure tells that others had better be asked, and not only that time has passed.
    pub fn blame(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect | Failure::Broke => true,
            Failure::Slow => false,
            Failure::Status(status) => self.status.contains(&status),
            Failure::Grpc(code) => self.grpc.contains(&code),
        }
    }
}

/// Whether the request may be sent once more.
///
/// That an answer of nothing but a `grpc-status` in the rules means that the call was not acted on is
/// said by whoever names the code; therefore gRPC's calls, all of them POST, are sent again after it.
pub fn may_repeat(failure: Failure, sent: Sent, rules: &Rules) -> bool {
    let harmless = sent.idempotent || !sent.begun;
    sent.replayable
        && match failure {
            Failure::Connect | Failure::Broke | Failure::Slow => harmless && rules.failures,
            Failure::Status(status) => sent.idempotent && rules.status.contains(&status),
            Failure::Grpc(code) => rules.grpc.contains(&code),
        }
}

/// RFC 9110, section 9.2.2. Methods that nobody knows are none.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_twice_what_may_have_been_acted_on() {
        use Failure::{Broke, Connect, Grpc, Slow, Status};
        let rules = Rules {
            failures: true,
            status: vec![503],
            grpc: vec![14],
        };
        // (failure, idempotent, begun, replayable) → again
        for (failure, idempotent, begun, replayable, expected) in [
            (Connect, true, false, true, true),
            (Connect, false, false, true, true),
            (Connect, false, false, false, false),
            (Broke, true, true, true, true),
            (Broke, true, true, false, false),
            (Broke, false, true, true, false),
            (Broke, false, false, true, true),
            (Slow, true, true, true, true),
            (Slow, false, true, true, false),
            (Status(503), true, true, true, true),
            (Status(503), false, true, true, false),
            (Status(500), true, true, true, false),
            (Status(503), true, true, false, false),
            (Grpc(14), false, true, true, true),
            (Grpc(14), false, true, false, false),
            (Grpc(13), false, true, true, false),
        ] {
            let sent = Sent {
                idempotent,
                begun,
                replayable,
            };
            let found = may_repeat(failure, sent, &rules);
            assert_eq!(found, expected, "{failure:?} {sent:?}");
        }
        let none = Rules::default();
        let sent = Sent {
            idempotent: true,
            begun: false,
            replayable: true,
        };
        for failure in [Connect, Broke, Slow, Status(503), Grpc(14)] {
            assert!(!may_repeat(failure, sent, &none), "{failure:?}");
        }
    }

    #[test]
    fn methods() {
        for (method, expected) in [
            ("GET", true),
            ("HEAD", true),
            ("PUT", true),
            ("DELETE", true),
            ("OPTIONS", true),
            ("TRACE", true),
            ("POST", false),
            ("PATCH", false),
            ("CONNECT", false),
            ("BREW", false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(is_idempotent(&method), expected, "{method}");
        }
    }
}
