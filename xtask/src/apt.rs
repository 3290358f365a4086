//! Installing through apt, without having a single service started.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::Result;

use crate::run;

/// Where packages' scripts ask whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Runs a command with a policy that forbids starting services, and takes the policy away again
/// however the command or the person at the keyboard ends it. `$0` is [`POLICY`].
const WITHOUT_SERVICES: &str = r#"
trap 'rm -f "$0"' EXIT
trap 'exit 130' INT TERM HUP
printf '#!/bin/sh\n# Of `cargo xtask setup`, while it installs: start no service.\nexit 101\n' > "$0"
chmod 755 "$0"
"$@"
"#;

/// Daemons among our packages, by package, that their installation has started at every boot. What
/// a package brings with it counts as its own.
const BOOT_SERVICES: [(&str, &str); 6] = [
    ("prometheus", "prometheus.service"),
    ("haproxy", "haproxy.service"),
    ("nginx", "nginx.service"),
    ("docker.io", "docker.service"),
    ("docker.io", "docker.socket"),
    ("docker.io", "containerd.service"),
];

/// Options that hold for every `apt-get install` of ours: no questions, nothing that was not
/// asked for, patience while somebody else installs.
const INSTALL: [&str; 6] = [
    "install",
    "--yes",
    "--no-install-recommends",
    "--quiet",
    "-o",
    "DPkg::Lock::Timeout=300",
];

/// Whether this machine has apt at all.
pub(crate) fn is_here() -> bool {
    run::find_program("apt-get").is_some() && run::find_program("dpkg-query").is_some()
}

/// Those of `packages` that are not installed, in the order given.
pub(crate) fn not_installed(packages: Vec<String>) -> Vec<String> {
    let mut query = Command::new("dpkg-query");
    query
        .args([
            "--show",
            "--showformat",
            "${db:Status-Status} ${Package}\\n",
        ])
        .args(&packages);
    // It fails when it does not know one of them, and still lists the others.
    let listed = query
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    let installed: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    packages
        .into_iter()
        .filter(|package| !installed.contains(package.as_str()))
        .collect()
}

/// Fetches the package lists; `options` narrow it down.
///
/// # Errors
/// `apt-get update` fails.
pub(crate) fn update(options: &[&str]) -> Result<()> {
    let mut update = Command::new("apt-get");
    update
        .args(["update", "--quiet", "-o", "DPkg::Lock::Timeout=300"])
        // By default a list that could not be fetched is only a warning.
        .args(["-o", "APT::Update::Error-Mode=any"])
        .args(options);
    run::run("fetch the package lists", &mut update)
}

/// Those of `packages` that apt could not install, because no source has them.
///
/// # Errors
/// `apt-cache policy` fails.
pub(crate) fn unavailable(packages: &[String]) -> Result<Vec<String>> {
    let mut policy = Command::new("apt-cache");
    policy.env("LC_ALL", "C").arg("policy").args(packages);
    let said = run::output("ask apt which packages there are", &mut policy)?;
    let available = available_in(&said);
    Ok(packages
        .iter()
        .filter(|package| !available.contains(package.as_str()))
        .cloned()
        .collect())
}

/// Installs `packages`, and sees to it that none of them starts by itself, now or later.
///
/// # Errors
/// `apt-get install` fails, or a daemon cannot be kept from starting.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    install_with(&[], packages)
}

/// The same with further options for apt, such as other sources.
///
/// # Errors
/// As for [`install`].
pub(crate) fn install_with(options: &[String], packages: &[String]) -> Result<()> {
    let coming = coming_with(packages);
    let mut command = if Path::new(POLICY).exists() {
        // Somebody already decides which services start here.
        Command::new("apt-get")
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", WITHOUT_SERVICES, POLICY, "apt-get"]);
        shell
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(INSTALL)
        .args(options)
        .args(packages);
    run::run(&format!("install {}", packages.join(", ")), &mut command)?;
    for service in coming {
        keep_off(service)?;
    }
    Ok(())
}

/// Services that these packages bring. One that is here already is somebody's, who may want it.
fn coming_with(packages: &[String]) -> Vec<&'static str> {
    let here = |unit: &str| {
        ["/usr/lib", "/lib", "/etc"].iter().any(|directory| {
            Path::new(directory)
                .join("systemd/system")
                .join(unit)
                .exists()
        })
    };
    BOOT_SERVICES
        .into_iter()
        .filter(|(package, _)| packages.iter().any(|wanted| wanted == package))
        .map(|(_, unit)| unit)
        .filter(|unit| !here(unit))
        .collect()
}

/// Takes back that `service` starts at boot; where there is no systemd, nothing does that.
fn keep_off(service: &str) -> Result<()> {
    let Some(systemctl) = run::find_program("systemctl") else {
        return Ok(());
    };
    let mut disable = Command::new(systemctl);
    disable.args(["disable", "--quiet", service]);
    run::run(
        &format!("keep {service} from starting at boot"),
        &mut disable,
    )
}

/// What to type, as root, to install `packages`.
pub(crate) fn install_command(packages: &[String]) -> String {
    format!(
        "apt-get update && apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    )
}

/// The packages in the answer of `apt-cache policy` that have a candidate. Packages that apt
/// never heard of are not in the answer.
fn available_in(policy: &str) -> BTreeSet<&str> {
    let mut package = "";
    let mut available = BTreeSet::new();
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            package = name;
        } else if let Some(candidate) = line.trim().strip_prefix("Candidate: ")
            && candidate != "(none)"
        {
            available.insert(package);
        }
    }
    available
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    #[test]
    fn only_packages_with_a_candidate_are_available() {
        let policy = "wrk:\n  Installed: (none)\n  Candidate: 4.1.0-3\n  Version table:\n\
                      \u{20}    4.1.0-3 500\n\
                      consul:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(available_in(policy), BTreeSet::from(["wrk"]));
    }

    #[test]
    fn services_are_forbidden_only_while_the_command_runs() {
        for (script, code) in [("true", 0), ("exit 7", 7), ("kill -TERM $PPID", 130)] {
            let policy = env::temp_dir().join(format!("xtask-policy-{}-{code}", process::id()));
            let seen = policy.with_extension("seen");
            let script = format!("\"$0\"; echo $? > \"$1\"; {script}");
            let status = Command::new("sh")
                .args(["-c", WITHOUT_SERVICES])
                .arg(&policy)
                .args(["sh", "-c", &script])
                .arg(&policy)
                .arg(&seen)
                .status()
                .unwrap();
            let answer = fs::read_to_string(&seen).unwrap();
            fs::remove_file(&seen).unwrap();
            assert_eq!(answer.trim(), "101", "the policy's answer while it runs");
            assert_eq!(status.code(), Some(code), "{script}");
            assert!(!policy.exists(), "{script}");
        }
    }
}
