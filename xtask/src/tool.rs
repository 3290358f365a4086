//! Programs of others that are built with cargo, in exact versions, and kept under `target/tools`, so
//! that no other project's version gets in the way.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{run, workspace};

/// A program that `cargo install` builds.
pub(crate) struct Tool {
    /// Its name, which is also that of its crate.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// What it calls itself before its version.
    pub(crate) said: &'static str,
}

impl Tool {
    /// This tree's own, else one of the same version in PATH.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        [Some(self.own()), run::find_program(self.name)]
            .into_iter()
            .flatten()
            .find(|program| self.is_right_version(program))
    }

    /// Builds it under `target/tools`, with further arguments of `cargo install` and variables.
    ///
    /// # Errors
    /// `cargo install` fails.
    pub(crate) fn install(
        &self,
        arguments: &[&str],
        variables: &[(&str, &OsStr)],
    ) -> Result<PathBuf> {
        let tools = workspace::tools_dir();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(env::split_paths(&path).chain([tools.join("bin")]))
            .context("the path of this tree cannot stand in PATH")?;
        let mut install = run::cargo();
        install
            .args(["install", self.name, "--version", self.version, "--locked"])
            .args(arguments)
            .arg("--root")
            .arg(&tools)
            // Else cargo advises to add it to PATH, which nobody needs.
            .env("PATH", path)
            .envs(variables.iter().copied());
        run::run(&format!("install {}", self.name), &mut install)?;
        Ok(self.own())
    }

    /// Finds it, or builds it with these arguments.
    ///
    /// # Errors
    /// As for [`Tool::install`].
    pub(crate) fn ensure(&self, arguments: &[&str]) -> Result<PathBuf> {
        if let Some(program) = self.find() {
            return Ok(program);
        }
        println!(
            "setup: building {} {} (minutes, once)",
            self.name, self.version
        );
        self.install(arguments, &[])
    }

    fn own(&self) -> PathBuf {
        workspace::tools_dir().join("bin").join(self.name)
    }

    fn is_right_version(&self, program: &Path) -> bool {
        // Running it also shows that the libraries it was linked with are still there.
        run::output(
            &format!("ask {} for its version", self.name),
            run::command(program).arg("--version"),
        )
        .is_ok_and(|said| said.trim() == format!("{} {}", self.said, self.version))
    }
}
