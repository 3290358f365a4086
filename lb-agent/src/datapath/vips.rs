//! Addresses of VIPs, whose echo requests the programs answer.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use aya::maps::MapError;
use lb_common::entry::AddressKey;

use super::{Datapath, encode};
use crate::domain::kernel::{KernelError, KernelView};

impl Datapath {
    /// Has echo requests answered for the VIPs of `view`, and for no other address.
    pub(super) fn write_vips(&mut self, view: &KernelView) -> Result<(), KernelError> {
        let addresses: BTreeSet<IpAddr> = view.vips.keys().map(|key| key.address.ip()).collect();
        let wanted: HashSet<AddressKey> = addresses.into_iter().map(encode::address_key).collect();
        let written: HashSet<AddressKey> = self
            .vips
            .keys()
            .collect::<Result<_, MapError>>()
            .map_err(vips_error)?;
        for key in written.difference(&wanted) {
            self.vips.remove(key).map_err(vips_error)?;
        }
        for key in wanted.difference(&written) {
            self.vips.insert(key, 0, 0).map_err(vips_error)?;
        }
        Ok(())
    }
}

fn vips_error(error: MapError) -> KernelError {
    KernelError::new("writing which VIPs answer echo requests", error)
}
