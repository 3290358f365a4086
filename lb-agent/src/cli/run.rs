//! `run`: the agent itself.

use std::path::PathBuf;

use super::{failure::Failure, privilege};

/// Where the configuration is, unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/lb-agent/config.toml";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

pub(super) async fn execute(args: &Args) -> Result<(), Failure> {
    let config = crate::config::load(&args.config).map_err(Failure::Configuration)?;
    privilege::check()?;
    crate::doctor::kernel::check().map_err(Failure::Refused)?;
    crate::logging::start();
    crate::run::run(config, &args.config)
        .await
        .map_err(Failure::Run)
}
