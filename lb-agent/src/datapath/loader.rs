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
    programs::{
        Xdp,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode},
    },
};
use lb_common::{
    entry::Meta,
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
    let mut ids = [0; MAX_INTERFACES];
    ids[..interfaces.len()].copy_from_slice(interfaces);
    let settings = Settings {
        seed: meta.seed,
        bucket_mask: meta.flow_slots / WAYS - 1,
        refresh_ticks: ticks_per_second,
        lifetimes: options.lifetimes.scaled(ticks_per_second),
        port_first: options.ports.0,
        port_last: options.ports.1,
        interface_count: interfaces.len() as u32,
        interfaces: ids,
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
        adopted: adopted.is_some(),
    })
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

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

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
    if i64::from(kind) & 0xffff_ffff != BPF_FS_MAGIC {
        return Err(KernelError::new(
            what(),
            "it is not on a BPF file system; mount one with `mount -t bpf bpf /sys/fs/bpf`",
        ));
    }
    Ok(())
}

/// Attaches the program to each interface, or puts it behind the link that is there.
pub(crate) fn attach(
    program: &mut Xdp,
    options: &Options,
    interfaces: &[(String, u32)],
) -> Result<Vec<Attached>, KernelError> {
    let dir = pin_dir(&options.bpf_dir);
    remove_stale_links(&dir, options.mode, interfaces)?;
    interfaces
        .iter()
        .map(|(name, ifindex)| attach_one(program, &dir, options.mode, name, *ifindex))
        .collect()
}

const NATIVE: &str = "native";
const GENERIC: &str = "generic";

fn modes(mode: Mode) -> &'static [(&'static str, XdpMode)] {
    match mode {
        Mode::Auto => &[(NATIVE, XdpMode::Driver), (GENERIC, XdpMode::Skb)],
        Mode::Native => &[(NATIVE, XdpMode::Driver)],
        Mode::Generic => &[(GENERIC, XdpMode::Skb)],
    }
}

fn link_path(dir: &Path, mode: &str, ifindex: u32) -> PathBuf {
    dir.join(format!("xdp_{mode}_{ifindex}"))
}

fn attach_one(
    program: &mut Xdp,
    dir: &Path,
    mode: Mode,
    name: &str,
    ifindex: u32,
) -> Result<Attached, KernelError> {
    let attached = |mode, adopted| Attached {
        name: name.to_owned(),
        ifindex,
        mode,
        adopted,
    };
    for (label, _) in modes(mode) {
        let path = link_path(dir, label, ifindex);
        if !path.exists() {
            continue;
        }
        match replace(program, &path) {
            Ok(()) => return Ok(attached(label, true)),
            Err(error) => {
                // The interface that it belonged to is gone, and its index has a new owner.
                tracing::warn!(interface = name, %error, "a pinned link could not be taken over; attaching anew");
                let _ = fs::remove_file(&path);
            }
        }
    }
    let mut last = None;
    for (label, flag) in modes(mode) {
        let what = || format!("attaching to {name} in {label} mode");
        match program.attach_to_if_index(ifindex, *flag) {
            Ok(id) => {
                let link = program
                    .take_link(id)
                    .map_err(|e| KernelError::new(what(), e))?;
                let link = FdLink::try_from(link).map_err(|e| KernelError::new(what(), e))?;
                link.pin(link_path(dir, label, ifindex))
                    .map_err(|e| KernelError::new(format!("pinning the link of {name}"), e))?;
                return Ok(attached(label, false));
            }
            Err(error) => {
                tracing::debug!(interface = name, mode = label, %error, "not attached");
                last = Some(KernelError::new(what(), error));
            }
        }
    }
    Err(last.unwrap_or_else(|| KernelError::new(format!("attaching to {name}"), "no mode allowed")))
}

/// Puts the program behind a pinned link. The pin keeps the link; our descriptor may close.
fn replace(program: &mut Xdp, path: &Path) -> Result<(), KernelError> {
    let what = || format!("replacing the program behind {}", path.display());
    let pinned = PinnedLink::from_pin(path).map_err(|e| KernelError::new(what(), e))?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|e| KernelError::new(what(), e))?;
    let id = program
        .attach_to_link(link)
        .map_err(|e| KernelError::new(what(), e))?;
    drop(
        program
            .take_link(id)
            .map_err(|e| KernelError::new(what(), e))?,
    );
    Ok(())
}

