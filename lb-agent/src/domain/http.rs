//! What the proxy decides of requests: pure, like everything of the domain.

pub mod exchange;
pub mod policy;
pub mod request_id;
pub mod trace_context;
