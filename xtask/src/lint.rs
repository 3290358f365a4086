//! `cargo xtask lint`: formatting and clippy, for both halves, warnings denied.

use anyhow::Result;

use crate::{build_ebpf, run, setup};

/// Checks formatting first, for it needs nothing built.
///
/// # Errors
/// Something is not formatted, clippy finds something, or set-up fails.
pub(crate) fn run() -> Result<()> {
    run::run(
        "find the workspace formatted (mend with `cargo fmt --all`)",
        run::cargo().args(["fmt", "--all", "--check"]),
    )?;
    run::run(
        "find lb-ebpf formatted (mend with `cargo fmt --manifest-path lb-ebpf/Cargo.toml`)",
        run::cargo().args(["fmt", "--manifest-path", "lb-ebpf/Cargo.toml", "--check"]),
    )?;
    setup::ensure(setup::Purpose::Lint)?;
    build_ebpf::clippy()?;
    // The agent embeds the object, so even looking at the agent needs it built.
    build_ebpf::build()?;
    run::run(
        "lint the workspace",
        run::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )
}
