//! The program as a person or a script sees it: arguments in; exit code, stdout and stderr out.
//! Every command goes through the real API on a real socket.

use std::{fs, process::Stdio};

use serde_json::json;

mod fake_agent;
#[path = "command_line/watching.rs"]
mod watching;

use fake_agent::{FakeAgent, Mood, Ran, program};

fn healthy() -> FakeAgent {
    FakeAgent::start(Mood::default())
}

/// One sentence behind the program's name, and nothing on stdout.
fn assert_fails(ran: &Ran, code: i32, sentence: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    assert!(ran.stderr.starts_with("lb-agent: "), "{ran:?}");
    assert!(ran.stderr.contains(sentence), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

#[tokio::test]
async fn help_and_version_succeed_and_wrong_usage_is_2() {
    for (words, code) in [("--help", 0), ("--version", 0), ("frobnicate", 2), ("", 2)] {
        let output = program().args(words.split_whitespace()).output().await;
        let ran = Ran::from(output.unwrap());
        assert_eq!(ran.code, code, "{words}: {ran:?}");
        assert_eq!(ran.stdout.is_empty(), code != 0, "{words}: {ran:?}");
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_4() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let status = || {
        let mut command = program();
        command.env("LB_AGENT_SOCKET", &socket).arg("status");
        command
    };
    let ran = Ran::from(status().output().await.unwrap());
    let sentence = format!("not running (no socket at {})", socket.display());
    assert_fails(&ran, 4, &sentence);

    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let ran = Ran::from(status().output().await.unwrap());
    assert_fails(&ran, 4, "nobody listens");
}

#[tokio::test]
async fn an_agent_that_shuts_down_is_4() {
    let agent = FakeAgent::start(Mood {
        leaving: true,
        ..Default::default()
    });
    let ran = agent.run("service list").await;
    assert_fails(&ran, 4, "the agent is shutting down");
    agent.stop().await;
}

/// What hangs up instead of speaking gRPC.
#[tokio::test]
async fn a_connection_that_breaks_is_4() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let hang_up = async { drop(listener.accept().await.unwrap()) };
    let mut command = program();
    command.arg("--socket").arg(&socket).arg("status");
    let (output, ()) = tokio::join!(command.output(), hang_up);
    assert_fails(&output.unwrap().into(), 4, "journalctl");
}

/// Wrong arguments are told before anybody looks for an agent.
#[tokio::test]
async fn malformed_arguments_are_2() {
    let rows = [
        ("block add 192.0.2.300", "`192.0.2.300` is neither"),
        ("block del 192.0.2.0/33", "`192.0.2.0/33` is neither"),
        ("split set echo v1", "`v1` is not of the form"),
        ("split set echo v1=0", "all shares are 0"),
        ("trace --src 1.2.3.4/33", "`1.2.3.4/33` is neither"),
        (
            "trace --verdict bloked",
            "no verdict `bloked`; there are drop (",
        ),
        ("capture -w /x --dst nowhere", "`nowhere` is neither"),
        ("flow list --client 1.2.3.4/33", "`1.2.3.4/33` is neither"),
    ];
    for (words, sentence) in rows {
        let mut command = program();
        command.args(["--socket", "/nonexistent/agent.sock"]);
        let output = command.args(words.split(' ')).output().await;
        assert_fails(&output.unwrap().into(), 2, sentence);
    }
    let mut command = program();
    let words = ["block", "add", "nonsense", "192.0.2.7", "1.2.3.4/33"];
    let ran = Ran::from(command.args(words).output().await.unwrap());
    assert_eq!((ran.code, ran.stderr.lines().count()), (2, 2), "{ran:?}");
}

#[tokio::test]
async fn what_does_not_exist_is_1_and_what_does_is_named() {
    let agent = healthy();
    let rows = [
        ("service show web", "configured are dns, echo"),
        ("backend list web", "configured are dns, echo"),
        ("split show web", "configured are dns, echo"),
        ("split set web v1=1", "configured are dns, echo"),
        ("split reset web", "configured are dns, echo"),
        ("drain echo 10.9.9.9:1", "`lb-agent backend list echo`"),
        ("undrain echo 10.9.9.9:1", "`lb-agent backend list echo`"),
        (
            "block del 192.0.2.7",
            "192.0.2.7/32 is not on the block list",
        ),
        ("flow list --service web", "configured are dns, echo"),
        ("flow count --service web", "configured are dns, echo"),
        ("reload", "config.toml:3: unknown key `intefaces`"),
    ];
    for (words, sentence) in rows {
        assert_fails(&agent.run(words).await, 1, sentence);
    }
    agent.stop().await;
}

#[tokio::test]
async fn status_is_0_or_3_and_prints_either_way() {
    let agent = healthy();
    let ran = agent.run("status").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert!(ran.stdout.contains("eth0 (native)"), "{ran:?}");
    agent.stop().await;

    let agent = FakeAgent::start(Mood {
        troubled: true,
        ..Default::default()
    });
    let ran = agent.run("status").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""), "{ran:?}");
    assert!(ran.stdout.ends_with("✗ service `dns` has no backend\n"));
    let ran = agent.run("status -o json").await;
    assert_eq!(ran.code, 3);
    let reply: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(reply["problems"], json!(["service `dns` has no backend"]));
    assert_eq!(reply["verdicts"][0]["name"], "request");
    agent.stop().await;
}

