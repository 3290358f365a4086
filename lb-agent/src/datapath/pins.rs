//! Attaching to interfaces by pinned links, taking links over, and taking everything off the node.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    Xdp,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpMode},
};

use super::{
    classifier::{self, Classifiers, Owner, Role},
    feature::driver,
    link,
    loader::{Attached, Mode, Options, pin_dir},
    local,
};
use crate::domain::kernel::KernelError;

/// Attaches the program to each interface, or puts it behind the link that is there.
///
/// An interface that changes between XDP and tc has both for a moment rather than neither.
pub(crate) fn attach(
    program: &mut Xdp,
    classifiers: &mut Classifiers,
    options: &Options,
    interfaces: &[(String, u32)],
) -> Result<Vec<Attached>, KernelError> {
    let dir = pin_dir(&options.bpf_dir);
    remove_stale_links(&dir, XDP, |path| {
        is_wanted(path, &dir, options, interfaces) || is_for_tc(path, options, interfaces)
    })?;
    let mut all = Vec::new();
    let mut kept = Vec::new();
    for (name, ifindex) in interfaces {
        let xdp = attach_xdp(program, &dir, options.mode, name, *ifindex)?;
        let role = if xdp.is_some() {
            Role::Finish
        } else {
            Role::Ingress
        };
        let mut adopted = true;
        for role in [role, Role::Egress] {
            adopted &= classifiers.attach(Owner::Configuration, role, name, *ifindex)?;
            kept.push(classifiers.path(Owner::Configuration, role, *ifindex));
        }
        all.push(xdp.unwrap_or_else(|| Attached {
            name: name.clone(),
            ifindex: *ifindex,
            mode: TC,
            adopted,
        }));
    }
    remove_stale_links(&dir, XDP, |path| {
        let in_tc = |one: &Attached| one.mode == TC && interface_of(path) == Some(one.ifindex);
        is_wanted(path, &dir, options, interfaces) && !all.iter().any(in_tc)
    })?;
    remove_stale_links(&dir, Owner::Configuration.prefix(), |path| {
        kept.iter().any(|kept| kept == path)
    })?;
    Ok(all)
}

const NATIVE: &str = "native";
const GENERIC: &str = "generic";
const TC: &str = "tc";
/// What the names of the pins of XDP links begin with.
const XDP: &str = "xdp_";

/// How an interface may be attached to.
fn modes(mode: Mode, interface: &str) -> &'static [(&'static str, XdpMode)] {
    match mode {
        Mode::Auto if driver::is_for_tc(interface) => &[],
        // Not generic, which copies buffers that tc takes as they are.
        Mode::Auto | Mode::Native => &[(NATIVE, XdpMode::Driver)],
        Mode::Generic => &[(GENERIC, XdpMode::Skb)],
        Mode::Off => &[],
    }
}

fn link_path(dir: &Path, mode: &str, ifindex: u32) -> PathBuf {
    dir.join(format!("{XDP}{mode}_{ifindex}"))
}

/// Attaches the XDP program; `None`: there is to be none, or the driver has no XDP and need not.
fn attach_xdp(
    program: &mut Xdp,
    dir: &Path,
    mode: Mode,
    name: &str,
    ifindex: u32,
) -> Result<Option<Attached>, KernelError> {
    let attached = |mode, adopted| {
        Some(Attached {
            name: name.to_owned(),
            ifindex,
            mode,
            adopted,
        })
    };
    let modes = modes(mode, name);
    for (label, _) in modes {
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
    for (label, flag) in modes {
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
    match last {
        Some(error) if mode != Mode::Auto => Err(error),
        Some(error) => {
            tracing::info!(interface = name, %error, "no native XDP here; tc does the work");
            Ok(None)
        }
        None => {
            if mode == Mode::Auto {
                tracing::info!(
                    interface = name,
                    "its other end is a local stack, whose packets are for tc; `xdp_mode = \"native\"` overrides"
                );
            }
            Ok(None)
        }
    }
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

/// Whether the configuration asks for the XDP link of this pin.
fn is_wanted(path: &Path, dir: &Path, options: &Options, interfaces: &[(String, u32)]) -> bool {
    interfaces.iter().any(|(name, ifindex)| {
        modes(options.mode, name)
            .iter()
            .any(|(label, _)| path == link_path(dir, label, *ifindex))
    })
}

/// Whether tc is to take over what the XDP link of this pin does.
fn is_for_tc(path: &Path, options: &Options, interfaces: &[(String, u32)]) -> bool {
    interfaces.iter().any(|(name, ifindex)| {
        interface_of(path) == Some(*ifindex) && modes(options.mode, name).is_empty()
    })
}

/// Detaches links whose pins' names begin with `prefix`, unless they are wanted: from interfaces
/// that are no longer configured, or not in this mode.
fn remove_stale_links(
    dir: &Path,
    prefix: &str,
    is_wanted: impl Fn(&Path) -> bool,
) -> Result<(), KernelError> {
    for path in link_pins(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(prefix) && !is_wanted(&path) {
            remove_link(&path)?;
            tracing::info!(pin = %path.display(), "detached from an interface that is no longer configured so");
        }
    }
    Ok(())
}

pub(crate) fn link_pins(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let what = || format!("listing {}", dir.display());
    let mut pins = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| KernelError::new(what(), e))? {
        let entry = entry.map_err(|e| KernelError::new(what(), e))?;
        let name = entry.file_name();
        let prefixes = [XDP, Owner::Configuration.prefix(), Owner::NextHop.prefix()];
        if prefixes
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            pins.push(entry.path());
        }
    }
    // XDP before what finishes its work.
    pins.sort_by(|one, other| other.cmp(one));
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
    let dirs = schema_dirs(bpf_dir);
    if dirs.is_empty() && !bpf_dir.exists() {
        return Ok(removed);
    }
    for dir in dirs {
        for pin in link_pins(&dir)? {
            remove_link(&pin)?;
            removed.push(format!("program on {}", describe_link(&pin)));
        }
        match local::detach(&dir)? {
            0 => {}
            count => removed.push(format!("{count} programs for local clients")),
        }
        let maps = remove_all(&dir)?;
        removed.push(format!("{maps} maps in {}", dir.display()));
    }
    // Left in place if something else lies in it.
    let _ = fs::remove_dir(bpf_dir);
    Ok(removed)
}

/// Directories of pins, of whatever schema, in order; none where there is nothing.
pub(crate) fn schema_dirs(bpf_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(bpf_dir).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| is_schema_dir(path))
        .collect();
    dirs.sort();
    dirs
}

