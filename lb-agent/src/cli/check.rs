//! `check`: whether a configuration is valid, without touching anything.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    failure::Failure,
    output::{Printer, counted},
};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    file: PathBuf,
}

#[derive(Serialize)]
struct Valid {
    file: PathBuf,
    valid: bool,
    interfaces: Vec<String>,
    services: Vec<String>,
}

pub(super) fn execute(args: Args, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let config = crate::config::load(&args.file).map_err(Failure::Configuration)?;
    let valid = Valid {
        file: args.file,
        valid: true,
        interfaces: config.node.interfaces,
        services: config
            .services
            .iter()
            .map(|spec| spec.name.clone())
            .collect(),
    };
    printer.print(&valid, |valid| {
        format!(
            "{} is valid: {} on {}",
            valid.file.display(),
            counted(valid.services.len() as u64, "service"),
            valid.interfaces.join(", ")
        )
    })?;
    Ok(())
}