#[tokio::test]
async fn services_and_backends_are_listed() {
    let agent = healthy();
    let ran = agent.run("service list").await;
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "NAME  PROTOCOL  VIP               BACKENDS  SPLIT  FLOWS  PACKETS  BYTES",
            "dns   tcp       198.51.100.10:80       0/0  -          0        0    0 B",
            "echo  tcp       198.51.100.10:80       2/2  -          1        5  500 B",
        ]
    );
    let reply = agent.json("service show echo").await;
    assert_eq!(reply["service"]["counters"]["packets_in"], 5);
    assert_eq!(reply["service"]["origin"], "/etc/lb-agent/config.toml:7");
    assert_eq!(reply["backends"][1]["id"], "10.1.0.3:8080");
    assert_eq!(reply["backends"][1]["share_percent"], 50.0);

    let all = agent.json("backend list").await;
    assert_eq!(all, {
        let mut one = agent.json("backend list echo").await;
        one["now_unix_ms"] = all["now_unix_ms"].clone();
        one
    });
    let none = agent.json("backend list dns").await;
    assert_eq!(none["backends"], json!([]));
    agent.stop().await;
}

/// What the agent refuses as a mistake of the request ends with 2, what it cannot do with 1.
#[tokio::test]
async fn refused_shifts_have_the_code_of_their_reason() {
    let agent = healthy();
    let rows = [
        (
            "split shift echo v2 --every 1ms",
            2,
            "must be from 1s to 7d",
        ),
        ("split shift echo v2", 1, "no traffic is being shifted"),
        ("split promote echo", 1, "no traffic is being shifted"),
        ("split rollback echo", 1, "no traffic is being shifted"),
        ("split ack echo", 1, "no traffic is being shifted"),
    ];
    for (words, code, reason) in rows {
        let ran = agent.run(words).await;
        assert_eq!(ran.code, code, "{words}: {ran:?}");
        assert!(ran.stderr.contains(reason), "{words}: {ran:?}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_split_is_set_shown_and_reset() {
    let agent = healthy();
    let ran = agent.run("split set echo v1=90 v2=10").await;
    assert_eq!(ran.stdout, "echo is split v1=90 v2=10 (set by cli)\n");
    let shown = agent.json("split show").await;
    assert_eq!(
        shown["services"][0]["split"],
        json!({"shares": {"v1": 90, "v2": 10}, "source": "cli", "origin": "split set"})
    );
    assert_eq!(shown["services"].as_array().unwrap().len(), 1, "not dns");
    let dns = agent.json("split show dns").await;
    assert_eq!(dns["services"][0]["service"], "dns", "asked for by name");

    let ran = agent.run("split reset echo").await;
    assert!(ran.stdout.starts_with("echo is not split"), "{ran:?}");
    let shown = agent.json("split show echo").await;
    assert_eq!(shown["services"][0]["split"], json!(null));
    agent.stop().await;
}

#[tokio::test]
async fn a_backend_is_drained_and_put_back() {
    let agent = healthy();
    let ran = agent.run("drain echo 10.1.0.2:8080").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = agent.run("backend list echo").await;
    assert!(ran.stdout.contains("healthy, draining"), "{}", ran.stdout);
    let ran = agent.run("undrain echo 10.1.0.2:8080").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let reply = agent.json("backend list echo").await;
    assert_eq!(reply["backends"][0]["draining_since_unix_ms"], json!(null));
    agent.stop().await;
}

#[tokio::test]
async fn addresses_are_blocked_listed_and_unblocked() {
    let agent = healthy();
    let words = "block add 192.0.2.7 2001:db8::5/32 --ttl 15m --reason scan";
    let ran = agent.run(words).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("192.0.2.7/32 is blocked for 1"));
    assert!(lines[1].starts_with("2001:db8::/32 is blocked for 1"));

    let reply = agent.json("block list").await;
    let rule = &reply["blocks"][0]["rule"];
    assert_eq!(
        (&rule["prefix"], &rule["reason"]),
        (&json!("192.0.2.7/32"), &json!("scan"))
    );
    let life = rule["expires_unix_ms"].as_i64().unwrap() - rule["added_unix_ms"].as_i64().unwrap();
    assert_eq!(life, 15 * 60 * 1000);

    // One that is not there, and nothing is deleted.
    let ran = agent.run("block del 192.0.2.7 192.0.2.8").await;
    assert_fails(&ran, 1, "192.0.2.8/32 is not on the block list");
    let ran = agent.run("block del 192.0.2.7 2001:db8::/32").await;
    assert_eq!(ran.stdout, "2 rules deleted\n");
    let ran = agent.run("block list").await;
    assert_eq!(ran.stdout, "the block list is empty\n");

    let ran = agent.run("block add 0.0.0.0/0").await;
    assert_fails(&ran, 1, "0.0.0.0/0 is everybody");
    let ran = agent.run("block add 0.0.0.0/0 --force").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = agent.run("block add 192.0.2.7 --ttl 0s").await;
    assert_fails(&ran, 2, "from 1s to 3650d");
    agent.stop().await;
}

#[tokio::test]
async fn a_list_is_imported_whole_or_not_at_all() {
    let agent = healthy();
    let file = agent.dir.path().join("list");
    let import = format!("block import {}", file.display());
    let listed = async || {
        let reply = agent.json("block list").await;
        reply["blocks"].as_array().unwrap().len()
    };

    fs::write(&file, "192.0.2.7\nnonsense\n# fine\n192.0.2.0/40\n").unwrap();
    let ran = agent.run(&import).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    let name = file.display();
    for line in [2, 4] {
        let place = format!("lb-agent: {name}:{line}: ");
        assert!(ran.stderr.contains(&place), "{ran:?}");
    }
    assert_eq!(listed().await, 0);

    // More than one message holds, with one address twice.
    let mut list: String = (0..10_000)
        .map(|n| format!("10.0.{}.{}\n", n / 256, n % 256))
        .collect();
    list.push_str("10.0.0.0\n");
    fs::write(&file, list).unwrap();
    let ran = agent.run(&import).await;
    assert_eq!(ran.stdout, "10000 rules imported\n", "{}", ran.stderr);
    assert_eq!(listed().await, 10_000);

    fs::remove_file(&file).unwrap();
    assert_fails(&agent.run(&import).await, 1, "cannot read");
    agent.stop().await;
}

#[tokio::test]
async fn a_list_comes_from_standard_input_too() {
    let agent = healthy();
    let file = agent.dir.path().join("list");
    fs::write(&file, "192.0.2.7 # scanner\n").unwrap();
    let output = program()
        .arg("--socket")
        .arg(agent.socket())
        .args(["block", "import", "-", "--ttl", "1h"])
        .stdin(Stdio::from(fs::File::open(&file).unwrap()))
        .output()
        .await;
    assert_eq!(Ran::from(output.unwrap()).stdout, "1 rule imported\n");
    agent.stop().await;
}

/// As in `lb-agent backend list | head -0`.
#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let agent = healthy();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // Not `output`, which would put a pipe of its own in place of this one.
    let child = program()
        .arg("--socket")
        .arg(agent.socket())
        .args(["backend", "list"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ran = Ran::from(child.wait_with_output().await.unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    agent.stop().await;
}

/// What cannot be written for another reason is a failure.
#[tokio::test]
async fn a_full_disk_is_1() {
    let agent = healthy();
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let child = program()
        .arg("--socket")
        .arg(agent.socket())
        .args(["backend", "list"])
        .stdout(full.unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ran = Ran::from(child.wait_with_output().await.unwrap());
    assert_fails(&ran, 1, "cannot write the result");
    agent.stop().await;
}
