//! The engine between real sockets.

mod admission;
mod balancing;
mod forwarding;
mod http2;
mod resilience;
pub(in crate::proxy) mod rig;
