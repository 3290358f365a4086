//! What each packet costs besides the programs: mitigations and the hardening of the compiler.

use std::{fs, path::Path};

use super::Finding;

/// What the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Processor {
    /// As in `Mitigation: Retpolines; …`; absent: not told.
    pub(super) spectre_v2: Option<String>,
    /// `net.core.bpf_jit_harden`; absent: not told, as in other than the first network namespace.
    pub(super) harden: Option<u8>,
}

pub(super) fn findings(facts: &Processor) -> Vec<Finding> {
    let spectre = facts.spectre_v2.as_deref().map(|text| {
        let cost = if text.contains("Retpoline") {
            "retpolines: drivers and the stack pay for every indirect call, tc more than native XDP"
        } else {
            "no retpolines"
        };
        Finding::fine("mitigations", format!("{cost} ({text})"))
    });
    let harden = facts.harden.map(|harden| match harden {
        2 => Finding::advice(
            "JIT hardening",
            "programs of root are blinded too, which makes each packet dearer",
            "`sysctl -w net.core.bpf_jit_harden=1`, then start the agent again",
        ),
        _ => Finding::fine("JIT hardening", "the agent's programs are not blinded"),
    });
    spectre.into_iter().chain(harden).collect()
}

/// Reads from /sys and /proc/sys under `root`.
pub(super) fn read(root: &Path) -> Processor {
    let text = |path: &str| -> Option<String> {
        let text = fs::read_to_string(root.join(path)).ok()?;
        Some(text.trim().to_owned())
    };
    Processor {
        spectre_v2: text("sys/devices/system/cpu/vulnerabilities/spectre_v2"),
        harden: text("proc/sys/net/core/bpf_jit_harden").and_then(|text| text.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn costs_are_told_and_hardening_is_mended() {
        let facts = |spectre: &str, harden| Processor {
            spectre_v2: Some(spectre.into()),
            harden: Some(harden),
        };
        let rows = [
            (
                facts("Mitigation: Retpolines; RSB filling", 1),
                "retpolines: ",
                State::Fine,
            ),
            (
                facts("Mitigation: Enhanced IBRS", 0),
                "no retpolines",
                State::Fine,
            ),
            (facts("Vulnerable", 2), "no retpolines", State::Advice),
        ];
        for (facts, words, state) in rows {
            let findings = findings(&facts);
            assert!(findings[0].found.starts_with(words), "{findings:?}");
            assert_eq!(findings[1].state, state, "{findings:?}");
        }
        assert_eq!(findings(&Processor::default()), []);
    }
}
