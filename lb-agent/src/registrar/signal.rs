//! Signals that a container is told to end by.

use std::str::FromStr as _;

use nix::{libc, sys::signal::Signal};

/// Whether a container that is to be stopped by one signal (`None`: by the engine's default) is
/// about to end when it gets the other. Those of `docker kill` that mean something else to the
/// process (`HUP`, `USR1`) do not count.
pub(super) fn ends(stop: Option<&str>, sent: i32) -> bool {
    let own = stop.map_or(Some(Signal::SIGTERM as i32), number);
    own == Some(sent) || [Signal::SIGTERM as i32, Signal::SIGKILL as i32].contains(&sent)
}

/// Reads a signal as the engine does: `SIGQUIT`, `QUIT`, `3` or `SIGRTMIN+3`.
fn number(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse() {
        return Some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |from: i32, rest: &str| match rest {
        "" => Some(from),
        rest => Some(from + rest.parse::<i32>().ok()?),
    };
    // The engine counts from 34, as the C library does.
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => real_time(libc::SIGRTMIN(), rest),
        (_, Some(rest)) => real_time(libc::SIGRTMAX(), rest),
        _ => Some(Signal::from_str(&format!("SIG{name}")).ok()? as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_signals_end_a_container() {
        let rows = [
            (None, 15, true),
            (None, 9, true),
            (None, 1, false),
            (None, 10, false),
            (Some("SIGQUIT"), 3, true),
            (Some("SIGQUIT"), 15, true),
            (Some("SIGQUIT"), 28, false),
            (Some("winch"), 28, true),
            (Some("3"), 3, true),
            (Some("SIGRTMIN+3"), 37, true),
            (Some("SIGRTMAX-1"), 63, true),
            (Some("SIGRTMIN+x"), 34, false),
            (Some("nonsense"), 0, false),
            (Some("nonsense"), 9, true),
        ];
        for (stop, sent, expected) in rows {
            assert_eq!(ends(stop, sent), expected, "{stop:?} {sent}");
        }
    }
}
