//! The engine between real sockets.

mod balancing;
mod forwarding;
mod http2;
mod resilience;
mod rig;
