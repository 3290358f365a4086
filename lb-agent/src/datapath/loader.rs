//! Loads the programs, creates or adopts the pinned maps, and attaches to the interfaces.
//!
//! Pins lie under `BPF_DIR/vSCHEMA`: the maps by their names, the links as
//! `xdp_MODE_IFINDEX`, `tc_ROLE_IFINDEX` and, where backends are behind an interface that the
//! configuration does not name, `hop_ROLE_IFINDEX`. A new agent opens what is there and replaces the programs behind the links
//! in one step each, so that no packet meets an interface without a program.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
};
use ipnet::IpNet;
use lb_common::{
    entry::{Meta, NextHop},
    flow::{Lifetimes, WAYS},
    maps::{DEFAULT_FLOW_SLOTS, MAX_INTERFACES, SCHEMA, name},
    settings::{Settings, decapsulate},
};

use super::{budget::Budget, feature::driver, memory, pins};
use crate::domain::kernel::KernelError;

/// The object that `cargo xtask build-ebpf` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.o"));

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Native where the driver can, else in tc, as on a veth or tap.
    Auto,
    /// In the driver.
    Native,
    /// In the stack's receive path.
    Generic,
    /// No XDP: in tc.
    Off,
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
    /// Those of `interfaces` where questions for the link address of VIPs are answered.
    pub announce: Vec<String>,
    /// Attaches the tc programs as filters even where the kernel has tcx links (Linux 6.6).
    pub tc_filters: bool,
    /// Whether frames may come to XDP whose transport checksum is yet to be computed, and are left to
    /// tc. `None`: if one of `interfaces` is of a kind where that can be.
    pub pending: Option<bool>,
    /// Slots of each flow table, a power of two; counts only where none is pinned yet.
    pub flow_slots: u32,
    /// First and last port that flows may be given.
    pub ports: (u16, u16),
    /// How long idle flows live, in seconds.
    pub lifetimes: Lifetimes,
    /// The cgroup (version 2) whose processes' calls to VIPs are sent to backends; `None`: no
    /// local clients.
    pub cgroup: Option<PathBuf>,
    /// How long a flow that is not established keeps its slot against newer ones.
    pub grace: Duration,
    /// New flows admitted a second.
    pub budget: Budget,
    /// VIPs that this node holds for others: packets for them within another header are freed of
    /// it, and handed to the stack.
    pub decapsulate: Vec<IpAddr>,
    /// Where these packets may come from; empty: from anywhere.
    pub decapsulate_from: Vec<IpNet>,
}

/// An interface with a program on it.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `native`, `generic` or `tc`.
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
    /// Indices of the interfaces, each at the number of its next hop; 0: none.
    pub(crate) interfaces: [u32; MAX_INTERFACES],
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
        seed: super::takeover::seed_of_others(&options.bpf_dir).unwrap_or_else(rand::random),
    });
    let held = if adopted.is_some() {
        read_positions(&dir)?
    } else {
        remove_half_made(&dir)?;
        [0; MAX_INTERFACES]
    };
    let interfaces = positions(&held, interfaces, |ifindex| {
        pins::interface_name(ifindex).is_some()
    });
    let (budget, budget_shift) = options.budget.windows(meta.flow_slots, ticks_per_second);
    let grace = options.grace.as_millis() as u64 * u64::from(ticks_per_second) / 1000;
    let settings = Settings {
        seed: meta.seed,
        bucket_mask: meta.flow_slots / WAYS - 1,
        refresh_ticks: ticks_per_second,
        lifetimes: options.lifetimes.scaled(ticks_per_second),
        grace_ticks: u32::try_from(grace).unwrap_or(u32::MAX),
        budget,
        budget_shift,
        port_first: options.ports.0,
        port_last: options.ports.1,
        interface_count: interfaces
            .iter()
            .rposition(|ifindex| *ifindex != 0)
            .map_or(0, |last| last as u32 + 1),
        interfaces,
        announce: announcing(options, &interfaces),
        decapsulate: super::decapsulate::bits(options),
        pending: u32::from(
            options
                .pending
                .unwrap_or_else(|| driver::may_be_pending(options)),
        ),
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
    for map in name::PINNED_LOCAL {
        if options.cgroup.is_some() {
            loader.map_pin_path(map, dir.join(map));
        } else {
            // No program that uses it is loaded.
            loader.map_max_entries(map, 1);
        }
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| KernelError::new("loading the programs and maps", error))?;
    memory::let_go(OBJECT);
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
        interfaces,
    })
}

/// Bits of the positions whose interfaces announce VIPs.
fn announcing(options: &Options, positions: &[u32; MAX_INTERFACES]) -> u32 {
    let mut bits = 0;
    for (position, ifindex) in positions.iter().enumerate() {
        let name = pins::interface_name(*ifindex);
        if name.is_some_and(|name| options.announce.contains(&name)) {
            bits |= 1 << position;
        }
    }
    bits
}

/// Loads the object with maps as small as can be and pins nothing: for its clock program.
pub(crate) fn load_clock() -> Result<Ebpf, KernelError> {
    load_small(&mut EbpfLoader::new())
}

