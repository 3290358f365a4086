//! Whatever ends a test, nothing stays.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
};

use lb_tests::{
    docker::Docker,
    namespace,
    process::{Process, Signal, wait_for},
    topology::Topology,
};

use crate::PATIENCE;

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

fn names(topology: &Topology) -> Vec<String> {
    let mut names = vec![
        topology.client().name().to_owned(),
        topology.node().name().to_owned(),
    ];
    names.extend(
        topology
            .backends()
            .iter()
            .map(|host| host.name().to_owned()),
    );
    names
}

#[test]
fn nothing_is_left_when_a_test_panics() {
    let mut seen = Vec::new();
    let mut directory = PathBuf::new();
    let mut pid = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let topology = Topology::new(1).unwrap();
        seen = names(&topology);
        directory = topology.directory().to_owned();
        let backend = topology.start_echo(1).unwrap();
        pid = backend.process().pid();
        assert!(seen.iter().all(|name| exists(name)) && directory.exists());
        topology.client().run(|| panic!("on purpose"));
    }));
    assert!(outcome.is_err());
    assert_eq!(seen.len(), 3);
    for name in seen {
        assert!(!exists(&name), "{name} is still there");
    }
    assert!(!directory.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Starts the program `topology` and returns it with the namespaces it has made.
fn held_topology(log: &Path) -> (Process, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_topology"));
    command.args(["--backends", "1"]);
    let process = Process::start("topology", command, log).unwrap();
    wait_for("the topology", PATIENCE, || {
        process.ensure_running()?;
        Ok(process.output().contains("ready").then_some(()))
    })
    .unwrap();
    let pid = process.pid();
    let hosts = ["0-client", "1-node", "2-b1"];
    let names: Vec<String> = hosts
        .iter()
        .map(|host| format!("lb-{pid}-{host}"))
        .collect();
    for name in &names {
        assert!(exists(name), "{name} is not there");
    }
    (process, names)
}

#[test]
fn a_signal_removes_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (process, names) = held_topology(&directory.path().join("log"));
    process.signal(Signal::Terminate).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(143), "{}", process.tail());
    for name in names {
        assert!(!exists(&name), "{name} is still there");
    }
}

#[test]
fn what_a_killed_run_leaves_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let (process, names) = held_topology(&directory.path().join("log"));
    let prefix = format!("lb-{}-", process.pid());
    let scratch = || {
        let entries = fs::read_dir(std::env::temp_dir()).unwrap();
        entries
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.starts_with(&prefix))
            .count()
    };
    assert_eq!(scratch(), 1);
    process.kill().unwrap();
    // A namespace made at the same time by another test may have swept already.
    namespace::sweep();
    for name in names {
        assert!(!exists(&name), "{name} is still there");
    }
    assert_eq!(scratch(), 0);
}

#[test]
fn a_demo_that_fails_says_so_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .args(["--catalog", "file"])
        // It ends at once, whatever it is asked to do.
        .env("LB_AGENT_BIN", "/bin/false");
    let process = Process::start("the demo", command, &log).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.tail());
    let output = process.output();
    assert!(output.contains("✗"), "{output}");
    assert!(output.contains("lb-agent ended (exit code 1)"), "{output}");
    assert!(!output.contains('\x1b'), "colours without a terminal");
    let prefix = format!("lb-{}-", process.pid());
    let temporary = std::env::temp_dir();
    for place in [
        "/run/netns".as_ref(),
        "/sys/fs/bpf".as_ref(),
        temporary.as_path(),
    ] {
        for entry in fs::read_dir(place).unwrap() {
            let name = entry.unwrap().file_name();
            let ours = name.to_string_lossy().starts_with(&prefix);
            assert!(!ours, "{} is left in {}", name.display(), place.display());
        }
    }
}

/// Not even of an engine that was killed and whose containers outlived it.
#[test]
fn nothing_is_left_of_an_engine_that_was_killed() {
    let topology = Topology::new(0).unwrap();
    let directory = topology.directory().to_owned();
    let name = directory.file_name().unwrap().to_str().unwrap();
    let docker = Docker::start(topology.node(), &directory).unwrap();
    docker.run("web", &serde_json::json!({})).unwrap();
    let container = docker.inspect("web").unwrap()["State"]["Pid"].to_string();
    let container = Path::new("/proc").join(container);
    let of_ours = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines =
            processes.map(|entry| fs::read(entry.path().join("cmdline")).unwrap_or_default());
        let ours = lines.filter(|line| String::from_utf8_lossy(line).contains(name));
        ours.count()
    };
    let cgroups = || {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let ours = hierarchies.filter(|entry| entry.path().join(name).exists());
        ours.count() + usize::from(Path::new("/sys/fs/cgroup").join(name).exists())
    };
    docker.kill9().unwrap();
    // What would be left is there.
    assert!(of_ours() > 0 && cgroups() > 0 && container.exists());
    drop(docker);
    wait_for("the container to be gone", PATIENCE, || {
        Ok((of_ours() == 0 && !container.exists()).then_some(()))
    })
    .unwrap();
    assert_eq!(cgroups(), 0);
    drop(topology);
    assert!(!directory.exists());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
}
