//! The engine between real sockets.

mod admission;
mod balancing;
mod calls_cut;
mod doubts;
mod forwarding;
mod hedges;
mod http2;
mod innocence;
mod passing;
mod pauses;
mod refusals;
mod resilience;
pub(in crate::proxy) mod rig;
mod routes;
mod upgrades;
mod warming;
