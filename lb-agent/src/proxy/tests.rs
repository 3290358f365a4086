//! The proxy on the wire: bytes of a client in, bytes at a backend out, and the way back.

mod answers;
mod hops;
mod pace;
mod smuggling;
mod stage;
