//! What the kernel holds of some services at one moment, as read from its maps.

use std::{collections::BTreeMap, net::IpAddr};

use crate::domain::kernel::{KernelBackend, KernelVip, VipKey};

/// What the kernel holds of some services at one moment, as read from its maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeldByKernel {
    /// By VIP; `None`: there is no such entry.
    pub vips: BTreeMap<VipKey, Option<HeldVip>>,
    /// By service id; `None`: there is no table.
    pub tables: BTreeMap<u32, Option<HeldTable>>,
    /// By backend id; `None`: there is no such entry.
    pub backends: BTreeMap<u32, Option<HeldBackend>>,
}

/// The entry of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldVip {
    /// What it says.
    pub vip: KernelVip,
    /// Its flags, as they stand there.
    pub flags: u32,
}

/// A Maglev table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldTable {
    /// Number of the kernel's map.
    pub map: u32,
    /// Slots in it.
    pub slots: u32,
    /// Slots of each backend id, counted.
    pub by_backend: BTreeMap<u32, u32>,
}

/// The entry of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldBackend {
    /// What it says.
    pub backend: KernelBackend,
    /// The address that the backend sees as the client.
    pub source: IpAddr,
    /// Interface that frames leave by; `None`: it is not known how to get there.
    pub interface: Option<String>,
    /// Link address that frames are sent to, as in `02:00:00:00:00:01`; `None`: the kernel finds it
    /// with the packet in hand, or the address is the node's own.
    pub mac: Option<String>,
    /// MTU of the interface.
    pub mtu: u32,
    /// The router that it is behind.
    pub router: Option<IpAddr>,
}
