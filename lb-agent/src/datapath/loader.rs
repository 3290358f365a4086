//! Loads the programs, creates or adopts the pinned maps, and attaches to the interfaces.
//!
//! Pins lie under `BPF_DIR/vSCHEMA`: the maps by their names, the links as
//! `xdp_MODE_IFINDEX`. A new agent opens what is there and replaces the programs behind the links
//! in one step each, so that no packet meets an interface without a program.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
};
use lb_common::{
    entry::{Meta, NextHop},
    flow::{Lifetimes, WAYS},
    maps::{MAX_INTERFACES, SCHEMA, name},
    settings::Settings,
};

use crate::domain::kernel::KernelError;

/// The object that `cargo xtask build-ebpf` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.o"));

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Native where the driver can, else generic.
    Auto,
    /// In the driver.
    Native,
    /// In the stack's receive path.
    Generic,
}

/// What the datapath needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system.
    pub bpf_dir: PathBuf,
    /// Names of the interfaces.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub mode: Mode,
    /// Slots of each flow table, a power of two; counts only where none is pinned yet.
    pub flow_slots: u32,
    /// First and last port that flows may be given.
    pub ports: (u16, u16),
    /// How long idle flows live, in seconds.
    pub lifetimes: Lifetimes,
}

/// An interface with a program on it.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// The link was there before, and got the new program.
    pub adopted: bool,
}

/// The directory of this schema's pins.
pub(crate) fn pin_dir(bpf_dir: &Path) -> PathBuf {
    bpf_dir.join(format!("v{SCHEMA}"))
}

/// The programs and maps, loaded but not attached.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    pub(crate) meta: Meta,
    /// Interfaces by position; 0: none.
    pub(crate) positions: [u32; MAX_INTERFACES],
    /// The maps were there before.
    pub(crate) adopted: bool,
}

/// Creates or adopts the maps and loads the programs.
///
/// `ticks_per_second` is the kernel's; `interfaces` their indices.
pub(crate) fn load(
    options: &Options,
    interfaces: &[u32],
    ticks_per_second: u32,
) -> Result<Loaded, KernelError> {
    let dir = pin_dir(&options.bpf_dir);
    check_bpf_file_system(&options.bpf_dir)?;
    fs::create_dir_all(&dir)
        .map_err(|error| KernelError::new(format!("creating {}", dir.display()), error))?;

    let adopted = read_meta(&dir)?;
    let meta = adopted.unwrap_or_else(|| Meta {
        schema: SCHEMA,
        flow_slots: options.flow_slots,
        seed: rand::random(),
    });
    let positions = positions(&dir, interfaces)?;
    let last = positions.iter().rposition(|ifindex| *ifindex != 0);
    let settings = Settings {
        seed: meta.seed,
        bucket_mask: meta.flow_slots / WAYS - 1,
        refresh_ticks: ticks_per_second,
        lifetimes: options.lifetimes.scaled(ticks_per_second),
        port_first: options.ports.0,
        port_last: options.ports.1,
        interface_count: last.map_or(0, |last| last as u32 + 1),
        interfaces: positions,
    };
    let buckets = meta.flow_slots / WAYS;
    let mut loader = EbpfLoader::new();
    loader
        .override_global(name::SETTINGS, &settings, true)
        .map_max_entries(name::FLOWS4, buckets)
        .map_max_entries(name::FLOWS6, buckets);
    for map in name::PINNED {
        loader.map_pin_path(map, dir.join(map));
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| KernelError::new("loading the programs and maps", error))?;
    if adopted.is_none() {
        let map = ebpf
            .map_mut(name::META)
            .ok_or_else(|| missing(name::META))?;
        let mut map: Array<&mut MapData, Meta> =
            Array::try_from(map).map_err(|e| map_error(name::META, e))?;
        map.set(0, meta, 0).map_err(|e| map_error(name::META, e))?;
    }
    Ok(Loaded {
        ebpf,
        meta,
        positions,
        adopted: adopted.is_some(),
    })
}

