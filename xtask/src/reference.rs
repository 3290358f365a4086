//! `cargo xtask reference`: writes `docs/reference` from the code. The unit tests compare.

use anyhow::Result;

use crate::{build_ebpf, run, setup};

/// Writes every page.
///
/// # Errors
/// Set-up or a build fails, or what the code says contradicts itself.
pub(crate) fn run() -> Result<()> {
    setup::ensure(setup::Purpose::Build)?;
    build_ebpf::build()?;
    run::run(
        "write docs/reference",
        run::cargo()
            .args([
                "test",
                "--package",
                "lb-agent",
                "--lib",
                "--",
                "reference::",
            ])
            .env("LB_WRITE_REFERENCE", "1"),
    )
}
