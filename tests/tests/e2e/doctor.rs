//! `doctor` tells what the node lacks before anybody finds out by starting the agent.

use std::{collections::BTreeMap, fs, process::Command, thread};

use lb_tests::{
    agent::mount_bpffs, backend::program, consul::Consul, scratch::Scratch, topology::Topology,
};
use serde_json::Value;

/// Exit code, standard output as JSON, and what it complains of.
fn doctor(bpf_dir: &str) -> (Option<i32>, Value, String) {
    mount_bpffs().unwrap();
    let scratch = Scratch::new().unwrap();
    let config = scratch.join("config.toml");
    fs::write(
        &config,
        format!("[node]\ninterfaces = [\"lo\"]\nbpf_dir = \"{bpf_dir}\"\n"),
    )
    .unwrap();
    let output = Command::new(program("lb-agent").unwrap())
        .args(["doctor", "-o", "json", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    let reply = serde_json::from_str(&printed)
        .unwrap_or_else(|error| panic!("{error} in {printed}; {complaint}"));
    (output.status.code(), reply, complaint)
}

/// The states of the findings by their subjects.
fn states(reply: &Value) -> BTreeMap<&str, &str> {
    let findings = reply["findings"].as_array().unwrap().iter();
    let text = |finding: &'_ Value, key| finding[key].as_str().map(str::len).is_some();
    assert!(findings.clone().all(|finding| text(finding, "found")));
    findings
        .map(|finding| {
            let state = finding["state"].as_str().unwrap();
            assert_eq!(finding["mend"].is_null(), state == "fine", "{finding}");
            (finding["subject"].as_str().unwrap(), state)
        })
        .collect()
}

/// This machine runs the other tests, so that nothing can be missing; a directory for pins that
/// would not keep any is told of, and nothing is left behind.
#[test]
fn what_is_missing_is_told_and_fails() {
    let dir = "/sys/fs/bpf/lb-doctor-leaves-nothing";
    let (code, reply, complaint) = doctor(dir);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert_eq!(reply["able"], true);
    let found = states(&reply);
    for subject in ["kernel", "programs", "pins"] {
        assert_eq!(found[subject], "fine", "{reply}");
    }
    assert!(!fs::exists(dir).unwrap());

    let (code, reply, complaint) = doctor("/tmp/lb-doctor");
    assert_eq!(code, Some(1));
    assert_eq!(reply["able"], false);
    assert_eq!(states(&reply)["pins"], "missing");
    for word in ["lb-agent: pins: /tmp/lb-doctor", "mount -t bpf"] {
        assert!(complaint.contains(word), "{complaint}");
    }
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

/// What is not fine, by its subject: what is told, and the mend.
fn faults(reply: &Value) -> BTreeMap<String, (String, String)> {
    let findings = reply["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    findings
        .filter(|finding| finding["state"] != "fine")
        .map(|finding| {
            let told = (text(finding, "found"), text(finding, "mend"));
            (text(finding, "subject"), told)
        })
        .collect()
}

/// A node where things are set wrong: each is told of with a command, and gone once that was run.
#[test]
fn the_commands_that_are_told_mend_it() {
    let topology = Topology::new(1).unwrap();
    let node = topology.node();
    let sh = |line: &str| node.tool("sh", &["-c", line]).unwrap();
    sh("sysctl -qw net.ipv4.conf.to-client.rp_filter=1");
    sh("sysctl -qw net.ipv4.ip_local_port_range='1024 65000'");
    sh("ethtool -K to-client rx off");
    sh("ethtool -L to-client rx 1 || true");
    sh("ip link set dev to-b1 down");

    let config = topology.directory().join("doctor.toml");
    let path = |name: &str| topology.directory().join(name).display().to_string();
    let text = format!(
        "[node]\ninterfaces = [\"to-client\", \"to-b1\"]\nbpf_dir = \"/sys/fs/bpf/lb-doctor\"\n\
         state_dir = {:?}\nruntime_dir = {:?}\n\n[consul]\naddress = \"http://127.0.0.1:8500\"\n\n\
         [[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\nconsul = {{ service = \"echo\" }}\n",
        path("state"),
        path("run")
    );
    fs::write(&config, text).unwrap();
    let examine = || {
        let mut command = node.command(program("lb-agent").unwrap()).unwrap();
        command
            .args(["doctor", "-o", "json", "--config"])
            .arg(&config);
        let output = command.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let reply: Value = serde_json::from_str(&printed).unwrap_or_else(|error| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            panic!("{error} in {printed}; {complaint}")
        });
        assert_eq!(reply["able"], output.status.success(), "{reply}");
        reply
    };

    let before = examine();
    let wrong = faults(&before);
    let mut mended = vec![
        "to-client rp_filter",
        "to-client checksums",
        "to-b1 state",
        "ports",
    ];
    // One queue is enough for one processor.
    if thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        mended.push("to-client queues");
    }
    for subject in &mended {
        let Some((_, mend)) = wrong.get(*subject) else {
            panic!("{subject} is not complained of: {wrong:?}");
        };
        // The command stands between the first two backquotes.
        let command = mend.split('`').nth(1);
        sh(command.unwrap_or_else(|| panic!("no command in {mend:?}")));
    }
    assert_eq!(before["able"], false, "too few ports");
    let (away, _) = &wrong["Consul"];
    assert!(away.contains("127.0.0.1:8500"), "{away}");
    let (vips, _) = &wrong["VIPs"];
    assert!(vips.contains("198.51.100.10"), "{vips}");

    sh("ip address add 198.51.100.10/32 dev lo");
    let _consul = Consul::start(node, topology.directory()).unwrap();
    let after = examine();
    let left = faults(&after);
    for subject in mended {
        assert!(!left.contains_key(subject), "{subject}: {left:?}");
    }
    assert_eq!(after["able"], true, "{left:?}");
    let found = states(&after);
    for subject in [
        "Consul",
        "Consul's token",
        "Consul's clock",
        "VIPs",
        "ports",
        "state_dir",
    ] {
        assert_eq!(found[subject], "fine", "{after}");
    }
    for name in ["state", "run"] {
        assert!(!topology.directory().join(name).exists(), "{name} was made");
    }
}
