//! What on this node the agent needs or would like, each with what was found and how to mend it.
//!
//! [`kernel`] examines the kernel, [`docker`] the engine whose containers are registered. Every area has a file of its own with a function that answers
//! with [`Finding`]s.

use std::path::{Path, PathBuf};

use serde::Serialize;

pub mod docker;
pub mod kernel;

/// How a finding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Fine,
    /// The agent works, and could do better or more.
    Advice,
    /// The agent does not work.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it counts.
    pub state: State,
    /// What it is like.
    pub found: String,
    /// What to do about it; only where it is not fine.
    pub mend: Option<String>,
}

impl Finding {
    fn fine(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            subject,
            state: State::Fine,
            found: found.into(),
            mend: None,
        }
    }

    fn advice(subject: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            subject,
            state: State::Advice,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn missing(subject: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            state: State::Missing,
            ..Self::advice(subject, found, mend)
        }
    }
}

/// Looks at everything; `bpf_dir` is where the maps are pinned, `engine` the socket of the Docker
/// engine, if there is to be one. Attaches and leaves nothing.
pub async fn examine(bpf_dir: &Path, engine: Option<PathBuf>) -> Vec<Finding> {
    let mut findings = kernel::examine(bpf_dir);
    if let Some(socket) = engine {
        findings.push(docker::examine(socket).await);
    }
    findings
}

/// What keeps the agent from working, in one sentence; `None` if nothing does.
pub fn complaint(findings: &[Finding]) -> Option<String> {
    let missing: Vec<String> = findings
        .iter()
        .filter(|finding| finding.state == State::Missing)
        .map(|finding| match &finding.mend {
            Some(mend) => format!("{}: {}; {mend}", finding.subject, finding.found),
            None => format!("{}: {}", finding.subject, finding.found),
        })
        .collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_a_complaint() {
        let fine = Finding::fine("kernel", "6.1");
        let advice = Finding::advice("tcx", "absent", "upgrade");
        let missing = Finding::missing("pins", "no BPF file system", "mount one");
        assert_eq!(complaint(&[fine.clone(), advice.clone()]), None);
        assert_eq!(
            complaint(&[fine, missing, advice]).unwrap(),
            "pins: no BPF file system; mount one"
        );
    }
}
