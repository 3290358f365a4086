//! `cargo xtask test guest`: a plain Debian machine, in an emulator, that `vagrant/provision.sh` turns into
//! the demo; then everything that the script tells to try, and how the agent gets on with systemd.
//!
//! [`root`] makes the machine with an [`archive`] of packages in it, [`machine`] boots it, [`steps`] says
//! what is done there, [`judge`] what has to come of it, and [`outside`] looks in from the host.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{package, qemu, run, setup, transcript, workspace};

mod archive;
mod judge;
mod machine;
mod outside;
mod root;
mod steps;

use machine::Life;
use steps::{FIRST, PRELUDE, SECOND, Step};

/// Debian's releases that the script is for; the first is tried if none is named.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// Environment variable that names a package to test, instead of one made for it.
const GIVEN_PACKAGE: &str = "LB_AGENT_DEB";

/// What the guest is given of the tree.
const GIVEN: [&str; 2] = ["vagrant", "lb-agent/packaging"];

/// Makes the machine, the package, and lets the one be provisioned with the other.
///
/// # Errors
/// A release that is not known, something that cannot be made, or a step that did not end well.
pub(crate) fn run(suites: &[String]) -> Result<()> {
    run::require_root("the test of the provisioning")?;
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the test of the provisioning runs on x86_64 only"
    );
    if let Some(unknown) = suites.iter().find(|name| !SUITES.contains(&name.as_str())) {
        bail!("no release `{unknown}`: there are {}", SUITES.join(", "));
    }
    qemu::ensure()?;
    setup::ensure(setup::Purpose::Guest)?;
    let package = match env::var_os(GIVEN_PACKAGE) {
        Some(package) => PathBuf::from(package),
        None => package::build()?,
    };
    let first = [SUITES[0].to_owned()];
    let suites = if suites.is_empty() { &first } else { suites };
    for suite in suites {
        provision(suite, &package)?;
    }
    println!("\nguest: {} passed, 0 failed", suites.len());
    Ok(())
}

fn provision(suite: &str, package: &Path) -> Result<()> {
    let mut ask = Command::new("bash");
    ask.arg(workspace::root().join("vagrant/provision.sh"))
        .arg("packages");
    let installed = run::output("ask what the provisioning installs", &mut ask)?;
    let installed: Vec<String> = installed.lines().map(str::to_owned).collect();
    let root = root::get(suite, &installed)?;
    let logs = workspace::guests_dir().join(format!("{suite}.run"));
    fs::create_dir_all(&logs).with_context(|| format!("could not create {}", logs.display()))?;
    let given = give(package, &logs)?;
    println!("\nDebian {suite}:");
    let life = machine::live(&root, &given, &logs)?;
    let mut not_well = Vec::new();
    for step in FIRST.iter().chain(SECOND) {
        match judged(step, &life) {
            Ok(told) if told.is_empty() => println!("    passed  {}", step.name),
            Ok(told) => println!("    passed  {}: {told}", step.name),
            Err(error) => {
                show(step, &life);
                println!("    FAILED  {}: {error:#}", step.name);
                not_well.push(step.name);
            }
        }
    }
    ensure!(
        not_well.is_empty(),
        "these steps did not end well: {}; see steps.log, journal.log and console.log in {}",
        not_well.join(", "),
        life.logs.display()
    );
    transcript::no_faults(&life.console)?;
    println!("Debian {suite}: all of it in {} s", life.took.as_secs());
    Ok(())
}

fn judged(step: &Step, life: &Life) -> Result<String> {
    let (printed, code) = transcript::step(&life.transcript, step.name)?;
    let told = (step.judge)(printed, code)?;
    if step.name == outside::STEP {
        return life.outside.seen();
    }
    Ok(told)
}

/// Shows the end of what a step printed.
fn show(step: &Step, life: &Life) {
    const SHOWN: usize = 20;
    let printed = transcript::step(&life.transcript, step.name).map_or("", |(printed, _)| printed);
    let lines: Vec<&str> = printed.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        eprintln!("    {line}");
    }
}

/// An image with the package, the files of the tree that the script takes, and the steps.
fn give(package: &Path, logs: &Path) -> Result<PathBuf> {
    let directory = logs.join("given");
    let _ = fs::remove_dir_all(&directory);
    for path in GIVEN {
        let to = directory.join("tree").join(path);
        fs::create_dir_all(&to).with_context(|| format!("could not create {}", to.display()))?;
        let mut copy = Command::new("cp");
        copy.arg("--recursive")
            .arg(workspace::root().join(path).join("."))
            .arg(&to);
        run::run(&format!("copy {path}"), &mut copy)?;
    }
    fs::copy(package, directory.join("lb-agent.deb"))
        .with_context(|| format!("could not copy {}", package.display()))?;
    root::write(&directory.join("steps"), &script()?)?;
    let image = logs.join("given.img");
    root::make_image(&directory, &image, "256M")?;
    Ok(image)
}

/// Shows what systemd and the services said, where nobody judges it.
const JOURNAL: &str = "journalctl --boot --no-pager >&2\n";

/// What the machine does at each start: the steps up to the reboot, or those after it.
fn script() -> Result<String> {
    let mut script = format!("exec </dev/null >/dev/ttyS1 2>/dev/ttyS2\n{PRELUDE}");
    script.push_str("if [ ! -e /var/lib/rebooted ]; then\ntouch /var/lib/rebooted\n");
    phase(&mut script, FIRST)?;
    script.push_str(&format!("{JOURNAL}systemctl reboot\nelse\n"));
    phase(&mut script, SECOND)?;
    script.push_str(&format!("{JOURNAL}systemctl poweroff\nfi\n"));
    Ok(script)
}

fn phase(script: &mut String, steps: &[Step]) -> Result<()> {
    for step in steps {
        writeln!(
            script,
            "{}\n(\n{}\n)",
            transcript::begin(step.name),
            step.script
        )?;
        writeln!(script, "{}", transcript::end(step.name))?;
        if step.name == FIRST[0].name {
            // Nothing else can end well.
            writeln!(
                script,
                "[ $code = 0 ] || {{\n{JOURNAL}systemctl poweroff\nexit\n}}"
            )?;
        }
    }
    Ok(())
}
