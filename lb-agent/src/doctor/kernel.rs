//! The kernel: what the programs need of it, found out by trying.

use std::{fs, path::Path};

use super::Finding;
use crate::{
    datapath::{self, Verified, feature},
    domain::kernel::KernelError,
};

/// The kernel's release, as `uname -r` says.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "of unknown version".into(), |text| text.trim().into())
}

/// Whether the programs can work here at all; asked before anything is loaded.
///
/// # Errors
///
/// One sentence: this kernel, the feature that it lacks, and the oldest that has it.
pub fn check() -> Result<(), String> {
    match feature::compare_and_swap() {
        Ok(true) => Ok(()),
        Ok(false) => Err(too_old(&release())),
        Err(error) => Err(format!(
            "this kernel ({}) does not run BPF programs: {error}",
            release()
        )),
    }
}

fn too_old(release: &str) -> String {
    format!(
        "this kernel ({release}) is too old: its BPF programs have no compare-and-swap, which the \
         flow table is kept with; Linux {} is the oldest that has it",
        feature::COMPARE_AND_SWAP_SINCE
    )
}

pub(super) fn examine(bpf_dir: &Path) -> Vec<Finding> {
    let release = release();
    let swap = feature::compare_and_swap();
    // Without it, the verifier's long answer would say no more.
    let programs = matches!(swap, Ok(true)).then(|| datapath::verify().map_err(|e| one_line(&e)));
    let mut findings = vec![compare_and_swap(&release, swap.map_err(|e| one_line(&e)))];
    findings.extend(programs.map(of_programs));
    findings.push(tcx(feature::tcx().map_err(|e| one_line(&e))));
    findings.push(pins(bpf_dir, datapath::check_bpf_file_system(bpf_dir)));
    findings.push(type_information(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
    ));
    // The first network namespace alone has the file.
    if let Ok(setting) = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        findings.push(compiler(&setting));
    }
    if let Ok(setting) = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid") {
        findings.push(perf_events(&setting));
    }
    findings
}

/// The first line: of the verifier's log, the rest is for developers.
fn one_line(error: &KernelError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn compare_and_swap(release: &str, swap: Result<bool, String>) -> Finding {
    const SUBJECT: &str = "kernel";
    match swap {
        Ok(true) => Finding::fine(SUBJECT, format!("Linux {release}, with compare-and-swap")),
        Ok(false) => Finding::missing(SUBJECT, too_old(release), "install a newer kernel"),
        Err(error) => Finding::missing(
            SUBJECT,
            format!("Linux {release} does not run BPF programs: {error}"),
            "see whether the kernel's configuration or a security module forbids bpf(2)",
        ),
    }
}

fn of_programs(verified: Result<Vec<Verified>, String>) -> Finding {
    const SUBJECT: &str = "programs";
    match verified {
        Ok(programs) => {
            let instructions: u64 = programs
                .iter()
                .filter_map(|program| program.instructions)
                .map(u64::from)
                .sum();
            let found = format!(
                "{} admitted by the verifier after {instructions} instructions",
                programs.len()
            );
            Finding::fine(SUBJECT, found)
        }
        Err(error) => Finding::missing(
            SUBJECT,
            error,
            "this kernel's verifier refuses them: report it with the kernel's version",
        ),
    }
}

fn tcx(tcx: Result<bool, String>) -> Finding {
    const SUBJECT: &str = "tcx";
    let newer = || {
        format!(
            "Linux {} or newer; until then, programs in traffic control are filters of a qdisc",
            feature::TCX_SINCE
        )
    };
    match tcx {
        Ok(true) => Finding::fine(SUBJECT, "programs can be linked to traffic control"),
        Ok(false) => Finding::advice(SUBJECT, "this kernel has no links to it", newer()),
        Err(error) => Finding::advice(SUBJECT, error, newer()),
    }
}

fn pins(bpf_dir: &Path, checked: Result<(), KernelError>) -> Finding {
    const SUBJECT: &str = "pins";
    match checked {
        Ok(()) => Finding::fine(
            SUBJECT,
            format!("{} is on a BPF file system", bpf_dir.display()),
        ),
        Err(_) => Finding::missing(
            SUBJECT,
            format!("{} is not on a BPF file system", bpf_dir.display()),
            "mount one with `mount -t bpf bpf /sys/fs/bpf`",
        ),
    }
}

fn type_information(present: bool) -> Finding {
    const SUBJECT: &str = "BTF";
    if present {
        return Finding::fine(SUBJECT, "the kernel describes its types");
    }
    Finding::advice(
        SUBJECT,
        "the kernel does not describe its types",
        "a kernel with CONFIG_DEBUG_INFO_BTF, for tools that look into the programs",
    )
}

fn compiler(setting: &str) -> Finding {
    const SUBJECT: &str = "JIT";
    if setting.trim() == "0" {
        return Finding::advice(
            SUBJECT,
            "programs are interpreted, which is slow",
            "`sysctl net.core.bpf_jit_enable=1`, then start the agent again",
        );
    }
    Finding::fine(SUBJECT, "programs are compiled")
}

/// Levels above 2 are of Debian's and Android's kernels only, and keep out whoever has CAP_PERFMON
/// without CAP_SYS_ADMIN.
fn perf_events(setting: &str) -> Finding {
    const SUBJECT: &str = "perf events";
    match setting.trim().parse() {
        Ok(3..=i32::MAX) => Finding::advice(
            SUBJECT,
            "for root alone, so that an agent of another user does not keep fragments that come out of \
             order; they go to the node's stack",
            "`sysctl -w kernel.perf_event_paranoid=2`, then start the agent again",
        ),
        _ => Finding::fine(SUBJECT, "for the agent too: early fragments are kept"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn each_answer_is_a_finding_of_its_kind() {
        use State::{Advice, Fine, Missing};
        let dir = Path::new("/sys/fs/bpf/x");
        let refused = || KernelError::new("using it", "no");
        let rows = [
            (compare_and_swap("6.1", Ok(true)), Fine, "Linux 6.1"),
            (compare_and_swap("5.10", Ok(false)), Missing, "5.10"),
            (
                compare_and_swap("6.1", Err("EPERM".into())),
                Missing,
                "EPERM",
            ),
            (of_programs(Ok(Vec::new())), Fine, "0 admitted"),
            (of_programs(Err("too many".into())), Missing, "too many"),
            (tcx(Ok(true)), Fine, "linked"),
            (tcx(Ok(false)), Advice, "no links"),
            (pins(dir, Ok(())), Fine, "/sys/fs/bpf/x"),
            (pins(dir, Err(refused())), Missing, "not on a BPF"),
            (type_information(true), Fine, "types"),
            (type_information(false), Advice, "does not"),
            (compiler("1\n"), Fine, "compiled"),
            (compiler("0\n"), Advice, "interpreted"),
            (perf_events("2\n"), Fine, "too"),
            (perf_events("-1\n"), Fine, "too"),
            (perf_events("3\n"), Advice, "root alone"),
        ];
        for (finding, state, words) in rows {
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(words), "{finding:?}");
            assert_eq!(finding.mend.is_some(), state != Fine, "{finding:?}");
        }
    }

    #[test]
    fn an_old_kernel_is_told_in_one_sentence() {
        let told = too_old("5.10.0-32-cloud-amd64");
        for word in ["5.10.0-32-cloud-amd64", "compare-and-swap", "5.12"] {
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(told.lines().count(), 1);
    }
}
