//! VIPs that this node holds for other nodes, which send it packets for them within another header.

use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use ipnet::IpNet;
use lb_common::{entry::AddressKey, maps::name, settings::decapsulate};

use super::{
    encode,
    loader::{self, Options},
};
use crate::domain::kernel::KernelError;

/// What the programs are told of it: [`decapsulate`].
pub(crate) fn bits(options: &Options) -> u32 {
    let mut bits = 0;
    if !options.decapsulate.is_empty() {
        bits |= decapsulate::ON;
    }
    if !options.decapsulate_from.is_empty() {
        bits |= decapsulate::FROM_SENDERS;
    }
    bits
}

/// Fills the maps, which are new, before the programs are attached.
pub(crate) fn fill(ebpf: &mut Ebpf, options: &Options) -> Result<(), KernelError> {
    let failed = |map: &'static str| {
        move |error: MapError| KernelError::new(format!("writing {map}"), error)
    };
    let mut vips: HashMap<&mut MapData, AddressKey, u32> = map(ebpf, name::HELD_VIPS)?;
    for vip in &options.decapsulate {
        let key = encode::address_key(*vip);
        vips.insert(key, 1, 0).map_err(failed(name::HELD_VIPS))?;
    }
    for prefix in &options.decapsulate_from {
        let (length, words) = (
            u32::from(prefix.prefix_len()),
            encode::words(prefix.network()),
        );
        match prefix {
            IpNet::V4(_) => {
                let mut senders: LpmTrie<&mut MapData, u32, u32> = map(ebpf, name::SENDERS4)?;
                senders
                    .insert(&Key::new(length, words[0]), 1, 0)
                    .map_err(failed(name::SENDERS4))?;
            }
            IpNet::V6(_) => {
                let mut senders: LpmTrie<&mut MapData, [u32; 4], u32> = map(ebpf, name::SENDERS6)?;
                senders
                    .insert(&Key::new(length, words), 1, 0)
                    .map_err(failed(name::SENDERS6))?;
            }
        }
    }
    Ok(())
}

/// A map that stays the object's: the programs, which are yet to be loaded, need it there.
fn map<'a, M>(ebpf: &'a mut Ebpf, map: &str) -> Result<M, KernelError>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    let data = ebpf.map_mut(map).ok_or_else(|| loader::missing(map))?;
    M::try_from(data).map_err(|error| loader::map_error(map, error))
}