/// Gives each interface its position: the one that flows of a former agent's know it by, else a
/// free one. Zero where there is none.
fn positions(dir: &Path, interfaces: &[u32]) -> Result<[u32; MAX_INTERFACES], KernelError> {
    let mut positions = [0; MAX_INTERFACES];
    let path = dir.join(name::NEXTHOPS);
    if path.exists() {
        let what = || format!("reading {}", path.display());
        let data = MapData::from_pin(&path).map_err(|error| KernelError::new(what(), error))?;
        let map = Map::from_map_data(data).map_err(|error| KernelError::new(what(), error))?;
        let map: Array<MapData, NextHop> =
            Array::try_from(map).map_err(|error| KernelError::new(what(), error))?;
        for (index, position) in positions.iter_mut().enumerate() {
            let hop = map
                .get(&(index as u32), 0)
                .map_err(|error| KernelError::new(what(), error))?;
            *position = hop.ifindex;
        }
    }
    place(&mut positions, interfaces);
    Ok(positions)
}

/// Keeps of the former positions those of `interfaces`, and gives the others free ones.
fn place(positions: &mut [u32; MAX_INTERFACES], interfaces: &[u32]) {
    for position in positions.iter_mut() {
        if !interfaces.contains(position) {
            *position = 0;
        }
    }
    for ifindex in interfaces {
        if !positions.contains(ifindex)
            && let Some(free) = positions.iter_mut().find(|position| **position == 0)
        {
            *free = *ifindex;
        }
    }
}

/// Loads the object with maps as small as can be and pins nothing: for its clock program.
pub(crate) fn load_clock() -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for map in name::PINNED {
        // `META` and the like have one entry anyway.
        loader.map_max_entries(map, 1);
    }
    loader
        .load(OBJECT)
        .map_err(|error| KernelError::new("loading the programs and maps", error))
}

fn read_meta(dir: &Path) -> Result<Option<Meta>, KernelError> {
    let path = dir.join(name::META);
    if !path.exists() {
        return Ok(None);
    }
    let what = || format!("reading {}", path.display());
    let data = MapData::from_pin(&path).map_err(|error| KernelError::new(what(), error))?;
    let map = Map::from_map_data(data).map_err(|error| KernelError::new(what(), error))?;
    let map: Array<MapData, Meta> =
        Array::try_from(map).map_err(|error| KernelError::new(what(), error))?;
    let meta = map
        .get(&0, 0)
        .map_err(|error| KernelError::new(what(), error))?;
    // A former agent may have died between creating the maps and writing this.
    Ok((meta.schema == SCHEMA && meta.flow_slots.is_power_of_two()).then_some(meta))
}

/// Whether the nearest existing parent lies on a BPF file system.
fn check_bpf_file_system(dir: &Path) -> Result<(), KernelError> {
    use std::os::unix::ffi::OsStrExt as _;
    let existing = dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let what = || format!("using {} for pins", dir.display());
    let path = std::ffi::CString::new(existing.as_os_str().as_bytes())
        .map_err(|error| KernelError::new(what(), error))?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(KernelError::new(what(), io::Error::last_os_error()));
    }
    // SAFETY: the call above succeeded and filled it in.
    let kind = unsafe { stat.assume_init() }.f_type;
    if kind != libc::BPF_FS_MAGIC {
        return Err(KernelError::new(
            what(),
            "it is not on a BPF file system; mount one with `mount -t bpf bpf /sys/fs/bpf`",
        ));
    }
    Ok(())
}

pub(crate) fn missing(map: &str) -> KernelError {
    KernelError::new(format!("opening map {map}"), "the object has no such map")
}

pub(crate) fn map_error(map: &str, error: aya::maps::MapError) -> KernelError {
    KernelError::new(format!("opening map {map}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of former positions, interfaces, positions.
    #[test]
    fn interfaces_keep_their_positions() {
        let rows: [(&[u32], &[u32], &[u32]); 5] = [
            (&[], &[7, 3], &[7, 3]),
            (&[7, 3], &[3, 7], &[7, 3]),
            (&[7, 3], &[3], &[0, 3]),
            (&[7, 3], &[3, 9], &[9, 3]),
            (&[0, 3], &[4, 3, 5], &[4, 3, 5]),
        ];
        let full = |short: &[u32]| {
            let mut positions = [0; MAX_INTERFACES];
            positions[..short.len()].copy_from_slice(short);
            positions
        };
        for (former, interfaces, expected) in rows {
            let mut positions = full(former);
            place(&mut positions, interfaces);
            assert_eq!(positions, full(expected), "{former:?} {interfaces:?}");
        }
    }
}