/// Removes a directory of pins that holds only maps; answers with their number.
pub(crate) fn remove_all(dir: &Path) -> Result<usize, KernelError> {
    let what = || format!("listing {}", dir.display());
    let mut maps = 0;
    for entry in fs::read_dir(dir).map_err(|e| KernelError::new(what(), e))? {
        remove(&entry.map_err(|e| KernelError::new(what(), e))?.path())?;
        maps += 1;
    }
    fs::remove_dir(dir).map_err(|e| KernelError::new(format!("removing {}", dir.display()), e))?;
    Ok(maps)
}

fn is_schema_dir(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix('v'))
        .is_some_and(|version| version.parse::<u32>().is_ok())
}

/// Index of the interface that a pin is about; `None`: it is about none.
pub(crate) fn interface_of(pin: &Path) -> Option<u32> {
    if let Some((_, _, ifindex)) = classifier::parse(pin) {
        return Some(ifindex);
    }
    let name = pin.file_name()?.to_str()?;
    let (_, ifindex) = name.strip_prefix(XDP)?.rsplit_once('_')?;
    ifindex.parse().ok()
}

/// Whether the pin is of an interface that only backends are behind.
pub(crate) fn is_for_next_hop(pin: &Path) -> bool {
    matches!(classifier::parse(pin), Some((Owner::NextHop, ..)))
}

/// Attaches the XDP program to an interface that it was taken off.
///
/// # Errors
///
/// The kernel refuses, say because another program has taken the place.
pub(crate) fn attach_xdp_again(
    program: &mut Xdp,
    dir: &Path,
    mode: Mode,
    name: &str,
    ifindex: u32,
) -> Result<(), KernelError> {
    match attach_xdp(program, dir, mode, name, ifindex)? {
        Some(_) => Ok(()),
        None => Err(KernelError::new(
            format!("attaching to {name} in XDP again"),
            "the kernel refuses it; another program may have taken the place",
        )),
    }
}

pub(crate) fn describe_link(pin: &Path) -> String {
    if let Some(words) = classifier::describe(pin) {
        return words;
    }
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    let Some((mode, ifindex)) = name
        .strip_prefix(XDP)
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

/// Detaches a link and removes its pin.
pub(crate) fn remove_link(pin: &Path) -> Result<(), KernelError> {
    if classifier::describe(pin).is_some() {
        return classifier::remove(pin);
    }
    link::detach(pin)
        .map_err(|e| KernelError::new(format!("detaching the link {}", pin.display()), e))?;
    remove(pin)
}

pub(crate) fn remove(path: &Path) -> Result<(), KernelError> {
    fs::remove_file(path).map_err(|e| KernelError::new(format!("removing {}", path.display()), e))
}

/// Index of an interface.
///
/// # Errors
///
/// There is none of this name.
pub(crate) fn interface_index(name: &str) -> Result<u32, KernelError> {
    let what = || {
        format!(
            "no interface {name}, which `interfaces` under [node] names (`ip link` shows those there are)"
        )
    };
    let c_name = std::ffi::CString::new(name).map_err(|e| KernelError::new(what(), e))?;
    // SAFETY: a valid C string.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(KernelError::new(what(), io::Error::last_os_error())),
        index => Ok(index),
    }
}

/// Name of an interface; `None` if there is none of this index.
pub(crate) fn interface_name(ifindex: u32) -> Option<String> {
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
