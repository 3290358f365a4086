//! The front between real sockets: patient and hostile clients on one side, made-up backends on
//! the other.

mod bounds;
mod crew;
mod gone;
mod last;
mod rig;
mod slow;
mod stops;
mod unread;
mod versions;
