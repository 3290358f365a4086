//! Addresses of VIPs: whose echo requests the programs answer, and whose link address they tell.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

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
        let written = self.held_vips()?;
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

    fn held_vips(&self) -> Result<HashMap<AddressKey, u32>, KernelError> {
        let held = self.vips.iter().collect::<Result<_, MapError>>();
        held.map_err(vips_error)
    }

    /// Whether the map has other addresses than those of the VIPs of `view`.
    pub(super) fn differs_in_vips(&self, view: &KernelView) -> Result<bool, KernelError> {
        let held = self.held_vips()?;
        let wanted: HashSet<AddressKey> = view
            .vips
            .keys()
            .map(|key| encode::address_key(key.address.ip()))
            .collect();
        Ok(held.len() != wanted.len() || held.keys().any(|key| !wanted.contains(key)))
    }
}

fn vips_error(error: MapError) -> KernelError {
    KernelError::new("writing the addresses of the VIPs", error)
}
