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
    options.mode == Mode::Generic || drivers.any(|driver| [VETH, TAP].contains(&driver.as_str()))
}

/// Whether the interface is a tap. What comes there is mostly for tc, but before Linux 6.15 a frame has
/// no room for the mark that brings it there.
pub(in super::super) fn is_tap(interface: &str) -> bool {
    of(interface).as_deref() == Some(TAP)
}

/// An interface's driver; `None`: there is no such interface, or it does not tell.
fn of(interface: &str) -> Option<String> {
    let asked = Ethtool::open().and_then(|ethtool| ethtool.driver(interface));
    asked.ok()
}
