//! What a person sees who gets something wrong: one clear sentence, the right exit code, never a
//! panic.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use lb_tests::{
    agent::{Output, Setup},
    namespace::Namespace,
    scratch::Scratch,
};

use crate::scene::{Scene, hosts};

/// The agent's binary, beside the test's.
fn binary() -> std::path::PathBuf {
    lb_tests::backend::program("lb-agent").unwrap()
}

/// Runs the agent's binary in a namespace, as root.
fn run(namespace: &Namespace, args: &[&str]) -> Output {
    finish(namespace.command(binary()).unwrap(), args)
}

/// The same as nobody, who gets a copy: the path to the original may be closed to others than
/// root.
fn run_as_nobody(namespace: &Namespace, scratch: &Scratch, args: &[&str]) -> Output {
    let copy = scratch.path().join("lb-agent");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Copied by a child: what this process holds open for writing, a child that another test starts
    // at that moment holds too until it executes, and then the kernel refuses to run the file.
    let copied = Command::new("install")
        .args(["-m", "0755"])
        .args([binary().as_path(), copy.as_path()])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let mut command = namespace.command("setpriv").unwrap();
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(copy);
    finish(command, args)
}

/// Runs it to its end, without a panic.
fn finish(mut command: Command, args: &[&str]) -> Output {
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    let output = Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    for word in ["panicked", "backtrace", "thread '"] {
        assert!(!output.stderr.contains(word), "{args:?}: {}", output.stderr);
    }
    output
}

/// Rows of arguments, exit code, and words of the message.
#[test]
fn without_an_agent() {
    let node = Namespace::new("node").unwrap();
    let scratch = Scratch::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let service = "[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\n";
    let dirs = format!(
        "state_dir = {0:?}\nruntime_dir = {0:?}\nbpf_dir = \"/sys/fs/bpf/lb-none\"\n",
        scratch.path().display().to_string()
    );
    let unknown_key = file(
        "key.toml",
        &format!("[node]\ninterfaces = [\"lo\"]\ncolour = 1\n{service}backends = []\n"),
    );
    let bad_address = file(
        "address.toml",
        "[node]\ninterfaces = [\"lo\"]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100:80\"]\nbackends = []\n",
    );
    let twice = file(
        "twice.toml",
        &format!(
            "[node]\ninterfaces = [\"lo\"]\n{service}backends = []\n{}backends = []\n",
            service.replace("echo", "other")
        ),
    );
    let subset = file(
        "subset.toml",
        &format!(
            "[node]\ninterfaces = [\"lo\"]\n{service}backends = [{{ address = \"10.0.0.1:80\", subset = \"v1\" }}]\nsplit = {{ v9 = 1 }}\n"
        ),
    );
    let nonsense = file("nonsense.toml", "[node\n");
    let no_interface = file(
        "interface.toml",
        &format!("[node]\ninterfaces = [\"nope0\"]\n{dirs}{service}backends = []\n"),
    );
    let no_bpffs = file(
        "bpffs.toml",
        &format!(
            "[node]\ninterfaces = [\"lo\"]\n{}{service}backends = []\n",
            dirs.replace("/sys/fs/bpf/lb-none", &scratch.path().display().to_string())
        ),
    );
    let valid = file(
        "valid.toml",
        &format!("[node]\ninterfaces = [\"lo\"]\n{dirs}{service}backends = []\n"),
    );
    let bad_list = file("list", "192.0.2.1\n192.0.2.300\n");
    let socket = scratch.path().join("none.sock").display().to_string();
    let never = scratch.path().join("never.pcapng").display().to_string();

    let rows: &[(&[&str], i32, &str)] = &[
        (&["check", &valid], 0, ""),
        (&["check", &unknown_key], 2, "key.toml:3:1: "),
        (&["check", &bad_address], 2, "address.toml:5:"),
        (&["check", &twice], 2, "twice.toml:9:8: "),
        (&["check", &subset], 2, "v9"),
        (&["check", &nonsense], 2, "nonsense.toml:1:"),
        (&["check", "/nowhere.toml"], 2, "/nowhere.toml"),
        (&["run", "--config", &unknown_key], 2, "key.toml:3:1: "),
        (&["run", "--config", &no_interface], 1, "nope0"),
        (&["run", "--config", &no_bpffs], 1, "mount -t bpf"),
        (&["status"], 4, "is not running"),
        (&["split", "set", "echo", "v1=1"], 4, "lb-agent run"),
        (&["split", "set", "echo", "v1=most"], 2, "whole number"),
        (&["split", "set", "echo", "v1"], 2, "v1=90"),
        (&["block", "add", "192.0.2.0/33"], 2, "`192.0.2.0/33`"),
        (&["block", "add", "192.0.2.1", "--ttl", "soon"], 2, "soon"),
        (&["block", "import", &bad_list], 2, "list:2: "),
        (&["trace"], 4, "is not running"),
        (&["trace", "--src", "192.0.2.0/33"], 2, "`192.0.2.0/33`"),
        (
            &["trace", "--verdict", "bloked"],
            2,
            "no verdict `bloked`; there are drop (blocked, ",
        ),
        (&["capture", "-w", &never], 4, "is not running"),
        (&["capture", "-w", &never, "--dst", "here"], 2, "`here`"),
        (&["capture"], 2, "--write"),
        (&["flow", "list"], 4, "is not running"),
        (
            &["flow", "list", "--client", "10.0.0.300"],
            2,
            "`10.0.0.300`",
        ),
        (&["flow", "list", "--state", "open"], 2, "half_open"),
        (&["flow", "count", "--by", "colour"], 2, "backend"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["status", "-o", "yaml"], 2, "yaml"),
    ];
    for (args, code, words) in rows {
        let args: Vec<&str> = ["--socket", &socket].iter().chain(*args).copied().collect();
        let output = run(&node, &args);
        assert_eq!(output.code, *code, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(words), "{args:?}: {}", output.stderr);
    }
    assert!(!fs::exists(&never).unwrap(), "a file for nothing");
}

