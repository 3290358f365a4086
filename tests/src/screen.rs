//! A program on a pseudo terminal, with what a person would see of it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::process::wait_for;

/// How long a program may take until it has shown what it is told to, or has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that believes to be on a terminal. Dropping it kills it.
pub struct Screen {
    child: Child,
    keys: File,
    seen: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    /// Starts `command` on a terminal of this many columns and lines.
    pub fn start(mut command: Command, columns: u16, lines: u16) -> Result<Self> {
        let (ours, theirs) = open(columns, lines).context("cannot open a pseudo terminal")?;
        let stream = || -> Result<Stdio> { Ok(theirs.try_clone()?.into()) };
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.stdin(stream()?).stdout(stream()?).stderr(stream()?);
        // SAFETY: setsid and ioctl may be called between fork and exec; nothing else is done.
        unsafe {
            command.pre_exec(|| {
                let taken = libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0;
                taken.then_some(()).ok_or_else(io::Error::last_os_error)
            });
        }
        let child = command.spawn().context("cannot start the program")?;
        // It holds streams of its own, which must not outlive it here.
        drop((command, theirs));
        let seen = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let mut output = ours.try_clone()?;
        thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let mut buffer = [0; 8192];
                // EIO tells that nobody has the terminal any more.
                while let Ok(length @ 1..) = output.read(&mut buffer) {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.process(&buffer[..length]);
                }
            }
        });
        Ok(Self {
            child,
            keys: ours,
            seen,
        })
    }

    /// What is on it, a line after another.
    pub fn text(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.screen().contents()
    }

    /// Whether the program has taken the terminal for itself: the other screen, no cursor.
    pub fn taken(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.screen().alternate_screen() && seen.screen().hide_cursor()
    }

    /// Whether lines are edited and echoed, as a shell expects it.
    pub fn cooked(&self) -> Result<bool> {
        // SAFETY: termios is plain data, for which all zeroes is a value.
        let mut modes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and `modes` is writable.
        if unsafe { libc::tcgetattr(self.keys.as_raw_fd(), &raw mut modes) } != 0 {
            return Err(io::Error::last_os_error()).context("cannot read the terminal's modes");
        }
        Ok(modes.c_lflag & (libc::ICANON | libc::ECHO) == libc::ICANON | libc::ECHO)
    }

    /// Whether any cell has a colour.
    pub fn coloured(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = seen.screen();
        let (lines, columns) = screen.size();
        let cells = (0..lines).flat_map(|line| (0..columns).map(move |column| (line, column)));
        cells
            .filter_map(|(line, column)| screen.cell(line, column))
            .any(|cell| cell.fgcolor() != vt100::Color::Default)
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes()).context("cannot type")
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, columns: u16, lines: u16) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.screen_mut().set_size(lines, columns);
        let size = size(columns, lines);
        // SAFETY: the descriptor is open, and `size` is what the call reads.
        if unsafe { libc::ioctl(self.keys.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } != 0 {
            return Err(io::Error::last_os_error()).context("cannot set the terminal's size");
        }
        Ok(())
    }

    /// Waits until what is on it fits.
    pub fn wait(&self, what: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        wait_for(what, PATIENCE, || {
            let text = self.text();
            Ok(fits(&text).then_some(text))
        })
        .with_context(|| format!("the screen shows\n{}", self.text()))
    }

    /// The process, for signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program has ended.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait_for("the program to end", PATIENCE, || Ok(child.try_wait()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, lines: u16) -> libc::winsize {
    libc::winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Both ends: ours, and the program's.
fn open(columns: u16, lines: u16) -> io::Result<(File, File)> {
    let (mut ours, mut theirs) = (-1, -1);
    let mut size = size(columns, lines);
    // SAFETY: both ends and the size are valid; name and modes may be null.
    let opened = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut size,
        )
    };
    if opened != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: openpty has just opened both for us.
    let ends = unsafe { [OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)] };
    for end in &ends {
        // Other children that are started meanwhile must not hold the terminal open.
        // SAFETY: the descriptor is open.
        unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    let [ours, theirs] = ends;
    Ok((ours.into(), theirs.into()))
}
