//! The engine between real sockets.

mod forwarding;
mod resilience;
mod rig;
