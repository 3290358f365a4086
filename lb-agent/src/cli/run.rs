//! `run`: the agent itself.

use std::path::PathBuf;

use super::{failure::Failure, privilege};

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

pub(super) async fn execute(args: &Args) -> Result<(), Failure> {
    let config = crate::config::load(&args.config).map_err(Failure::Configuration)?;
    privilege::check()?;
    crate::doctor::kernel::check().map_err(Failure::Refused)?;
    crate::logging::start();
    crate::run::run(config, &args.config, args.replace_schema)
        .await
        .map_err(Failure::Run)
}
