//! Structured logs on stderr: for people on a terminal, JSON elsewhere. `RUST_LOG` filters,
//! `NO_COLOR` is honoured.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

/// Begins to log. To be called once.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    if terminal {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_ansi(colour).with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