/// Detaches from interfaces that are no longer configured, or not in this mode.
fn remove_stale_links(
    dir: &Path,
    mode: Mode,
    interfaces: &[(String, u32)],
) -> Result<(), KernelError> {
    for path in link_pins(dir)? {
        let wanted = interfaces.iter().any(|(_, ifindex)| {
            modes(mode)
                .iter()
                .any(|(label, _)| path == link_path(dir, label, *ifindex))
        });
        if !wanted {
            fs::remove_file(&path)
                .map_err(|e| KernelError::new(format!("removing {}", path.display()), e))?;
            tracing::info!(pin = %path.display(), "detached from an interface that is no longer configured");
        }
    }
    Ok(())
}

pub(crate) fn link_pins(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let what = || format!("listing {}", dir.display());
    let mut pins = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| KernelError::new(what(), e))? {
        let entry = entry.map_err(|e| KernelError::new(what(), e))?;
        if entry.file_name().to_string_lossy().starts_with("xdp_") {
            pins.push(entry.path());
        }
    }
    pins.sort();
    Ok(pins)
}

/// Takes everything off the node: links first, so that no program runs without its maps; then
/// the maps. Answers with what was removed, in words.
///
/// # Errors
///
/// A pin that cannot be removed.
pub fn detach(bpf_dir: &Path) -> Result<Vec<String>, KernelError> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(bpf_dir) else {
        return Ok(removed);
    };
    let mut dirs: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_schema_dir(path))
        .collect();
    dirs.sort();
    for dir in dirs {
        for pin in link_pins(&dir)? {
            remove(&pin)?;
            removed.push(format!("program on {}", describe_link(&pin)));
        }
        let what = || format!("listing {}", dir.display());
        let mut maps = 0;
        for entry in fs::read_dir(&dir).map_err(|e| KernelError::new(what(), e))? {
            remove(&entry.map_err(|e| KernelError::new(what(), e))?.path())?;
            maps += 1;
        }
        fs::remove_dir(&dir)
            .map_err(|e| KernelError::new(format!("removing {}", dir.display()), e))?;
        removed.push(format!("{maps} maps in {}", dir.display()));
    }
    // Left in place if something else lies in it.
    let _ = fs::remove_dir(bpf_dir);
    Ok(removed)
}

fn is_schema_dir(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix('v'))
        .is_some_and(|version| version.parse::<u32>().is_ok())
}

fn describe_link(pin: &Path) -> String {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    let Some((mode, ifindex)) = name
        .strip_prefix("xdp_")
        .and_then(|rest| rest.rsplit_once('_'))
    else {
        return name.into_owned();
    };
    let interface = ifindex
        .parse()
        .ok()
        .and_then(interface_name)
        .unwrap_or_else(|| format!("interface {ifindex} (gone)"));
    format!("{interface} ({mode} XDP)")
}

fn remove(path: &Path) -> Result<(), KernelError> {
    fs::remove_file(path).map_err(|e| KernelError::new(format!("removing {}", path.display()), e))
}

/// Index of an interface.
///
/// # Errors
///
/// There is none of this name.
pub(crate) fn interface_index(name: &str) -> Result<u32, KernelError> {
    let what = || format!("looking for interface {name}");
    let c_name = std::ffi::CString::new(name).map_err(|e| KernelError::new(what(), e))?;
    // SAFETY: a valid C string.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(KernelError::new(what(), io::Error::last_os_error())),
        index => Ok(index),
    }
}

fn interface_name(ifindex: u32) -> Option<String> {
    let mut buffer = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call demands.
    let name = unsafe { libc::if_indextoname(ifindex, buffer.as_mut_ptr().cast()) };
    if name.is_null() {
        return None;
    }
    std::ffi::CStr::from_bytes_until_nul(&buffer)
        .ok()?
        .to_str()
        .ok()
        .map(str::to_owned)
}

pub(crate) fn missing(map: &str) -> KernelError {
    KernelError::new(format!("opening map {map}"), "the object has no such map")
}

pub(crate) fn map_error(map: &str, error: aya::maps::MapError) -> KernelError {
    KernelError::new(format!("opening map {map}"), error)
}
