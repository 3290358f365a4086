//! `run`: the agent itself.

use std::path::PathBuf;

use tokio::runtime::Builder;
use tracing::{info, warn};

use super::{failure::Failure, privilege, runtime};
use crate::privilege::drop::{self, Rights};

/// Where the configuration is, unless told otherwise.
pub(super) const DEFAULT_CONFIG: &str = "/etc/lb-agent/config.toml";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Replace the programs of an agent whose maps this one cannot read, without a gap: new
    /// connections are served all the time, those that are open in that moment may break, and
    /// counters begin anew
    #[arg(long)]
    replace_schema: bool,
}

pub(super) fn execute(args: &Args) -> Result<(), Failure> {
    let config = crate::config::load(&args.config).map_err(Failure::Configuration)?;
    privilege::check()?;
    // Before there is a second thread.
    let rights = drop::drop(&config).map_err(Failure::Run)?;
    crate::datapath::memory::share_arenas(config.proxy.count_threads());
    crate::doctor::kernel::check().map_err(Failure::Refused)?;
    crate::logging::start();
    match &rights {
        Rights::Given => {}
        Rights::Root => info!("works as root; `user` under [node] names who it becomes"),
        Rights::Dropped(user) => {
            info!(user, "works as this user, with few capabilities");
            if let Err(error) = std::fs::File::open(&args.config) {
                warn!(
                    %error,
                    user,
                    config = %args.config.display(),
                    "the configuration cannot be read again by this user: a reload will fail"
                );
            }
        }
    }
    runtime(Builder::new_multi_thread())?
        .block_on(crate::run::run(config, &args.config, args.replace_schema))
        .map_err(Failure::Run)
}

/// Arguments of `prepare`.
#[derive(Debug, clap::Args)]
pub(super) struct Prepare {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

pub(super) fn prepare(args: &Prepare) -> Result<(), Failure> {
    let config = crate::config::load(&args.config).map_err(Failure::Configuration)?;
    drop::prepare(&config).map_err(Failure::Run)
}
