//! The loaded programs, frame by frame: rows of {description, state, packet in, verdict, packet
//! out} through test run.
//!
//! [`World::run`](lb_tests::world::World::run) checks of every single frame that exactly one
//! verdict is counted, that the XDP action is the verdict's, and that what is not forwarded
//! leaves as it came.

mod adopted;
mod announce;
mod answers;
mod block;
mod blocklist;
mod chance;
mod clients;
mod decapsulate;
mod errors;
mod extensions;
mod flood;
mod flow_list;
mod foreign;
mod fragmented;
mod fuzz;
mod hops;
mod leaving;
mod life;
mod malformed;
mod memory;
mod oracle;
mod pending;
mod ports;
mod refused;
mod restart;
mod rewrite;
mod row;
mod server_return;
mod table;
mod tags;
mod taken_off;
mod trace;
mod trace_limits;
mod traffic;
mod verifier;
