//! `detach`: takes the programs and maps off the node, and what holds the proxy's listening sockets.
//! The only command that ends traffic.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::net::UnixStream;

use super::{failure::Failure, output::Printer, privilege};
use crate::{config::HELD_SOCKETS, proxy::front::holder};

/// Where the pins are, unless told otherwise.
pub(super) const DEFAULT_BPF_DIR: &str = "/sys/fs/bpf/lb-agent";

/// Arguments of `detach`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the pins; that of the configuration if one is given, else
    /// /sys/fs/bpf/lb-agent
    #[arg(long, value_name = "DIR")]
    bpf_dir: Option<PathBuf>,
    /// Configuration file, for the directory of the pins and the socket of the agent
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Detach although the agent is running
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Detached {
    removed: Vec<String>,
}

pub(super) async fn execute(
    args: Args,
    socket: &Path,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    privilege::check()?;
    let config = args
        .config
        .map(|file| crate::config::load(&file).map_err(Failure::Configuration))
        .transpose()?;
    let socket = config
        .as_ref()
        .map_or_else(|| socket.to_owned(), |config| config.node.socket());
    let bpf_dir = args
        .bpf_dir
        .or_else(|| config.map(|config| config.node.bpf_dir))
        .unwrap_or_else(|| DEFAULT_BPF_DIR.into());
    if !args.force && UnixStream::connect(&socket).await.is_ok() {
        return Err(Failure::Refused(format!(
            "the agent is running (it listens on {}) and would lose its maps; stop it first \
             (`systemctl stop lb-agent`), or give --force",
            socket.display()
        )));
    }
    let mut removed = crate::datapath::detach(&bpf_dir)
        .map_err(|error| Failure::Run(anyhow::Error::new(error)))?;
    let held = socket.with_file_name(HELD_SOCKETS);
    let sockets = holder::end(&held).map_err(Failure::Run)?;
    if sockets > 0 {
        removed.push(format!("{sockets} listening sockets of the proxy"));
    }
    printer.print(&Detached { removed }, |detached| {
        if detached.removed.is_empty() {
            return format!("nothing to remove in {}", bpf_dir.display());
        }
        let lines: Vec<String> = detached
            .removed
            .iter()
            .map(|what| format!("removed: {what}"))
            .collect();
        lines.join("\n")
    })?;
    Ok(())
}
