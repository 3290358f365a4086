//! The agent as a whole.

use std::path::Path;

use anyhow::Context;

/// Runs the agent with the configuration at `config` until it is told to stop.
///
/// # Errors
///
/// The configuration cannot be read.
pub async fn run(config: &Path) -> anyhow::Result<()> {
    tokio::fs::read_to_string(config)
        .await
        .with_context(|| format!("cannot read the configuration {}", config.display()))?;
    Ok(())
}
