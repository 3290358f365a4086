//! Traces, captures and flows on the command line.

use std::fs;

use serde_json::json;

use crate::{assert_fails, fake_agent::packets, healthy};

/// What only the agent can judge is 2 as well.
#[tokio::test]
async fn what_contradicts_itself_is_2() {
    let agent = healthy();
    let rows = [
        (
            "trace --src 192.0.2.1 --dst ::1",
            "different address families",
        ),
        ("flow list --backend here", "`here` is no address"),
        ("flow list --limit 0 --sort idle", "up to a limit only"),
        ("flow list --limit 1000001", "too many to be sorted"),
    ];
    for (words, sentence) in rows {
        assert_fails(&agent.run(words).await, 2, sentence);
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_trace_prints_lines_until_its_limit() {
    let agent = healthy();
    let ran = agent.run("trace --count 3 --verdict request").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{ran:?}");
    assert!(lines[0].starts_with("TIME (UTC)"), "{ran:?}");
    for line in &lines[1..] {
        assert!(line.contains("  forward request  "), "{line}");
        let packet = "tcp 192.0.2.1:4000 -> 198.51.100.10:80 => 10.1.0.1:4000 -> 10.1.0.2:8080 \
                      [SYN] 74 bytes service echo backend 10.1.0.2:8080";
        assert!(line.ends_with(packet), "{line}");
    }
    assert!(ran.stderr.starts_with("lb-agent: 3 packets in "), "{ran:?}");
    assert!(ran.stderr.contains(" more were lost"), "{ran:?}");

    let ran = agent.run("-o json trace --count 2 --verdict drop").await;
    let lines: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert_eq!(lines[0]["verdict"], "blocked");
    // By its VIP, for it has no flow.
    assert_eq!(lines[0]["service"], "echo");
    assert_eq!(lines[0]["backend"], json!(null));
    assert_eq!(lines[0].get("frame"), None);

    let ran = agent.run("trace --verdict ttl_exceeded --seconds 1").await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 1), "{ran:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_capture_is_a_file_of_so_many_packets() {
    let agent = healthy();
    let file = agent.dir.path().join("x.pcapng");
    let words = format!("capture -w {} --count 5 --snaplen 20", file.display());
    let ran = agent.run(&words).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.ends_with("holds 5 packets\n"), "{ran:?}");
    let content = fs::read(&file).unwrap();
    let comments = content.windows(12).filter(|w| w == b"drop blocked").count();
    assert_eq!(comments, 5);

    let ran = agent.run("capture -w /nonexistent/x --count 1").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("cannot create /nonexistent/x"),
        "{ran:?}"
    );
    agent.stop().await;
}

#[tokio::test]
async fn flows_are_listed_up_to_a_limit_and_counted() {
    let agent = healthy();
    let ran = agent.run("flow list").await;
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 102, "{ran:?}");
    assert!(
        lines[1].starts_with("tcp    192.0.2.1:1000  198.51.100.10:80"),
        "{ran:?}"
    );
    assert_eq!(lines[101], "and 150 more flows; --limit shows them");
    let all = agent.json("flow list --limit 0").await;
    assert_eq!(
        all["flows"].as_array().unwrap().len(),
        usize::from(packets::FLOWS)
    );
    let idle = agent
        .json("flow list --sort idle --limit 1 --state established")
        .await;
    assert_eq!(idle["flows"][0]["idle_ms"], 249_000);
    assert_eq!(idle["total"], 225);
    let ran = agent.run("flow count").await;
    assert_eq!(
        ran.stdout,
        "SERVICE  STATE        FLOWS\necho     established    225\necho     half_open       25\n"
    );
    let none = agent.run("flow list --service dns").await;
    assert_eq!(none.stdout, "there are no such flows\n");
    agent.stop().await;
}
