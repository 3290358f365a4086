//! What is measured.

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// HTTP/1.1, many on a connection.
    KeptConnection,
    /// HTTP/1.1, each on a connection of its own.
    NewConnection,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC, unary.
    Grpc,
}

/// One kind of requests and answers.
#[derive(Debug)]
pub(crate) struct Case {
    /// The name in tables and files.
    pub(crate) name: &'static str,
    pub(crate) over: Over,
    /// Bytes of the answer's body; with gRPC of the message, in both directions.
    pub(crate) size: usize,
}

const fn case(name: &'static str, over: Over, size: usize) -> Case {
    Case { name, over, size }
}

/// All of them, in the order of the tables.
pub(crate) const CASES: [Case; 8] = [
    case("HTTP/1.1 kept, 1 KB", Over::KeptConnection, 1000),
    case("HTTP/1.1 kept, 100 KB", Over::KeptConnection, 100_000),
    case("HTTP/1.1 new connections, 1 KB", Over::NewConnection, 1000),
    case(
        "HTTP/1.1 new connections, 100 KB",
        Over::NewConnection,
        100_000,
    ),
    case("HTTP/2, 1 KB", Over::Http2, 1000),
    case("HTTP/2, 100 KB", Over::Http2, 100_000),
    case("gRPC unary, 1 KB", Over::Grpc, 1000),
    case("gRPC unary, 100 KB", Over::Grpc, 100_000),
];
