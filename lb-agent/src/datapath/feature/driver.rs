//! Drivers by whose interfaces frames come that a local stack has sent.

use super::{
    super::loader::{Mode, Options},
    ethtool::Ethtool,
};

/// Driver of virtual cables.
const VETH: &str = "veth";
/// Driver of taps, behind which machines are, and tuns.
const TAP: &str = "tun";

/// Whether frames may come to XDP whose sender has left the transport checksum to the device: by a
/// veth from its other end, by a tap from a machine, and by any interface where the kernel's buffers are
/// taken for frames.
pub(in super::super) fn may_be_pending(options: &Options) -> bool {
    let mut drivers = options.interfaces.iter().filter_map(|name| of(name));
    options.mode == Mode::Generic || drivers.any(|driver| has_local_stack(&driver))
}

/// Whether the interface has a local stack at its other end, so that tc does there what XDP would
/// only hand over to it.
///
/// What such a stack sends leaves its checksum to a device, which XDP has none to leave to. A veth copies
/// each packet of it first (`veth_convert_skb_to_xdp_buff` in drivers/net/veth.c: a sender of TCP keeps
/// the buffer for repetition), and on a tap a frame has no room for the mark that brings it to tc
/// before Linux 6.15.
pub(in super::super) fn is_for_tc(interface: &str) -> bool {
    of(interface).is_some_and(|driver| has_local_stack(&driver))
}

/// Whether interfaces of this driver have a local stack at their other end.
pub(crate) fn has_local_stack(driver: &str) -> bool {
    [VETH, TAP].contains(&driver)
}

/// An interface's driver; `None`: there is no such interface, or it does not tell.
fn of(interface: &str) -> Option<String> {
    let asked = Ethtool::open().and_then(|ethtool| ethtool.driver(interface));
    asked.ok()
}
