//! The engine between real sockets.

mod forwarding;
mod http2;
mod resilience;
mod rig;
