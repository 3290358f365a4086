//! The terminal, taken for pictures and given back whatever happens.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    panic,
    sync::Once,
};

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

/// Standard output without its lock: the command holds that, and whoever panics in another thread
/// must still be able to give the terminal back.
fn output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// The terminal while pictures are on it. Dropping it gives the terminal back.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<File>>>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let former = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                former(panic);
            }));
        });
        // Whatever fails from here on, the terminal goes back.
        let screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(BufWriter::new(output()?)))?,
        };
        take()?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, paint: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(paint)?;
        Ok(())
    }

    /// Gives the terminal to whoever started this, until they want it to go on.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP)?;
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    let mut output = output()?;
    execute!(output, EnterAlternateScreen, Hide)
}

/// Nothing can be done if it fails, for the terminal is what would tell of it.
fn give_back() {
    if let Ok(mut output) = output() {
        let _ = execute!(output, LeaveAlternateScreen, Show);
        let _ = output.flush();
    }
    let _ = disable_raw_mode();
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read as _,
        process::{Command, Stdio},
        thread,
    };

    use nix::{
        pty::{Winsize, openpty},
        sys::termios::tcgetattr,
    };

    use super::*;

    /// Set for the process that is to fail with a picture on its terminal.
    const FAILING: &str = "LB_TEST_FAILING_PICTURE";

    fn fail_with_a_picture() {
        let mut screen = Screen::enter().unwrap();
        let draw = |frame: &mut Frame<'_>| frame.render_widget("drawn", frame.area());
        screen.draw(draw).unwrap();
        panic!("something is wrong");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told_of() {
        if std::env::var_os(FAILING).is_some() {
            fail_with_a_picture();
        }
        let size = Winsize {
            ws_row: 10,
            ws_col: 40,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let ends = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&ends.slave).unwrap();
        let mut ours = File::from(ends.master);
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            let mut buffer = [0; 4096];
            // EIO tells that nobody has the terminal any more.
            while let Ok(length @ 1..) = ours.read(&mut buffer) {
                all.extend_from_slice(&buffer[..length]);
            }
            String::from_utf8_lossy(&all).into_owned()
        });
        let stream = || Stdio::from(ends.slave.try_clone().unwrap());
        let name = "cli::top::screen::tests::a_panic_gives_the_terminal_back_before_it_is_told_of";
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", name])
            .env(FAILING, "1")
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .status()
            .unwrap();
        assert!(!ended.success());
        assert_eq!(tcgetattr(&ends.slave).unwrap(), before);
        drop(ends.slave);
        let written = reader.join().unwrap();
        let at = |part: &str| {
            let found = written.find(part);
            found.unwrap_or_else(|| panic!("no {part:?} in {written:?}"))
        };
        let order = [
            "\u{1b}[?1049h",
            "drawn",
            "\u{1b}[?1049l",
            "something is wrong",
        ]
        .map(at);
        assert!(order.is_sorted(), "{order:?} in {written:?}");
    }
}
