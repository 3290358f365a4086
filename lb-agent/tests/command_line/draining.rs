//! `drain --wait`, and the drain of the node.

use std::{process::Stdio, time::Duration};

use super::{Ran, healthy, program};

/// Whoever waits is told how it ended, by words and exit code.
#[tokio::test]
async fn a_drain_is_waited_for() {
    let agent = healthy();
    let ran = agent
        .run("drain echo 10.1.0.3:8080 --deadline 1h --wait")
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("what is left of them in 1h is cut"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("0 connections left"), "{ran:?}");
    assert!(ran.stdout.contains("has no connections left"), "{ran:?}");

    let ran = agent
        .run("drain echo 10.1.0.2:8080 --wait --timeout 700ms")
        .await;
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.stdout.contains("250 connections left\n"), "{ran:?}");
    let expected = "gave up after 700ms: backend 10.1.0.2:8080 of echo stays drained, with 250 \
                    connections left; `lb-agent undrain echo 10.1.0.2:8080` puts it back";
    assert!(ran.stderr.contains(expected), "{ran:?}");

    // What is out already can be followed without a drain of one's own.
    let ran = agent
        .run("drain echo 10.1.0.2:8080 --follow --timeout 700ms")
        .await;
    assert_eq!(ran.code, 5, "{ran:?}");
    let expected = "backend 10.1.0.2:8080 of echo stays as it is, with 250 connections left\n";
    assert!(ran.stderr.contains(expected), "{ran:?}");
    let ran = agent.run("drain echo 10.1.0.9:8080 --follow").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for wrong in ["--follow --wait", "--follow --deadline 5s", "--timeout 5s"] {
        let ran = agent
            .run(&format!("drain echo 10.1.0.2:8080 {wrong}"))
            .await;
        assert_eq!(ran.code, 2, "{wrong}: {ran:?}");
    }

    // For programs: one object a line, and nothing else.
    let ran = agent.run("-o json drain echo 10.1.0.3:8080 --wait").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = ran.stdout.lines();
    let states: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(states[0]["state"], "draining");
    assert_eq!(states.last().unwrap()["state"], "empty");

    let ran = agent
        .run("drain --node --grace 0s --wait --timeout 700ms")
        .await;
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(
        ran.stderr.contains("the node stays drained, with 250"),
        "{ran:?}"
    );
    let ran = agent.run("undrain --node").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = agent.run("undrain --node").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("the node is not drained"), "{ran:?}");

    for (words, place) in [
        (
            "drain echo 10.1.0.2:8080 --deadline 999ms",
            "the deadline is 999ms",
        ),
        ("drain echo 10.1.0.2:8080 --deadline 8d", "from 1s to 7d"),
        ("drain --node --deadline 0s", "from 1s to 7d"),
        ("drain --node --grace 2h", "the grace is 2h"),
    ] {
        let ran = agent.run(words).await;
        assert_eq!(ran.code, 2, "{words}: {ran:?}");
        assert!(ran.stderr.contains(place), "{words}: {ran:?}");
    }
    agent.stop().await;
}

/// Ctrl-C ends the waiting, not the drain.
#[tokio::test]
async fn an_interrupted_wait_leaves_the_drain() {
    let agent = healthy();
    let mut waiting = program();
    let socket = agent.socket().display().to_string();
    let words = ["drain", "echo", "10.1.0.2:8080", "--wait"];
    waiting.args(["--socket", &socket]).args(words);
    waiting.stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pid = waiting.id().unwrap().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(kill.unwrap().success());
    let ran: Ran = waiting.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 130, "{ran:?}");
    let expected = "stopped waiting: backend 10.1.0.2:8080 of echo stays drained, with 250 \
                    connections left; `lb-agent undrain echo 10.1.0.2:8080` puts it back";
    assert!(ran.stderr.contains(expected), "{ran:?}");
    let ran = agent.run("backend list echo").await;
    assert!(ran.stdout.contains("draining"), "{ran:?}");
    agent.stop().await;
}
