//! The Debian package, installed, upgraded, removed and purged in a copy of this machine.

use std::{path::PathBuf, process::Command};

use lb_tests::{backend::program, namespace::run_tool, overlay::Overlay, scratch::Scratch};

/// The worst score of `systemd-analyze security` that the unit may have, times ten: the tool's own
/// way of writing 3.0.
const WORST: &str = "30";

const UNIT: &str = "/usr/lib/systemd/system/lb-agent.service";

/// Packages of the program beside this test.
fn build(scratch: &Scratch, revision: &str) -> PathBuf {
    let mut xtask = Command::new(program("xtask").unwrap());
    xtask.env(
        "CARGO_MANIFEST_DIR",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask"),
    );
    xtask.args(["package", "--revision", revision, "--fast", "--binary"]);
    xtask.arg(program("lb-agent").unwrap());
    xtask.arg("--out").arg(scratch.path());
    let said = run_tool(&mut xtask).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("package: "));
    line.expect(&said).into()
}

/// Everything that is in the package is there and works, nothing is started, and what the operator
/// has changed is kept.
#[test]
fn a_package_from_installation_to_purge() {
    let scratch = Scratch::new().unwrap();
    let (first, second) = (build(&scratch, "1"), build(&scratch, "2"));
    let overlay = Overlay::mount().unwrap();
    overlay.put(&first, "/tmp/first.deb").unwrap();
    overlay.put(&second, "/tmp/second.deb").unwrap();

    let sh = |script: &str| {
        overlay
            .shell(script)
            .unwrap_or_else(|error| panic!("{script}: {error:#}"))
    };
    // As a machine is that has never had it.
    sh("rm -rf /etc/lb-agent /var/lib/lb-agent /usr/bin/lb-agent");
    sh("dpkg --install /tmp/first.deb");
    let files = sh("dpkg --listfiles lb-agent");
    for file in [
        "/usr/bin/lb-agent",
        "/etc/lb-agent/config.toml",
        "/etc/logrotate.d/lb-agent",
        UNIT,
        "/usr/lib/sysusers.d/lb-agent.conf",
        "/usr/share/man/man1/lb-agent.1.gz",
        "/usr/share/man/man1/lb-agent-split-set.1.gz",
        "/usr/share/man/man5/lb-agent.toml.5.gz",
        "/usr/share/doc/lb-agent/copyright",
        "/usr/share/doc/lb-agent/changelog.Debian.gz",
    ] {
        assert!(files.lines().any(|line| line == file), "{file}: {files}");
    }
    sh("cd / && md5sum --check --quiet /var/lib/dpkg/info/lb-agent.md5sums");
    assert_eq!(
        sh("find /etc/systemd -name 'lb-agent*'"),
        "",
        "it is not enabled"
    );
    let user = sh("getent passwd lb-agent");
    assert!(user.contains("/usr/sbin/nologin"), "{user}");
    sh(
        "setpriv --reuid=lb-agent --regid=lb-agent --clear-groups lb-agent check /etc/lb-agent/config.toml",
    );

    completions_work(&overlay);
    manual_pages_render(&overlay);
    the_unit_is_sound(&overlay);

    // What the operator wrote stays; the program is the new one's.
    sh("echo '# mine' >> /etc/lb-agent/config.toml; adduser --quiet nobody lb-agent");
    sh("dpkg --install /tmp/second.deb </dev/null");
    assert_eq!(sh("tail -n 1 /etc/lb-agent/config.toml"), "# mine\n");
    let version = sh("dpkg-query --show --showformat '${Version}' lb-agent");
    assert!(version.ends_with("-2"), "{version}");

    sh("mkdir -p /var/lib/lb-agent && touch /var/lib/lb-agent/state.json");
    sh("dpkg --remove lb-agent");
    sh(
        "test ! -e /usr/bin/lb-agent && test -e /etc/lb-agent/config.toml && test -e /var/lib/lb-agent/state.json",
    );
    sh("dpkg --purge lb-agent");
    let left = sh(
        "find / -xdev -path /proc -prune -o -name '*lb-agent*' -print | grep -vE '^/(tmp|work|root|home|var/lib/systemd)/' || true",
    );
    assert_eq!(left, "", "what a purge leaves");
}

/// Each in the shell that it is for: loaded as that shell does it, and asked for a word.
fn completions_work(overlay: &Overlay) {
    let bash = "/usr/share/bash-completion/completions/lb-agent";
    overlay.tool("bash", &["-n", bash]).unwrap();
    let ask = format!(
        "source {bash}; set -- $(complete -p lb-agent); while test $1 != -F; do shift; done; \
         COMP_WORDS=(lb-agent split sh); COMP_CWORD=2; $2 lb-agent sh split; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\" | sort"
    );
    let said = overlay.tool("bash", &["--norc", "-c", &ask]).unwrap();
    assert_eq!(said, "shift\nshow\n");

    let zsh = "fpath=(/usr/share/zsh/vendor-completions $fpath); autoload -Uz compinit; \
               compinit -u -D; autoload +X _lb-agent; print $_comps[lb-agent]";
    let said = overlay.tool("zsh", &["-f", "-c", zsh]).unwrap();
    assert_eq!(said, "_lb-agent\n");

    let fish = "complete -C 'lb-agent split sh'";
    let said = overlay
        .tool(
            "fish",
            &[
                "--no-config",
                "-c",
                &format!("source /usr/share/fish/vendor_completions.d/lb-agent.fish; {fish}"),
            ],
        )
        .unwrap();
    let words: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(words, ["shift", "show"], "{said}");
}

/// Without a warning, and a word of each is found where it should be.
fn manual_pages_render(overlay: &Overlay) {
    let script = "for page in /usr/share/man/man*/lb-agent*.gz; do \
                  MANWIDTH=80 man --warnings --local-file --encoding=UTF-8 $page >/tmp/page 2>/tmp/warnings; \
                  test ! -s /tmp/warnings || { echo $page; cat /tmp/warnings; }; \
                  test $(wc -l </tmp/page) -gt 10 || echo $page is short; done";
    assert_eq!(overlay.shell(script).unwrap(), "");
    let found = overlay
        .shell("MANWIDTH=80 man lb-agent.toml | cat")
        .unwrap();
    assert!(found.contains("interfaces = [\"eth0\"]"), "{found}");
}

/// As systemd sees it; its score is printed.
fn the_unit_is_sound(overlay: &Overlay) {
    let run = |args: &[&str]| {
        let output = overlay.command("systemd-analyze", args).output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text)
    };
    let (sound, text) = run(&["verify", UNIT]);
    let about: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("lb-agent"))
        .collect();
    assert!(sound && about.is_empty(), "{text}");
    let threshold = format!("--threshold={WORST}");
    let (fits, text) = run(&["security", "--offline=true", "--no-pager", &threshold, UNIT]);
    let score = text
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    println!("{}", score.expect(&text).trim());
    assert!(fits, "{text}");
}

/// As Debian's own checker sees it.
#[test]
fn lintian_finds_no_error() {
    let scratch = Scratch::new().unwrap();
    let package = build(&scratch, "1");
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--allow-root", "--fail-on", "error"])
        .arg(package);
    println!("{}", run_tool(&mut lintian).unwrap());
}
