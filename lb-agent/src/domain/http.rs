//! What the proxy decides of requests: pure, like everything of the domain.

pub mod budget;
pub mod ewma;
pub mod exchange;
pub mod forwarded;
pub mod framing;
pub mod grpc;
pub mod head;
pub mod hop;
pub mod pick;
mod plain_path;
pub mod policy;
pub mod rate;
pub mod request_id;
pub mod retry;
pub mod routing;
pub mod steering;
pub mod texts;
pub mod trace_context;

#[cfg(test)]
mod mutated;
