//! Addresses of VIPs: whose echo requests the programs answer, and whose link address they tell.

use std::{collections::HashMap, net::IpAddr};

use aya::maps::MapError;
use lb_common::entry::{AddressKey, vip_flags};

use super::{Datapath, encode};
use crate::domain::kernel::{KernelError, KernelView};

impl Datapath {
    /// Has echo requests answered for the VIPs of `view`, and for no other address; announces those
    /// that are to be.
    pub(super) fn write_vips(&mut self, view: &KernelView) -> Result<(), KernelError> {
        let announced = self.announced(view);
        let flags = |address: &IpAddr| match announced.contains(address) {
            true => vip_flags::ANNOUNCED,
            false => 0,
        };
        let wanted: HashMap<AddressKey, u32> = view
            .vips
            .keys()
            .map(|key| key.address.ip())
            .map(|address| (encode::address_key(address), flags(&address)))
            .collect();
        let written: HashMap<AddressKey, u32> = self
            .vips
            .iter()
            .collect::<Result<_, MapError>>()
            .map_err(vips_error)?;
        for key in written.keys().filter(|key| !wanted.contains_key(key)) {
            self.vips.remove(key).map_err(vips_error)?;
        }
        for (key, flags) in &wanted {
            if written.get(key) != Some(flags) {
                self.vips.insert(key, flags, 0).map_err(vips_error)?;
            }
        }
        self.announce(&announced);
        Ok(())
    }
}

fn vips_error(error: MapError) -> KernelError {
    KernelError::new("writing the addresses of the VIPs", error)
}