/// The same with read-only globals that leave nothing for the verifier to fold away: each feature
/// on, each interface there.
pub(crate) fn load_fullest() -> Result<Ebpf, KernelError> {
    let settings = Settings {
        seed: 1,
        bucket_mask: DEFAULT_FLOW_SLOTS / WAYS - 1,
        refresh_ticks: 250,
        lifetimes: Lifetimes::DEFAULT_SECONDS.scaled(250),
        grace_ticks: 250,
        budget: 1000,
        budget_shift: 1,
        port_first: 1024,
        port_last: 32_767,
        interface_count: MAX_INTERFACES as u32,
        interfaces: std::array::from_fn(|position| position as u32 + 1),
        announce: u32::MAX >> 16,
        decapsulate: decapsulate::ON | decapsulate::FROM_SENDERS,
        pending: 1,
    };
    load_small(EbpfLoader::new().override_global(name::SETTINGS, &settings, true))
}

fn load_small(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, KernelError> {
    for map in name::PINNED.iter().copied().chain(name::PINNED_LOCAL) {
        // `META` and the like have one entry anyway.
        loader.map_max_entries(map, 1);
    }
    loader
        .load(OBJECT)
        .map_err(|error| KernelError::new("loading the programs and maps", error))
}

/// Gives each wanted interface a position, which is the number of its next hop. Flows remember it:
/// who has one keeps it, and one that another interface had is given away last.
fn positions(
    held: &[u32; MAX_INTERFACES],
    wanted: &[u32],
    exists: impl Fn(u32) -> bool,
) -> [u32; MAX_INTERFACES] {
    let mut given = held.map(|ifindex| {
        if wanted.contains(&ifindex) {
            ifindex
        } else {
            0
        }
    });
    for (order, ifindex) in wanted.iter().enumerate() {
        if given.contains(ifindex) {
            continue;
        }
        let best = (0..MAX_INTERFACES)
            .filter(|position| given[*position] == 0)
            .min_by_key(|position| {
                let former = held[*position];
                (former != 0 && exists(former), *position != order)
            });
        if let Some(position) = best {
            given[position] = *ifindex;
        }
    }
    given
}

/// Interfaces of a former agent by position.
fn read_positions(dir: &Path) -> Result<[u32; MAX_INTERFACES], KernelError> {
    let map = open_pinned::<NextHop>(dir, name::NEXTHOPS)?;
    let mut held = [0; MAX_INTERFACES];
    for (position, ifindex) in (0..).zip(&mut held) {
        *ifindex = map
            .get(&position, 0)
            .map_err(|error| map_error(name::NEXTHOPS, error))?
            .ifindex;
    }
    Ok(held)
}

/// Removes what an agent has left that ended before it wrote `META`. No program was attached to
/// these maps, and their sizes are those of its configuration.
fn remove_half_made(dir: &Path) -> Result<(), KernelError> {
    for map in name::PINNED.iter().copied().chain(name::PINNED_LOCAL) {
        let path = dir.join(map);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("removing {}", path.display());
                return Err(KernelError::new(what, error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn open_pinned<V: aya::Pod>(dir: &Path, map: &str) -> Result<Array<MapData, V>, KernelError> {
    MapData::from_pin(dir.join(map))
        .and_then(Map::from_map_data)
        .and_then(Array::try_from)
        .map_err(|error| map_error(map, error))
}

fn read_meta(dir: &Path) -> Result<Option<Meta>, KernelError> {
    if !dir.join(name::META).exists() {
        return Ok(None);
    }
    let meta = open_pinned::<Meta>(dir, name::META)?
        .get(&0, 0)
        .map_err(|error| map_error(name::META, error))?;
    // A former agent may have died between creating the maps and writing this.
    Ok((meta.schema == SCHEMA && meta.flow_slots.is_power_of_two()).then_some(meta))
}

/// Fails unless the nearest existing parent of `dir` lies on a BPF file system.
///
/// # Errors
///
/// It does not, or cannot be looked at.
pub fn check_bpf_file_system(dir: &Path) -> Result<(), KernelError> {
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

    fn held(interfaces: &[u32]) -> [u32; MAX_INTERFACES] {
        let mut held = [0; MAX_INTERFACES];
        held[..interfaces.len()].copy_from_slice(interfaces);
        held
    }

    /// The position of an interface is in the flows' memory.
    #[test]
    fn positions_stay() {
        let all = |_| true;
        assert_eq!(positions(&held(&[]), &[7, 8], all), held(&[7, 8]));
        assert_eq!(positions(&held(&[7, 8]), &[8, 7], all), held(&[7, 8]));
        // One more in front, one that goes: its flows still leave by it.
        assert_eq!(positions(&held(&[7, 8]), &[6, 8], all), held(&[0, 8, 6]));
        assert_eq!(positions(&held(&[7, 8, 6]), &[8], all), held(&[0, 8]));
        // One that was deleted and made anew, under another index.
        let exists = |ifindex| ifindex != 8;
        assert_eq!(positions(&held(&[7, 8]), &[7, 9], exists), held(&[7, 9]));
        // No position is left that nobody had.
        let full: [u32; MAX_INTERFACES] = std::array::from_fn(|index| index as u32 + 1);
        let given = positions(&full, &[16, 99], all);
        assert!(given.contains(&99) && given[15] == 16);
    }
}
