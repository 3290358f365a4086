//! `cargo xtask test kernels`: the agent and its programs on other kernels than the machine's, each
//! in a guest of qemu's.
//!
//! [`image`] fetches a kernel through the [`catalog`](crate::catalog), [`binaries`] builds what is run,
//! [`guest`] packs both into an [`initramfs`] and boots it, [`transcript`] reads what came of it.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{qemu, run, setup, transcript, workspace};

mod binaries;
mod guest;
mod image;
mod initramfs;

use binaries::Binaries;
use guest::{Outcome, Step};
use image::Image;

/// A kernel that Debian carries.
struct Kernel {
    /// Its version, as far as it is ours to choose.
    version: &'static str,
    /// The suite that has it.
    suite: &'static str,
    /// What the agent makes of it.
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Everything passes.
    Works,
    /// The agent says in a sentence what is missing.
    Refused,
}

/// The oldest that Debian has at all, and the present one of each later release. What lies between
/// 5.10 and 6.1 Debian no longer carries.
const KERNELS: [Kernel; 4] = [
    Kernel {
        version: "5.10",
        suite: "bullseye",
        expected: Expected::Refused,
    },
    Kernel {
        version: "6.1",
        suite: "bookworm",
        expected: Expected::Works,
    },
    Kernel {
        version: "6.12",
        suite: "trixie",
        expected: Expected::Works,
    },
    Kernel {
        version: "7",
        suite: "sid",
        expected: Expected::Works,
    },
];

/// What is run of the tests of the programs: what leans on the kernel most. An emulated machine
/// takes a second and more for each, and logic does not differ from kernel to kernel. None whose flows
/// must not grow old meanwhile: such a machine can take longer than a half-open flow lives.
const DATAPATH: [&str; 10] = [
    VERIFIER,
    "rewrite::both_directions_of_every_kind",
    "adopted::sparse_backends",
    "block::longest_prefix_counts",
    "table::cut_clients_is_precise",
    "life::states_and_the_next_syn",
    "fragmented::follow_the_first",
    "answers::too_big",
    "errors::odd_quotes",
    "leaving::replies_of_every_shape",
];

/// What is run of the end-to-end tests: no time is measured in it, and its limits stretch.
const E2E: [&str; 1] = ["basics::from_the_first_packet_to_detach"];

/// How much longer than on the machine itself things may take.
const SLOWNESS: u32 = 10;

/// The test that prints what the verifier makes of each program.
const VERIFIER: &str = "verifier::every_program_is_within_its_budget";

/// Sets up, boots each of the kernels named in `versions` (all, if none is), and sums up.
///
/// # Errors
/// A kernel that is not known, cannot be fetched, or on which something fails.
pub(crate) fn run(versions: &[String]) -> Result<()> {
    run::require_root("the test of other kernels")?;
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the test of other kernels runs on x86_64 only"
    );
    let kernels = chosen(versions)?;
    setup::ensure(setup::Purpose::Demo)?;
    qemu::ensure()?;
    // All of them first: a suite that cannot be reached is told before anything runs.
    let images = kernels
        .iter()
        .map(|kernel| {
            image::get(kernel).with_context(|| format!("Linux {} is not here", kernel.version))
        })
        .collect::<Result<Vec<Image>>>()?;
    let binaries = binaries::build()?;
    let datapath = selected(&binaries.datapath, &DATAPATH)?;
    let e2e = selected(&binaries.e2e, &E2E)?;
    let mut failed = Vec::new();
    for (kernel, image) in kernels.iter().zip(&images) {
        println!("\nLinux {} (Debian {}):", image.release, kernel.suite);
        let told = match kernel.expected {
            Expected::Works => works(kernel, image, &binaries, &datapath, &e2e),
            Expected::Refused => refused(kernel, image, &binaries),
        };
        match told {
            Ok(told) => println!("{told}"),
            Err(error) => {
                eprintln!("FAILED: {error:#}");
                failed.push(image.release.as_str());
            }
        }
    }
    println!(
        "\nkernels: {} passed, {} failed",
        kernels.len() - failed.len(),
        failed.len()
    );
    ensure!(failed.is_empty(), "failed on Linux {}", failed.join(", "));
    Ok(())
}

fn chosen(versions: &[String]) -> Result<Vec<&'static Kernel>> {
    if versions.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    versions
        .iter()
        .map(|version| {
            KERNELS
                .iter()
                .find(|kernel| kernel.version == version)
                .with_context(|| {
                    let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.version).collect();
                    format!("no kernel `{version}`: there are {}", known.join(", "))
                })
        })
        .collect()
}

