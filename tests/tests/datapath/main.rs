//! The loaded programs, frame by frame: rows of {description, state, packet in, verdict, packet
//! out} through test run.
//!
//! [`World::run`](lb_tests::world::World::run) checks of every single frame that exactly one
//! verdict is counted, that the XDP action is the verdict's, and that what is not forwarded
//! leaves as it came.

mod adopted;
mod answers;
mod block;
mod chance;
mod errors;
mod extensions;
mod flood;
mod foreign;
mod fragmented;
mod life;
mod malformed;
mod memory;
mod ports;
mod refused;
mod restart;
mod rewrite;
mod row;
mod table;
mod tags;
mod traffic;
