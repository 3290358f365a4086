//! Control groups of version 2, without which local clients cannot be served.

use std::path::PathBuf;

use super::Finding;
use crate::{datapath::cgroup_root, domain::kernel::KernelError};

const SUBJECT: &str = "cgroup";

/// `root` is where such groups are, `wanted` the one that is configured, and whether it is there.
pub(super) fn finding(root: Result<PathBuf, String>, wanted: Option<(PathBuf, bool)>) -> Finding {
    let root = match root {
        Ok(root) => root,
        Err(error) => {
            return Finding::missing(
                SUBJECT,
                error,
                "`mount -t cgroup2 none /sys/fs/cgroup`, or start the kernel with \
                 systemd.unified_cgroup_hierarchy=1",
            );
        }
    };
    match wanted {
        Some((path, false)) => Finding::missing(
            SUBJECT,
            format!("there is no {}", path.display()),
            format!(
                "`mkdir {}`, or another `cgroup` under [node]",
                path.display()
            ),
        ),
        Some((path, true)) => Finding::fine(SUBJECT, format!("clients in {}", path.display())),
        None => Finding::fine(SUBJECT, format!("all of {}", root.display())),
    }
}

/// Looks for them.
pub(super) fn examine(wanted: Option<PathBuf>) -> Finding {
    let root = cgroup_root().map_err(|error: KernelError| error.to_string());
    let wanted = wanted.map(|path| {
        let there = path.join("cgroup.procs").exists();
        (path, there)
    });
    finding(root, wanted)
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn groups_must_be_there() {
        let root = || Ok(PathBuf::from("/sys/fs/cgroup"));
        let slice = |there| Some((PathBuf::from("/sys/fs/cgroup/x"), there));
        let rows = [
            (root(), None, State::Fine, "all of /sys/fs/cgroup"),
            (root(), slice(true), State::Fine, "/sys/fs/cgroup/x"),
            (
                root(),
                slice(false),
                State::Missing,
                "there is no /sys/fs/cgroup/x",
            ),
            (
                Err("none is mounted".into()),
                None,
                State::Missing,
                "none is mounted",
            ),
        ];
        for (root, wanted, state, words) in rows {
            let finding = finding(root, wanted);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(words), "{finding:?}");
        }
    }
}