/// The names, all of which the binary must know.
fn selected(binary: &Path, names: &[&str]) -> Result<BTreeSet<String>> {
    let present = binaries::list(binary)?;
    if let Some(gone) = names.iter().find(|name| !present.contains(**name)) {
        bail!("there is no test {gone} any more: name another in xtask/src/kernels");
    }
    Ok(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Runs the tests on a kernel; answers with what to print.
fn works(
    kernel: &Kernel,
    image: &Image,
    binaries: &Binaries,
    datapath: &BTreeSet<String>,
    e2e: &BTreeSet<String>,
) -> Result<String> {
    let steps = [
        Step {
            name: "doctor",
            command: "/lb/lb-agent doctor".into(),
        },
        Step {
            name: "verifier",
            command: format!("/lb/deps/datapath --exact {VERIFIER} --nocapture"),
        },
        Step {
            name: "datapath",
            command: format!(
                "LB_TESTS_SLOWNESS={SLOWNESS} /lb/deps/datapath --test-threads 2 --exact {}",
                DATAPATH.join(" ")
            ),
        },
        Step {
            name: "e2e",
            command: format!(
                "LB_TESTS_SLOWNESS={SLOWNESS} /lb/deps/e2e --test-threads 1 --exact {}",
                E2E.join(" ")
            ),
        },
    ];
    let outcome = boot(kernel, image, binaries, &steps)?;
    let judge = || -> Result<String> {
        let (printed, code) = transcript::step(&outcome.transcript, "doctor")?;
        ensure!(code == 0, "`lb-agent doctor` ended with {code}:\n{printed}");
        transcript::all_passed(&outcome.transcript, "datapath", datapath)
            .context("tests of the programs")?;
        transcript::all_passed(&outcome.transcript, "e2e", e2e).context("end-to-end tests")?;
        transcript::no_faults(&outcome.console)?;
        let (verifier, code) = transcript::step(&outcome.transcript, "verifier")?;
        ensure!(
            code == 0,
            "the verifier's budgets are exceeded:\n{verifier}"
        );
        let counts: Vec<&str> = verifier
            .lines()
            .filter(|line| line.starts_with("verifier: "))
            .collect();
        ensure!(!counts.is_empty(), "no counts of the verifier:\n{verifier}");
        Ok(format!(
            "{}\npassed: {} tests of the programs and {} end to end in {} s",
            counts.join("\n"),
            datapath.len(),
            e2e.len(),
            outcome.took.as_secs()
        ))
    };
    judge().with_context(|| logs(kernel, &outcome))
}

/// Checks that the agent says what is missing, before it touches anything.
fn refused(kernel: &Kernel, image: &Image, binaries: &Binaries) -> Result<String> {
    let config = "/tmp/config.toml";
    let steps = [
        Step {
            name: "doctor",
            command: "/lb/lb-agent doctor".into(),
        },
        Step {
            name: "run",
            command: format!(
                "printf '[node]\\ninterfaces = [\"lo\"]\\n' >{config}\n\
                 /lb/lb-agent run --config {config}"
            ),
        },
        Step {
            name: "pins",
            command: "ls /sys/fs/bpf".into(),
        },
    ];
    let outcome = boot(kernel, image, binaries, &steps)?;
    let judge = || -> Result<String> {
        let mut told = String::new();
        for step in ["doctor", "run"] {
            let (printed, code) = transcript::step(&outcome.transcript, step)?;
            ensure!(
                code == 1,
                "`lb-agent {step}` ended with {code} where 1 is right:\n{printed}"
            );
            let sentence = printed
                .lines()
                .find(|line| line.starts_with("lb-agent: "))
                .with_context(|| format!("`lb-agent {step}` says no sentence:\n{printed}"))?;
            for word in [image.release.as_str(), "5.12", "compare-and-swap"] {
                ensure!(sentence.contains(word), "no word of {word}: {sentence}");
            }
            told.push_str(&format!("{step}: {sentence}\n"));
        }
        let (pins, _) = transcript::step(&outcome.transcript, "pins")?;
        ensure!(pins.trim().is_empty(), "left behind: {pins}");
        transcript::no_faults(&outcome.console)?;
        Ok(format!(
            "{told}passed: refused with a reason, in {} s",
            outcome.took.as_secs()
        ))
    };
    judge().with_context(|| logs(kernel, &outcome))
}

fn boot(kernel: &Kernel, image: &Image, binaries: &Binaries, steps: &[Step]) -> Result<Outcome> {
    let directory = log_directory(kernel);
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not create {}", directory.display()))?;
    guest::boot(image, binaries, steps, &directory)
}

fn log_directory(kernel: &Kernel) -> std::path::PathBuf {
    workspace::kernels_dir().join("runs").join(kernel.version)
}

/// Shows the end of what was printed, and says where the rest is.
fn logs(kernel: &Kernel, outcome: &Outcome) -> String {
    const SHOWN: usize = 60;
    let lines: Vec<&str> = outcome.transcript.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        eprintln!("    {line}");
    }
    let directory = log_directory(kernel);
    format!("see steps.log and console.log in {}", directory.display())
}
