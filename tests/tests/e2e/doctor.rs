//! `doctor` tells what the node lacks before anybody finds out by starting the agent.

use std::{collections::BTreeMap, fs, process::Command};

use lb_tests::{agent::mount_bpffs, backend::program, scratch::Scratch};
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
