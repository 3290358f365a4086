//! Root becomes a system user that keeps a few capabilities and can get no others.
//!
//! Credentials are each thread's own (credentials(7)), so this is done before there is a second
//! thread: whatever is started later inherits them. From then on nothing is done as root, the
//! programs are loaded with the same rights that a unit of systemd grants.

use std::fs;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::unistd::{Uid, User, geteuid, initgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

use super::{capability, places};
use crate::config::{Config, RunAs};

/// The user that root becomes, unless told otherwise, where there is such a user.
pub const DEFAULT_USER: &str = "lb-agent";

/// What it takes to become somebody else.
const CHANGING: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::CHOWN);

/// The highest capability that there may be, as the kernel counts them in 64 bits.
const LAST: u32 = 63;

/// What became of the rights that the process was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It was not root, and has what it was given.
    Given,
    /// It stays root, since the configuration says so or there is no system user to become.
    Root,
    /// It is this user from now on.
    Dropped(String),
}

/// Becomes the user that `config` asks for, if this process is root. To be called while it has one
/// thread.
///
/// # Errors
///
/// There is no such user, the directories cannot be given to it, the kernel refuses, or there is more
/// than one thread.
pub fn drop(config: &Config) -> anyhow::Result<Rights> {
    if !geteuid().is_root() {
        return Ok(Rights::Given);
    }
    let permitted = capabilities(None)
        .context("looking at the capabilities")?
        .permitted;
    // As in a container that has few: what there is has been chosen already.
    if config.node.user == RunAs::Auto && !permitted.contains(CHANGING) {
        return Ok(Rights::Root);
    }
    let Some(user) = chosen(config)? else {
        return Ok(Rights::Root);
    };
    let threads = fs::read_dir("/proc/self/task").context("counting the agent's threads")?;
    if threads.count() != 1 {
        bail!("another thread would keep root's rights: they can be dropped only before it starts");
    }
    places::give(config, &user)?;
    become_user(&user, capability::all() & permitted)
        .with_context(|| format!("becoming the user {}", user.name))?;
    Ok(Rights::Dropped(user.name))
}

/// Hands over to the user that `config` asks for what only root can: the directory of the pins, and
/// what a former agent pinned. For a unit that starts the agent as that user.
///
/// # Errors
///
/// As for [`drop`].
pub fn prepare(config: &Config) -> anyhow::Result<()> {
    match chosen(config)? {
        Some(user) => places::give_pins(&config.node.bpf_dir, &user),
        None => Ok(()),
    }
}

/// The user that the agent is to become; `None`: it stays root.
fn chosen(config: &Config) -> anyhow::Result<Option<User>> {
    let name = match &config.node.user {
        RunAs::Auto => DEFAULT_USER,
        RunAs::User(name) => name,
    };
    // A root is there without a database of users too, as in an image that has little more than the agent.
    if name == "root" {
        return Ok(None);
    }
    let found = match User::from_name(name) {
        // What getpwnam(3) names as answers for "not found"; the first where there is no such database.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => None,
        found => found.with_context(|| format!("looking for the user {name}"))?,
    };
    if found.is_none() && config.node.user != RunAs::Auto {
        bail!(
            "there is no user {name}, which `user` under [node] names; \
             `useradd --system {name}` makes one"
        );
    }
    Ok(found.filter(|user| !user.uid.is_root()))
}

fn become_user(user: &User, kept: CapabilitySet) -> anyhow::Result<()> {
    // While it may be changed: what is not in the bounding set no program that is run can get.
    for number in 0..=LAST {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(one) {
            match remove_capability_from_bounding_set(one) {
                // This kernel has no such capability, nor any of a higher number.
                Err(rustix::io::Errno::INVAL) => break,
                done => done.context("reducing the bounding set of capabilities")?,
            }
        }
    }
    let name = std::ffi::CString::new(user.name.as_str()).context("the user's name")?;
    initgroups(&name, user.gid).context("taking the user's groups")?;
    setresgid(user.gid, user.gid, user.gid).context("taking the user's group")?;
    set_keep_capabilities(true).context("keeping capabilities")?;
    setresuid(user.uid, user.uid, user.uid).context("taking the user's id")?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context("reducing the capabilities")?;
    set_keep_capabilities(false).context("no longer keeping capabilities")?;
    clear_ambient_capability_set().context("emptying the ambient set of capabilities")?;
    set_no_new_privs(true).context("forgoing new privileges")?;
    if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        bail!("root's rights could be taken back");
    }
    Ok(())
}
