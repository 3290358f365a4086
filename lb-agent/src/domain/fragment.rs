//! Fragments that came before the first one of their packet, and the kernel's side of keeping them.

use std::{future::Future, net::IpAddr};

use super::kernel::KernelError;

/// What the fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketId {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it was sent to.
    pub destination: IpAddr,
    /// Identification, as it lies in the packet (network byte order).
    pub id: u32,
    /// IANA protocol number.
    pub protocol: u32,
}

/// A frame to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Early {
    /// Its packet.
    pub packet: PacketId,
    /// Interface that it came in by.
    pub ifindex: u32,
    /// All of it, from the link header on.
    pub frame: Vec<u8>,
}

/// The kernel's side. Implemented by `datapath`, and by a fake for tests.
pub trait Deposit: Send {
    /// Has the programs hand over early fragments until this is called again, or for some seconds; or
    /// no longer.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    fn switch(&mut self, on: bool) -> Result<(), KernelError>;

    /// Waits until there is something to drain.
    fn readable(&mut self) -> impl Future<Output = ()> + Send;

    /// Hands over what has come in; answers with how many found no room on the way.
    fn drain(&mut self, see: &mut dyn FnMut(Early)) -> u64;

    /// Whether the first fragment of a packet has come.
    fn has_first(&self, packet: &PacketId) -> bool;

    /// Gives a frame to the programs again, as if it came in by its interface.
    ///
    /// # Errors
    ///
    /// The kernel has no such means (before Linux 5.18), or the interface has gone.
    fn give_back(&self, early: &Early) -> Result<(), KernelError>;
}
