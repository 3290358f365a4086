//! Children that never outlive the test, with what they print in a file.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    cleanup::{self, Guard},
    namespace::command_line,
    pace::at_this_pace,
};

/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Lines of output that an error quotes.
const TAIL_LINES: usize = 15;

/// A child process. Dropping it ends it: SIGTERM, and SIGKILL after five seconds. It gets a
/// process group of its own, so that a Ctrl-C reaches the harness alone, which then ends its
/// children in order; and it is killed by the kernel should the harness be killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Arc<Mutex<Child>>,
    _guard: Guard,
}

/// Signals that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Terminate,
    /// End at once, without a chance to clean up.
    Kill,
    /// Stand still; see [`Process::freeze`].
    Stop,
    /// Go on.
    Continue,
    /// Open the log anew.
    Reopen,
    /// Read the configuration again.
    Hangup,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Self::Terminate => libc::SIGTERM,
            Self::Kill => libc::SIGKILL,
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
            Self::Hangup => libc::SIGHUP,
            Self::Reopen => libc::SIGUSR1,
        }
    }
}

impl Process {
    /// Starts `command`; what it prints is appended to the file `log`. `name` is used in errors.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let line = command_line(&command);
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let errors = output.try_clone().context("cannot share the log")?;
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let child = spawn(command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!(
                    "{name} is not installed; run `cargo xtask setup`, then `cargo xtask build`"
                )
            }
            _ => anyhow::Error::new(error).context(format!("cannot run `{line}`")),
        })?;
        let child = Arc::new(Mutex::new(child));
        let guard = cleanup::on_exit({
            let child = Arc::clone(&child);
            move || drop(end(&child, GRACE))
        });
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
            _guard: guard,
        })
    }

    /// Its process id, valid until it has been waited for.
    pub fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// How it ended; `None` while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Sends a signal. A child that has ended takes none: its id may be another's by now.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(&mut lock(&self.child), signal)
            .with_context(|| format!("cannot send {signal:?} to {}", self.name))
    }

    /// Freezes it, and returns when every thread stands still: the signal alone takes its time.
    /// [`Signal::Continue`] ends it.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::Stop)?;
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        wait_for(&format!("{} to stand still", self.name), GRACE, || {
            self.ensure_running()?;
            Ok(all_stopped(&tasks)?.then_some(()))
        })
    }

    /// Kills it without a warning and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::Kill)?;
        self.wait(GRACE).map(drop)
    }

    /// Asks it to end, kills it after five seconds, and says how it ended.
    pub fn stop(&self) -> Result<ExitStatus> {
        end(&self.child, GRACE).with_context(|| format!("cannot stop {}", self.name))
    }

    /// Waits until it has ended by itself.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        wait_for(&format!("the end of {}", self.name), timeout, || {
            Ok(self.exited())
        })
    }

    /// An error with the end of its output if it no longer runs.
    pub fn ensure_running(&self) -> Result<()> {
        match self.exited() {
            None => Ok(()),
            Some(status) => bail!("{} ended ({}); {}", self.name, Ended(status), self.tail()),
        }
    }

    /// Everything it has printed so far.
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of its output, introduced for an error message.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        match lines.len() {
            0 => "it printed nothing".to_owned(),
            count => format!(
                "it printed last:\n{}",
                lines[count.saturating_sub(TAIL_LINES)..].join("\n")
            ),
        }
    }
}

/// An exit status in words.
struct Ended(ExitStatus);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => self.0.fmt(f),
        }
    }
}

/// Polls until there is a value, at most `timeout` long (longer on a slow machine: see
/// [`crate::pace`]). An error from `poll` ends it at once;
/// `what` completes the sentence "gave up waiting for …".
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let timeout = at_this_pace(timeout);
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = poll().with_context(|| format!("failed waiting for {what}"))? {
            return Ok(value);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("gave up waiting for {what} after {timeout:?}");
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Whether all threads in a directory of /proc are in state `T` (proc_pid_stat(5)).
fn all_stopped(tasks: &Path) -> Result<bool> {
    for task in fs::read_dir(tasks)? {
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            // It has just ended: look again.
            return Ok(false);
        };
        // The name before the state may hold anything, parentheses as well.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        if state != Some(b'T') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a program can be found in `PATH`.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Signals a child that has not been waited for, whose id therefore is still its own.
fn send(child: &mut Child, signal: Signal) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = libc::pid_t::try_from(child.id()).expect("a pid is positive");
    // SAFETY: kill(2) takes two integers.
    match unsafe { libc::kill(pid, signal.number()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn end(child: &Mutex<Child>, grace: Duration) -> Result<ExitStatus> {
    send(&mut lock(child), Signal::Terminate)?;
    // A frozen child would not notice.
    send(&mut lock(child), Signal::Continue)?;
    let ended = wait_for("its end", grace, || Ok(lock(child).try_wait()?));
    ended.or_else(|_| {
        send(&mut lock(child), Signal::Kill)?;
        Ok(lock(child).wait()?)
    })
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts all children: the kernel's promise to kill a child with its parent means the parent's
/// *thread*, and those of tests come and go.
static SPAWNER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, reply) in jobs {
                // The receiver waits for the answer.
                let _ = reply.send(command.spawn());
            }
        })
        .expect("cannot start the thread that starts children");
    sender
});

fn spawn(mut command: Command) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: the closure makes two system calls; it neither allocates nor takes locks.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
    let (reply, answer) = mpsc::channel();
    SPAWNER
        .send((command, reply))
        .expect("the spawner runs as long as the process");
    answer.recv().expect("the spawner answers every job")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("the script", command, log).unwrap()
    }

    #[test]
    fn an_early_end_is_told_with_the_output() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell(
            "echo out; echo err >&2; exit 3",
            &directory.path().join("log"),
        );
        process.wait(Duration::from_secs(10)).unwrap();
        let error = process.ensure_running().unwrap_err().to_string();
        assert_eq!(
            error,
            "the script ended (exit code 3); it printed last:\nout\nerr"
        );
        // Its id may belong to somebody else by now.
        process.signal(Signal::Kill).unwrap();
    }

    #[test]
    fn a_child_survives_the_thread_that_started_it_but_not_its_handle() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let process = thread::scope(|scope| {
            scope
                .spawn(|| shell("echo up; exec sleep 100", &log))
                .join()
                .unwrap()
        });
        wait_for("output", Duration::from_secs(10), || {
            process.ensure_running()?;
            Ok((process.output() == "up\n").then_some(()))
        })
        .unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn who_ignores_the_request_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell(
            "trap '' TERM; echo up; while :; do sleep 1; done",
            &directory.path().join("log"),
        );
        wait_for("output", Duration::from_secs(10), || {
            Ok((!process.output().is_empty()).then_some(()))
        })
        .unwrap();
        let status = end(&process.child, Duration::from_millis(50)).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_frozen_child_does_nothing_and_can_be_ended() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell("while :; do echo; done", &directory.path().join("log"));
        process.freeze().unwrap();
        let size = process.output().len();
        thread::yield_now();
        assert_eq!(process.output().len(), size);
        let status = process.stop().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn waiting_ends_with_what_was_awaited() {
        let error = wait_for::<()>("rain", Duration::from_millis(1), || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "gave up waiting for rain after 1ms");
        let error =
            wait_for::<()>("rain", Duration::from_secs(9), || bail!("drought")).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed waiting for rain: drought");
    }
}
