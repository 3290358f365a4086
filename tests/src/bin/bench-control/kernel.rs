//! Looks at the agent's pinned maps, as a packet would meet them.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use lb_common::{
    entry::{FAMILY_V4, ServiceEntry, ServiceKey},
    maps::name,
};

use crate::catalog;

/// The maps of an agent.
pub(crate) struct Maps {
    services: MapData,
    maglev: MapData,
}

impl Maps {
    /// Opens what an agent has pinned; `None`: not there yet.
    pub(crate) fn open(pins: &Path) -> Result<Option<Self>> {
        let Some(services) = pinned(pins, name::SERVICES) else {
            return Ok(None);
        };
        let Some(maglev) = pinned(pins, name::MAGLEV) else {
            return Ok(None);
        };
        Ok(Some(Self {
            services: MapData::from_pin(services)?,
            maglev: MapData::from_pin(maglev)?,
        }))
    }

    /// How the kernel knows a service; `None`: it does not.
    pub(crate) fn service(&self, number: usize) -> Result<Option<ServiceEntry>> {
        let vip = catalog::vip(number);
        let std::net::IpAddr::V4(ip) = vip.ip() else {
            return Ok(None);
        };
        let key = ServiceKey {
            addr: [u32::from(ip).to_be(), 0, 0, 0],
            port: vip.port().to_be(),
            proto: lb_common::IPPROTO_TCP,
            family: FAMILY_V4,
        };
        let mut entry = ServiceEntry {
            id: 0,
            maglev_slots: 0,
            flags: 0,
            reserved: 0,
        };
        let found = look_up(&self.services, &key, &mut entry)?;
        Ok(found.then_some(entry))
    }

    /// The number of the table of a service (by its id in the kernel): another one is another table.
    pub(crate) fn table(&self, id: u32) -> Result<Option<u32>> {
        let mut inner = 0_u32;
        let found = look_up(&self.maglev, &id, &mut inner)?;
        Ok(found.then_some(inner))
    }
}

fn pinned(pins: &Path, map: &str) -> Option<PathBuf> {
    let directories = fs::read_dir(pins).ok()?;
    directories
        .flatten()
        .map(|directory| directory.path().join(map))
        .find(|path| path.exists())
}

/// The part of `union bpf_attr` that a look-up takes (include/uapi/linux/bpf.h).
#[repr(C)]
struct LookUp {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_MAP_LOOKUP_ELEM`. Whether there is such a key; its value then is in `value`.
fn look_up<K, V>(map: &MapData, key: &K, value: &mut V) -> Result<bool> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
    let attributes = LookUp {
        map: map.fd().as_fd().as_raw_fd().cast_unsigned(),
        padding: 0,
        key: std::ptr::from_ref(key).addr() as u64,
        value: std::ptr::from_mut(value).addr() as u64,
        flags: 0,
    };
    // SAFETY: the map is one of ours, with keys and values of these types; all are alive.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_ELEM,
            &raw const attributes,
            size_of::<LookUp>(),
        )
    };
    if answer == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(false),
        _ => Err(error).context("looking into the agent's maps"),
    }
}
