//! The proxy of requests: HTTP/1.1, HTTP/2 and gRPC.

pub mod telemetry;
