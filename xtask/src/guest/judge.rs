//! What has to come of the steps: each takes what a step printed, and its exit code.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use super::steps::{FIRST, SECOND};

/// The least that `systemd-analyze security` is to say: 0 is safe, 10 is not.
const EXPOSURE: f64 = 3.0;

/// Which backend has answered with this line.
pub(super) fn backend(answer: &str) -> Option<&str> {
    let (_, rest) = answer.split_once("{\"hostname\": \"")?;
    Some(rest.split_once('"')?.0)
}

/// How often each backend has answered.
fn answers(printed: &str) -> BTreeMap<&str, usize> {
    let mut answers = BTreeMap::new();
    for backend in printed.lines().filter_map(backend) {
        *answers.entry(backend).or_insert(0) += 1;
    }
    answers
}

fn share(printed: &str, requests: usize, backend: &str) -> Result<usize> {
    let answers = answers(printed);
    let total: usize = answers.values().sum();
    ensure!(
        total == requests,
        "{total} of {requests} answered: {answers:?}"
    );
    Ok(answers.get(backend).copied().unwrap_or(0))
}

pub(super) fn done(_: &str, code: i32) -> Result<String> {
    ensure!(code == 0, "it ended with {code}");
    Ok(String::new())
}

pub(super) fn silent(printed: &str, code: i32) -> Result<String> {
    ensure!(printed.trim().is_empty(), "{}", printed.trim());
    done(printed, code)
}

/// Everything that it tells to try is tried here.
pub(super) fn provisioned(printed: &str, code: i32) -> Result<String> {
    done(printed, code)?;
    let tried: BTreeSet<&str> = FIRST
        .iter()
        .chain(SECOND)
        .flat_map(|step| step.script.lines())
        .collect();
    let told: Vec<&str> = commands(printed).collect();
    ensure!(!told.is_empty(), "it tells no command to try");
    for command in &told {
        // What a step has to add stands behind.
        let is_tried = tried.iter().any(|line| line.starts_with(command));
        ensure!(is_tried, "no step tries what it tells: {command}");
    }
    Ok(format!("{} commands told", told.len()))
}

/// The commands in a text, as they are to be typed.
pub(super) fn commands(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("  $ "))
}

pub(super) fn unchanged(printed: &str, code: i32) -> Result<String> {
    ensure!(code == 0, "it ended with {code}, or a service runs anew");
    for word in ["installing", "starts anew", "Fetching"] {
        let line = printed.lines().find(|line| line.contains(word));
        ensure!(line.is_none(), "a second run changes something: {line:?}");
    }
    Ok(String::new())
}

pub(super) fn spread(printed: &str, code: i32) -> Result<String> {
    done(printed, code)?;
    let answers = answers(printed);
    let total: usize = answers.values().sum();
    ensure!(total == 12 && answers.len() == 3, "answers: {answers:?}");
    Ok(format!("{answers:?}"))
}

pub(super) fn nine_in_ten(printed: &str, _: i32) -> Result<String> {
    let second = share(printed, 200, "echo-3")?;
    // Chance leaves this range once in a hundred thousand runs.
    ensure!((3..=42).contains(&second), "{second} of 200 went to v2");
    Ok(format!("{second} of 200 to v2"))
}

pub(super) fn even(printed: &str, _: i32) -> Result<String> {
    let second = share(printed, 200, "echo-3")?;
    ensure!(
        (40..=95).contains(&second),
        "{second} of 200 went to echo-3"
    );
    Ok(format!("{second} of 200 to echo-3"))
}

pub(super) fn blocked(printed: &str, _: i32) -> Result<String> {
    let lines: Vec<&str> = printed.lines().collect();
    ensure!(lines.contains(&"blocked"), "the client was answered");
    let listed = lines
        .iter()
        .any(|line| line.contains("10.77.0.2") && line.contains("demo"));
    ensure!(listed, "the block is not listed");
    Ok(String::new())
}

/// Of each command at least one value above nothing.
pub(super) fn counted(printed: &str, code: i32) -> Result<String> {
    done(printed, code)?;
    let mut told = Vec::new();
    for wanted in [
        "lb_service_packets_total{",
        "lb_backend_flows_total{",
        "lb_block_packets_total{",
        "{action=\"drop\", reason=\"blocked\"}",
        "{action=\"forward\", reason=\"request\"}",
    ] {
        let most = printed
            .lines()
            .filter(|line| line.starts_with(wanted))
            .filter_map(value)
            .fold(0.0, f64::max);
        ensure!(most > 0.0, "Prometheus has nothing of {wanted}");
        told.push(format!("{} {most}", wanted.trim_end_matches('{')));
    }
    Ok(told.join(", "))
}

