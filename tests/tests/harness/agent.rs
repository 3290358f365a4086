//! The life of an agent, played by a shell script.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use lb_tests::{agent::Setup, topology::Topology};

/// Plays `lb-agent`: answers `status` while `run` runs, and tells its arguments.
const FAKE_AGENT: &str = r#"#!/bin/sh
case "$1" in
run)
    config=$3
    bpf=$(sed -n 's/^bpf_dir = "\(.*\)"/\1/p' "$config")
    run=$(sed -n 's/^runtime_dir = "\(.*\)"/\1/p' "$config")
    mkdir -p "$bpf/maps" "$run"
    echo "started $(grep -c . "$config")"
    touch "$run/agent.sock"
    exec sleep 1000 ;;
--socket)
    socket=$2; shift 2
    if [ "$1" = detach ]; then
        echo "$2" > "$(dirname "$0")/detached"
        exit 0
    fi
    [ -e "$socket" ] || exit 4
    [ "$1" = status ] && exit 3
    echo "args: $*"
    [ "$1" = status ] || exit 1 ;;
esac
"#;

#[test]
fn an_agent_is_configured_started_and_removed() {
    let topology = Topology::new(2).unwrap();
    let fake = topology.directory().join("fake-agent");
    fs::write(&fake, FAKE_AGENT).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let mut agent = Setup::new(&topology)
        .binary(&fake)
        .node("xdp_mode = \"native\"")
        .config("[metrics]\nlisten = \"127.0.0.1:9180\"")
        .start()
        .unwrap();
    let text = fs::read_to_string(agent.config_file()).unwrap();
    assert!(
        text.contains(r#"interfaces = ["to-client", "to-b1", "to-b2"]"#),
        "{text}"
    );
    assert!(
        text.contains("xdp_mode = \"native\"\n") && text.contains("[metrics]\n"),
        "{text}"
    );
    assert!(agent.socket().exists() && agent.pins().exists());

    let output = agent.cli(&["backend", "list"]).unwrap();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (1, "args: backend list\n")
    );
    let error = agent.command(&["backend", "list"]).unwrap_err().to_string();
    assert!(error.contains("`lb-agent backend list` ended with exit code 1"));

    agent.kill9().unwrap();
    assert!(agent.process().ensure_running().is_err());
    assert!(agent.pins().exists());
    agent.restart().unwrap();
    agent.process().ensure_running().unwrap();

    let pins = agent.pins().to_owned();
    let pid = agent.process().pid();
    drop(agent);
    assert!(!pins.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let detached = fs::read_to_string(topology.directory().join("detached")).unwrap();
    assert_eq!(detached, "--bpf-dir\n");
}

#[test]
fn an_agent_that_ends_at_once_is_quoted() {
    let topology = Topology::new(0).unwrap();
    let fake = topology.directory().join("fake-agent");
    fs::write(
        &fake,
        "#!/bin/sh\n[ $1 = run ] || exit 4\necho no such interface >&2; exit 2\n",
    )
    .unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Setup::new(&topology).binary(&fake).start().unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("exit code 2") && error.contains("no such interface"),
        "{error}"
    );
}
