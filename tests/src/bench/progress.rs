//! A line on standard error that says how far a benchmark is; nothing where that is no terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

const WIDTH: usize = 30;

/// The line. It vanishes when dropped.
#[derive(Debug)]
pub struct Progress {
    steps: usize,
    done: usize,
    started: Instant,
    shown: bool,
}

impl Progress {
    /// Begins at none of `steps`.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            done: 0,
            started: Instant::now(),
            shown: std::io::stderr().is_terminal(),
        }
    }

    /// One step more is done; `next` is what comes now.
    pub fn step(&mut self, next: &str) {
        self.done += 1;
        self.show(next);
    }

    /// Says what is being done.
    pub fn show(&self, what: &str) {
        if self.shown {
            let line = line(self.done, self.steps, self.started.elapsed(), what);
            // Back to the start, the line, and nothing of the former one behind it.
            eprint!("\r{line}\x1b[K");
            // A line that is late is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(done: usize, steps: usize, elapsed: Duration, what: &str) -> String {
    let steps = steps.max(1);
    let done = done.min(steps);
    let filled = WIDTH * done / steps;
    let bar = "=".repeat(filled) + &" ".repeat(WIDTH - filled);
    let left = if done == 0 {
        String::new()
    } else {
        let left = elapsed.mul_f64((steps - done) as f64 / done as f64);
        format!(", {} s left", left.as_secs())
    };
    format!("[{bar}] {done}/{steps}{left}  {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let seconds = Duration::from_secs;
        assert_eq!(
            line(0, 10, seconds(0), "first"),
            format!("[{}] 0/10  first", " ".repeat(30))
        );
        assert_eq!(
            line(5, 10, seconds(20), "next"),
            format!(
                "[{}{}] 5/10, 20 s left  next",
                "=".repeat(15),
                " ".repeat(15)
            )
        );
        assert!(line(12, 10, seconds(1), "").starts_with(&format!("[{}]", "=".repeat(30))));
    }
}