/// The value in a line such as `name{label="x"} => 12 @[1700000000]`.
fn value(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("=> ")?;
    rest.split_whitespace().next()?.parse().ok()
}

pub(super) fn without_second(printed: &str, _: i32) -> Result<String> {
    let second = share(printed, 30, "echo-2")?;
    ensure!(second == 0, "{second} requests went to a dead backend");
    Ok(String::new())
}

/// Every line that is a code is 200, and nothing else was printed.
pub(super) fn no_request_lost(printed: &str, code: i32) -> Result<String> {
    done(printed, code)?;
    let lines = || {
        printed
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let lost: Vec<&str> = lines().filter(|line| *line != "200").collect();
    ensure!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    let answered = lines().count();
    ensure!(
        answered >= 10,
        "only {answered} requests were sent meanwhile"
    );
    Ok(format!("{answered} requests"))
}

pub(super) fn reloaded(printed: &str, code: i32) -> Result<String> {
    done(printed, code)?;
    let failed = printed.lines().find(|line| line.starts_with("FAILED"));
    ensure!(failed.is_none(), "{failed:?}");
    ensure!(printed.contains("late"), "the service is not there");
    Ok(String::new())
}

pub(super) fn watched(printed: &str, _: i32) -> Result<String> {
    for wanted in ["Type=notify", "Restart=on-failure"] {
        ensure!(
            printed.lines().any(|line| line == wanted),
            "not {wanted}: {printed}"
        );
    }
    let watchdog = printed
        .lines()
        .find_map(|line| line.strip_prefix("WatchdogUSec="))
        .context("no watchdog")?;
    ensure!(
        watchdog != "0" && watchdog != "infinity",
        "no watchdog: {watchdog}"
    );
    Ok(format!("every {watchdog}"))
}

pub(super) fn secure(printed: &str, _: i32) -> Result<String> {
    let user = printed.lines().next().unwrap_or_default().trim();
    ensure!(user == "lb-agent", "it runs as {user}");
    let exposure = exposure(printed).context("systemd-analyze tells no exposure")?;
    ensure!(exposure <= EXPOSURE, "its exposure is {exposure}");
    Ok(format!("exposure {exposure}, as {user}"))
}

fn exposure(printed: &str) -> Option<f64> {
    let (_, rest) = printed.split_once("Overall exposure level for ")?;
    let (_, rest) = rest.split_once(": ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let printed = "x\n{\"hostname\": \"echo-1\", \"text\": \"hello\"}\n502\n";
        assert_eq!(answers(printed), BTreeMap::from([("echo-1", 1)]));
        assert!(share(printed, 2, "echo-1").is_err());
    }

    #[test]
    fn values_and_exposures_are_read() {
        let line = "lb_block_packets_total{prefix=\"10.77.0.2/32\"} => 3 @[1700000000.1]";
        assert_eq!(value(line), Some(3.0));
        let told = "→ Overall exposure level for lb-agent.service: 1.6 OK :-)\n";
        assert_eq!(exposure(told), Some(1.6));
        assert!(secure(&format!("root\n{told}"), 0).is_err());
        assert!(secure(&format!("lb-agent\n{}", told.replace("1.6", "3.1")), 0).is_err());
    }

    #[test]
    fn what_was_lost_is_seen() {
        let fine = "200\n".repeat(12);
        no_request_lost(&fine, 0).unwrap();
        for wrong in [
            "200\n000\n",
            "200\n",
            &format!("{fine}it adopted nothing\n"),
        ] {
            assert!(no_request_lost(wrong, 0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_readme_has_what_is_told() {
        let told = include_str!("../../../vagrant/demo/try.txt").replace("@VIP@", "192.168.56.80");
        let readme = include_str!("../../../vagrant/README.md");
        let in_readme: Vec<&str> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("$ "))
            .collect();
        assert_eq!(in_readme, commands(&told).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_told_is_tried() {
        let told = include_str!("../../../vagrant/demo/try.txt").replace("@VIP@", "192.168.56.80");
        provisioned(&told, 0).unwrap();
        assert!(provisioned("  $ rm -r /\n", 0).is_err());
        assert!(provisioned("nothing to try", 0).is_err());
    }
}
