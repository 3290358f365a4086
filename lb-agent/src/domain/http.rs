//! What the proxy decides of requests: pure, like everything of the domain.

pub mod exchange;
pub mod policy;
pub mod routing;