/// Who may not says so at once.
#[test]
fn not_root() {
    let node = Namespace::new("node").unwrap();
    let scratch = Scratch::new().unwrap();
    let config = scratch.path().join("c.toml");
    fs::write(&config, "[node]\ninterfaces = [\"lo\"]\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let config = config.display().to_string();
    for args in [&["run", "--config", &config][..], &["detach"]] {
        let output = run_as_nobody(&node, &scratch, args);
        assert_eq!(output.code, 1, "{args:?}: {}", output.stderr);
        assert!(
            output.stderr.contains("run it as root"),
            "{}",
            output.stderr
        );
        assert_eq!(output.stderr.trim().lines().count(), 1, "{}", output.stderr);
    }

    // The socket of a running agent is for root and its group.
    let (topology, _backends) = hosts(1);
    let agent = Setup::new(&topology).start().unwrap();
    let directory = topology.directory();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = agent.socket().display().to_string();
    let output = run_as_nobody(&node, &scratch, &["--socket", &socket, "status"]);
    assert_eq!(output.code, 4, "{}", output.stderr);
    let words = "run this as root or as a member";
    assert!(output.stderr.contains(words), "{}", output.stderr);
}

/// Rows against a running agent.
#[test]
fn with_an_agent() {
    let scene = Scene::listed(&["v1"], "", "");
    let rows: &[(&[&str], i32, &str)] = &[
        (
            &["service", "show", "nope"],
            1,
            "there is no service `nope`; configured are echo",
        ),
        (
            &["backend", "list", "nope"],
            1,
            "there is no service `nope`",
        ),
        (
            &["split", "set", "nope", "v1=1"],
            1,
            "there is no service `nope`",
        ),
        (&["split", "set", "echo", "v9=1"], 1, "no subset `v9`"),
        (
            &["drain", "echo", "10.9.9.9:1"],
            1,
            "has no backend `10.9.9.9:1`",
        ),
        (&["undrain", "echo", "10.77.1.2:8080"], 1, "is not drained"),
        (
            &["block", "del", "192.0.2.9"],
            1,
            "is not on the block list",
        ),
        (&["block", "add", "0.0.0.0/0"], 1, "--force"),
        (
            &["flow", "list", "--service", "nope"],
            1,
            "there is no service `nope`; configured are echo",
        ),
        (
            &["flow", "list", "--backend", "nope"],
            2,
            "`nope` is no address",
        ),
        (
            &["trace", "--src", "10.0.0.1", "--dst", "::1"],
            2,
            "different address families",
        ),
    ];
    for (args, code, words) in rows {
        let output = scene.agent.cli(args).unwrap();
        assert_eq!(output.code, *code, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(words), "{args:?}: {}", output.stderr);
        assert_eq!(output.stderr.trim().lines().count(), 1, "{}", output.stderr);
    }
}

/// A second agent on the same socket keeps away from the first one's programs.
#[test]
fn a_second_agent_is_refused() {
    let (topology, _backends) = hosts(1);
    let agent = Setup::new(&topology).start().unwrap();
    let config = agent.config_file().display().to_string();
    let output = run(topology.node(), &["run", "--config", &config]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("another agent"), "{}", output.stderr);
    agent.command(&["status"]).unwrap();
}
