//! A host: a network namespace that is removed again, whatever happens.
//!
//! Names are `lb-<pid>-<n>-<label>`, so that runs side by side do not meet and what a killed run
//! left behind can be told from what is in use.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};

use crate::cleanup::{self, Guard};

/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";

/// A network namespace of our own, with `lo` up, and set up for tests: addresses are usable at
/// once (no duplicate address detection), no router is asked for, no packet is refused for its
/// source address.
#[derive(Debug)]
pub struct Namespace {
    entry: Entry,
    _guard: Guard,
}

/// The way into a namespace, for threads that outlive a borrow. It does not keep it alive.
#[derive(Clone, Debug)]
pub struct Entry {
    name: Arc<str>,
}

impl Namespace {
    /// Creates a namespace whose name ends in `label`. Needs root and iproute2.
    pub fn new(label: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| {
            // What cannot be removed is in nobody's way: names are unique.
            let _ = sweep();
        });
        // A killed run with the same process id may have left one of the first names behind.
        let name = loop {
            let name = unique_name(label);
            if !Path::new(NAMESPACES).join(&name).exists() {
                break Arc::<str>::from(name);
            }
        };
        let guard = cleanup::on_exit({
            let name = Arc::clone(&name);
            move || drop(run_tool(Command::new("ip").args(["netns", "del", &name])))
        });
        run_tool(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self {
            entry: Entry { name },
            _guard: guard,
        };
        namespace.set_up()?;
        Ok(namespace)
    }

    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The way in, for others.
    pub fn entry(&self) -> Entry {
        self.entry.clone()
    }

    /// Runs `f` inside, on a thread of its own; sockets it opens stay in the namespace. A panic
    /// in `f` goes on in the caller.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.entry
                    .enter()
                    .unwrap_or_else(|error| panic!("{error:#}"));
                f()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that runs inside. Unlike `ip netns exec`, it sees the host's /sys, so that
    /// pinned maps are where they are for everybody else.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        self.entry.command(program)
    }

    /// Runs `program` inside to its end and returns what it printed; an error holds its complaint.
    pub fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        run_tool(self.command(program)?.args(args))
    }

    /// Sets `net.<key>`, dots or slashes between the parts.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key.replace('.', "/"));
        self.run(|| fs::write(&path, value))
            .with_context(|| format!("cannot set {} in {}", path.display(), self.name()))
    }

    fn set_up(&self) -> Result<()> {
        for scope in ["all", "default"] {
            self.sysctl(&format!("ipv4.conf.{scope}.rp_filter"), "0")?;
            self.sysctl(&format!("ipv6.conf.{scope}.disable_ipv6"), "0")?;
            self.sysctl(&format!("ipv6.conf.{scope}.accept_dad"), "0")?;
            self.sysctl(&format!("ipv6.conf.{scope}.accept_ra"), "0")?;
            self.sysctl(&format!("ipv6.conf.{scope}.router_solicitations"), "0")?;
        }
        self.tool("ip", &["link", "set", "lo", "up"]).map(drop)
    }
}

impl Entry {
    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace for good.
    pub fn enter(&self) -> Result<()> {
        let file = self.open()?;
        set_namespace(&file).with_context(|| format!("cannot enter namespace {}", self.name))
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let file = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: the closure makes one system call on a descriptor that it owns; it neither
        // allocates nor takes locks.
        unsafe { command.pre_exec(move || set_namespace(&file)) };
        Ok(command)
    }

    /// Number of the namespace, the same as of `/proc/PID/ns/net` of processes in it.
    pub fn id(&self) -> Result<u64> {
        let file = self.open()?;
        Ok(file.metadata().context("cannot look at a namespace")?.ino())
    }

    fn open(&self) -> Result<File> {
        let path = Path::new(NAMESPACES).join(&*self.name);
        File::open(&path).with_context(|| format!("namespace {} is gone", self.name))
    }
}

fn set_namespace(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; setns(2) changes nothing but the calling thread.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs a tool to its end and returns its standard output. The error holds the command line and
/// what it wrote on standard error; a missing tool is named with the way to get it.
pub fn run_tool(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "{} is not installed; `cargo xtask setup` installs it",
            command.get_program().to_string_lossy()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot run `{line}`")),
    })?;
    if !output.status.success() {
        bail!(
            "`{line}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub(crate) fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// A name nobody else uses: `lb-<pid>-<n>-<label>`.
pub fn unique_name(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("lb-{}-{number}-{label}", std::process::id())
}

/// The process that chose this name with [`unique_name`]; `None` for other names.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix("lb-")?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    let _number: u32 = parts.next()?.parse().ok()?;
    parts.next()?;
    Some(pid)
}

/// The entries of `directory` that carry a unique name of a process that no longer lives.
pub(crate) fn stale(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            owner(&entry.file_name().to_string_lossy())
                .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        })
        .map(|entry| entry.path())
        .collect()
}

/// Removes what killed runs left behind, and returns the names of the namespaces removed.
/// Happens by itself before the first namespace is made.
pub fn sweep() -> Vec<String> {
    crate::agent::sweep_pins();
    crate::scratch::sweep();
    stale(Path::new(NAMESPACES))
        .into_iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|name| run_tool(Command::new("ip").args(["netns", "del", name])).is_ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner(&unique_name("a-b")), Some(std::process::id()));
        for foreign in [
            "lb",
            "lb-1",
            "lb-1-2",
            "lb-x-2-a",
            "xlb-1-2-a",
            "lb-agent-1",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn stale_is_what_a_dead_process_owns() {
        let directory = tempfile::tempdir().unwrap();
        // Above the largest pid the kernel gives out (PID_MAX_LIMIT, 2^22).
        for name in ["lb-4194305-0-dead", "other", &unique_name("alive")] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(
            stale(directory.path()),
            [directory.path().join("lb-4194305-0-dead")]
        );
    }

    #[test]
    fn a_failing_tool_is_quoted() {
        let error = run_tool(Command::new("ip").args(["netns", "del", "lb-none"])).unwrap_err();
        assert!(error.to_string().contains("`ip netns del lb-none` failed"));
        let error = run_tool(&mut Command::new("/nonexistent/tool")).unwrap_err();
        assert!(error.to_string().contains("cargo xtask setup"));
    }
}
