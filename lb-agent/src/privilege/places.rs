//! The agent's directories, made by root for the user that it becomes.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use anyhow::{Context as _, bail};
use nix::unistd::User;

use crate::{
    config::{Config, HELD_SOCKETS},
    datapath::check_bpf_file_system,
};

/// Mode of a directory that has to be made.
const MODE: u32 = 0o750;

/// Gives `user` the directories of state, sockets and pins with what is in them, and makes those
/// that are missing. One that belongs to the user already is left as it is, for what is in it is
/// the user's, who could have put a link there to what is not.
pub(super) fn give(config: &Config, user: &User) -> anyhow::Result<()> {
    let node = &config.node;
    let is_state = |name: &str| name.starts_with("state.json") || name.starts_with("blocks.list");
    let is_socket = |name: &str| name.starts_with("agent.sock") || name == HELD_SOCKETS;
    let is_schema = |name: &str| {
        let version = name.strip_prefix('v');
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    };
    give_one(&node.state_dir, user, &is_state)?;
    give_one(&node.runtime_dir, user, &is_socket)?;
    check_bpf_file_system(&node.bpf_dir)?;
    give_one(&node.bpf_dir, user, &is_schema)?;
    open_the_way(&node.bpf_dir)
}

/// Refuses a directory in which there is anything that is not the agent's (`is_own`, by its name):
/// `/run` and the like must not change hands.
fn give_one(directory: &Path, user: &User, is_own: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    let what = || format!("giving {} to {}", directory.display(), user.name);
    let mut maker = DirBuilder::new();
    maker.recursive(true);
    // Those above it as usual, for everybody may pass through them.
    if let Some(above) = directory.parent() {
        maker.mode(0o755).create(above).with_context(what)?;
    }
    maker.mode(MODE).create(directory).with_context(what)?;
    if fs::metadata(directory).with_context(what)?.uid() == user.uid.as_raw() {
        return Ok(());
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(directory).with_context(what)? {
        let entry = entry.with_context(what)?;
        if !is_own(&entry.file_name().to_string_lossy()) {
            bail!(
                "{}: {} in it is not the agent's; let it have a directory of its own, or set \
                 user = \"root\" under [node]",
                what(),
                entry.file_name().display()
            );
        }
        inside.push(entry.path());
    }
    for path in inside {
        hand_over(&path, user).with_context(what)?;
    }
    hand_over_one(directory, user).with_context(what)
}

/// A directory after what is in it: until then nobody but root can change anything there.
fn hand_over(path: &Path, user: &User) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over(&entry?.path(), user)?;
        }
    }
    hand_over_one(path, user)
}

fn hand_over_one(path: &Path, user: &User) -> io::Result<()> {
    lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

/// systemd mounts the BPF file system for root alone (mode 0700). To pass through it is allowed to
/// everybody, if anybody else is to reach pins in it; to list it is not. Pins have modes of their
/// own, which by default are for their owner alone.
fn open_the_way(bpf_dir: &Path) -> anyhow::Result<()> {
    let above = bpf_dir.ancestors().skip(1);
    for directory in above.take_while(|path| check_bpf_file_system(path).is_ok()) {
        let what = || format!("letting others pass through {}", directory.display());
        let mode = fs::metadata(directory).with_context(what)?.mode();
        if mode & 0o001 == 0 {
            let wanted = Permissions::from_mode(mode & 0o7777 | 0o111);
            fs::set_permissions(directory, wanted).with_context(what)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Uid, geteuid};

    use super::*;

    /// Somebody, if this is run as root; else whoever runs it.
    fn somebody() -> User {
        let mut user = User::from_uid(geteuid()).unwrap().unwrap();
        if user.uid.is_root() {
            user.uid = Uid::from_raw(54_321);
        }
        user
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_ours_changes_hands() {
        let temporary = tempfile::tempdir().unwrap();
        let (user, dir) = (somebody(), temporary.path().join("a/b"));
        give_one(&dir, &user, &|_| false).unwrap();
        let facts = fs::metadata(&dir).unwrap();
        assert_eq!(
            (facts.uid(), facts.mode() & 0o777),
            (user.uid.as_raw(), MODE)
        );
        // Belongs to the user: whatever is in it stays as it is.
        fs::write(dir.join("other"), "").unwrap();
        give_one(&dir, &user, &|_| false).unwrap();
        assert_eq!(
            fs::metadata(dir.join("other")).unwrap().uid(),
            geteuid().as_raw()
        );
    }

    #[test]
    fn a_directory_with_others_things_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("mine"), "").unwrap();
        let own = |name: &str| name == "mine";
        fs::write(temporary.path().join("passwd"), "").unwrap();
        let error = give_one(temporary.path(), &somebody(), &own).unwrap_err();
        assert!(error.to_string().contains("passwd in it is not"), "{error}");
        for path in [temporary.path(), &temporary.path().join("mine")] {
            assert_eq!(fs::metadata(path).unwrap().uid(), 0, "{}", path.display());
        }
        fs::remove_file(temporary.path().join("passwd")).unwrap();
        give_one(temporary.path(), &somebody(), &own).unwrap();
        for path in [temporary.path(), &temporary.path().join("mine")] {
            let uid = fs::metadata(path).unwrap().uid();
            assert_eq!(uid, somebody().uid.as_raw(), "{}", path.display());
        }
    }
}
