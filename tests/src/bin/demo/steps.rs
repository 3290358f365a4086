//! The demo's steps. Each tells what it is about, does it, and judges what it has measured. Those
//! that send requests return how many were answered.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use lb_tests::{
    client::{Client, Spread},
    consul,
    load::{Load, Pace},
    stats::bounds,
};

use crate::{
    screen::Screen,
    stage::{FALL, METRICS, Stage, VIP, VIP6, address, config},
};

/// Standard deviations that a share may be off: chance alone fails one run in many thousands.
const DEVIATIONS: f64 = 4.0;

const PICTURE: &str = "
                                       ┌── b1  10.77.1.2:8080  version v1
client 10.77.0.2 and .3 ─── node ──────┼── b2  10.77.2.2:8080  version v1
                       lb-agent, XDP   └── b3  10.77.3.2:8080  version v2";

/// Lays everything out and starts the agent.
pub(crate) fn set_up(screen: &mut Screen, with_consul: bool) -> Result<Stage> {
    screen.heading("Five hosts on this machine");
    screen.say("Each host is a network namespace; cables between them are veth pairs.");
    screen.output(PICTURE);
    screen.say(&format!(
        "\nClients ask for http://{VIP}/ or http://{VIP6}/.\n\
         No host has that address: the node rewrites such packets in its network driver (XDP),\n\
         to one of the backends and back. It forwards nothing else."
    ));
    screen.say(&match with_consul {
        true => format!(
            "The backends are registered in a real Consul on the node ({}).",
            consul::version()?
        ),
        false => "The backends are listed in the agent's configuration file.".to_owned(),
    });
    let stage = Stage::set_up(with_consul)?;
    screen.command("cat lb-agent.toml");
    screen.output(&config(&stage.topology, with_consul));
    screen.command("lb-agent run --config lb-agent.toml &");
    screen.check(true, "the agent runs, and every backend answers through it");
    run(screen, &stage, &["service", "show", "echo"])?;
    Ok(stage)
}

/// Requests spread evenly.
pub(crate) fn spread(screen: &mut Screen, stage: &Stage) -> usize {
    screen.heading("Requests spread over the backends");
    let mut answered = 0;
    for (vip, count) in [(VIP, 900), (VIP6, 300)] {
        let client = stage.client();
        let spread = client.spread(address(vip), count, 8);
        screen.say(&format!(
            "{count} requests to {vip}, a new connection each:"
        ));
        screen.spread(&spread);
        screen.check(spread.failed() == 0, &failures(&spread));
        let (low, high) = bounds(count, 1.0 / 3.0, DEVIATIONS);
        let even = ["b1", "b2", "b3"]
            .iter()
            .all(|backend| (low..=high).contains(&spread.of(backend)));
        screen.check(
            even,
            &format!("each backend answered its third: {low} to {high} is what chance allows"),
        );
        answered += spread.answered();
    }
    answered
}

/// Shifts traffic to a new version while requests are running.
pub(crate) fn split(screen: &mut Screen, stage: &Stage) -> Result<usize> {
    screen.heading("A new version gets its share, under traffic");
    screen.say("b1 and b2 run version v1, b3 runs v2. 800 requests a second are running.");
    let load = steady(&stage.client(), 800.0);
    for (v1, v2) in [(90, 10), (50, 50)] {
        let shares = [format!("v1={v1}"), format!("v2={v2}")];
        run(
            screen,
            stage,
            &["split", "set", "echo", &shares[0], &shares[1]],
        )?;
        let from = load.now();
        thread::sleep(Duration::from_millis(2500));
        let spread = load.record().between(from, load.now());
        screen.spread(&spread);
        let share = f64::from(v2) / 100.0;
        let (low, high) = bounds(spread.answered(), share, DEVIATIONS);
        let new = spread.of("b3");
        screen.check(
            spread.answered() > 0 && (low..=high).contains(&new),
            &format!(
                "v2 answered {:.1} % ({v2} % wanted; {low} to {high} requests are what chance allows)",
                100.0 * new as f64 / spread.answered().max(1) as f64
            ),
        );
    }
    run(screen, stage, &["split", "reset", "echo"])?;
    let all = load.stop().all();
    screen.check(
        all.failed() == 0,
        &format!("{} while traffic was shifted", failures(&all)),
    );
    Ok(all.answered())
}

/// Kills a backend under traffic and brings it back.
pub(crate) fn fail(screen: &mut Screen, stage: &mut Stage) -> Result<usize> {
    screen.heading("A backend dies");
    screen
        .say("The agent asks every backend for /health twice a second; two failures take it out.");
    let load = steady(&stage.client(), 400.0);
    thread::sleep(Duration::from_millis(300));
    let victim = &mut stage.backends[1];
    let pid = victim.process().pid();
    screen.command(&format!("kill -9 {pid}    # the service on b2"));
    victim.process().kill()?;
    let killed = load.now();
    thread::sleep(FALL + Duration::from_secs(2));
    let record = load.stop();
    let during = record.between(killed, killed + FALL);
    let after = record.between(killed + FALL, Duration::MAX);
    let noticed = record
        .failures()
        .map(|sample| sample.began.saturating_sub(killed))
        .max()
        .unwrap_or_default();
    screen.say(&format!(
        "{} requests were refused by the dead host, the last one {} ms after its death.",
        during.failed(),
        noticed.as_millis()
    ));
    screen.say("Requests since then:");
    screen.spread(&after);
    screen.check(
        after.answered() > 0 && after.failed() == 0 && after.of("b2") == 0,
        &format!(
            "none of {} requests failed once {:.1} seconds had passed",
            after.answered() + after.failed(),
            FALL.as_secs_f64()
        ),
    );
    run(screen, stage, &["backend", "list"])?;
    screen.say("The service on b2 is started again.");
    stage.backends[1].restart()?;
    let back = stage.wait_until_served();
    screen.check(
        back.is_ok(),
        "b2 answers requests again, after two good probes",
    );
    Ok(record.all().answered())
}

/// Blocks one of the client's addresses and lets it in again.
pub(crate) fn block(screen: &mut Screen, stage: &Stage) -> Result<usize> {
    screen.heading("An address is blocked");
    let [bad, good] = stage.topology.client_addresses();
    let ask = |source| {
        let client = stage.client().from(source);
        client
            .patience(Duration::from_millis(700))
            .spread(address(VIP), 12, 12)
    };
    let bad_text = bad.to_string();
    run(
        screen,
        stage,
        &["block", "add", &bad_text, "--reason", "demo"],
    )?;
    let (blocked, free) = (ask(bad), ask(good));
    screen.check(
        blocked.answered() == 0,
        &format!(
            "{} of 12 requests from {bad} were answered",
            blocked.answered()
        ),
    );
    screen.check(
        free.failed() == 0,
        &format!(
            "{} of 12 requests from {good} were answered",
            free.answered()
        ),
    );
    run(screen, stage, &["block", "list"])?;
    run(screen, stage, &["block", "del", &bad_text])?;
    let again = ask(bad);
    screen.check(
        again.failed() == 0,
        &format!(
            "{} of 12 requests from {bad} were answered again",
            again.answered()
        ),
    );
    Ok(free.answered() + again.answered())
}

/// Kills the agent under traffic and starts it again.
pub(crate) fn restart(screen: &mut Screen, stage: &mut Stage) -> Result<usize> {
    /// Eight seconds' worth.
    const BYTES: u64 = 64_000_000;
    const RATE: u32 = 8_000_000;
    screen.heading("The agent is killed and started again");
    screen.say(
        "Programs and tables stay in the kernel without it. 400 requests a second are running,\n\
         and a download of 64 MB whose every byte is checked.",
    );
    let client = stage.client();
    let load = steady(&client, 400.0);
    let progress = AtomicU64::new(0);
    let (killed, back, download) = thread::scope(|scope| -> Result<_> {
        let download = scope.spawn(|| client.download(address(VIP), BYTES, Some(RATE), &progress));
        thread::sleep(Duration::from_millis(700));
        screen.command(&format!(
            "kill -9 {}    # lb-agent",
            stage.agent.process().pid()
        ));
        stage.agent.kill9()?;
        let killed = progress.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2000));
        screen.command("lb-agent run --config lb-agent.toml &");
        stage.agent.restart()?;
        let back = progress.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1500));
        let download = download
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((killed, back, download))
    })?;
    let record = load.stop();
    let all = record.all();
    screen.spread(&all);
    screen.check(
        all.answered() > 0 && all.failed() == 0,
        &format!(
            "{}; the longest time without an answer was {} ms",
            failures(&all),
            record.longest_gap(Duration::ZERO).as_millis()
        ),
    );
    let spans = 0 < killed && killed < back && back < BYTES;
    match download {
        Ok(_) => screen.check(
            spans,
            &format!(
                "the download is complete and correct: {} MB of it came before the kill, {} MB \
                 while there was no agent",
                killed / 1_000_000,
                back.saturating_sub(killed) / 1_000_000
            ),
        ),
        Err(error) => screen.check(false, &format!("the download failed: {error}")),
    };
    Ok(all.answered())
}

/// Shows what was counted, and compares it with what the client has seen.
pub(crate) fn counters(screen: &mut Screen, stage: &Stage, answered: usize) -> Result<()> {
    screen.heading("Everything is counted");
    run(screen, stage, &["status"])?;
    screen.command(&format!("curl -s http://{METRICS}/metrics | grep echo"));
    let metrics = stage.agent.metrics(address(METRICS))?;
    let shown = metrics.lines().filter(|line| {
        line.starts_with("lb_service_") || line.starts_with("lb_backend_flows_total")
    });
    screen.output(&shown.collect::<Vec<_>>().join("\n"));
    let flows = total(&metrics, "lb_service_flows_total", "service=\"echo\"");
    screen.check(
        flows >= answered as f64,
        &format!(
            "{flows} connections counted in the kernel; the client had {answered} answers in the \
             steps above, each on a connection of its own"
        ),
    );
    Ok(())
}

/// Removes everything and looks whether it is gone.
pub(crate) fn tear_down(screen: &mut Screen, stage: Stage) {
    screen.heading("Nothing is left");
    let hosts = [stage.topology.client(), stage.topology.node()];
    let names = hosts.into_iter().chain(stage.topology.backends());
    let mut paths: Vec<_> = names
        .map(|host| Path::new("/run/netns").join(host.name()))
        .collect();
    paths.push(stage.agent.pins().to_owned());
    paths.push(stage.topology.directory().to_owned());
    drop(stage);
    paths.retain(|path| path.exists());
    screen.check(
        paths.is_empty(),
        &match paths.as_slice() {
            [] => "processes, programs, tables, namespaces and files are gone".to_owned(),
            left => format!("still there: {left:?}"),
        },
    );
}

/// Shows a command of the agent's with its output. That it fails is a bad verdict.
pub(crate) fn run(screen: &mut Screen, stage: &Stage, args: &[&str]) -> Result<()> {
    screen.command(&format!("lb-agent {}", args.join(" ")));
    let output = stage.agent.cli(args)?;
    screen.output(&output.stdout);
    if output.code != 0 {
        let complaint = output.stderr.trim();
        screen.check(false, &format!("exit code {}: {complaint}", output.code));
    }
    Ok(())
}

fn steady(client: &Client, rate: f64) -> Load {
    let pace = Pace {
        threads: 4,
        rate: Some(rate),
    };
    Load::start(client, address(VIP), pace)
}

/// "none of 900 requests failed", or how many did, and why the most.
fn failures(spread: &Spread) -> String {
    let total = spread.answered() + spread.failed();
    match spread.failures.iter().max_by_key(|(_, count)| **count) {
        None => format!("none of {total} requests failed"),
        Some((reason, count)) => format!(
            "{} of {total} requests failed; {count} of them: {reason}",
            spread.failed()
        ),
    }
}

/// Sum of the samples of `metric` that carry `label`, from a scrape.
fn total(scrape: &str, metric: &str, label: &str) -> f64 {
    scrape
        .lines()
        .filter_map(|line| {
            line.strip_prefix(metric)?
                .strip_prefix('{')?
                .split_once("} ")
        })
        .filter(|(labels, _)| labels.split(',').any(|own| own == label))
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_tests::client::RequestError;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let scrape = "# TYPE a counter\na{service=\"echo\",x=\"1\"} 3\na{service=\"echo\"} 4\n\
                      a{service=\"other\"} 50\nab{service=\"echo\"} 600\na 7000\n";
        assert_eq!(total(scrape, "a", "service=\"echo\""), 7.0);
        assert_eq!(total(scrape, "none", "service=\"echo\""), 0.0);
    }

    #[test]
    fn failures_name_the_commonest_reason() {
        let mut spread = Spread::default();
        assert_eq!(failures(&spread), "none of 0 requests failed");
        spread.count(Ok("b1".to_owned()));
        spread.count(Err(RequestError::Status(503)));
        spread.count(Err(RequestError::Unmarked));
        spread.count(Err(RequestError::Status(503)));
        assert_eq!(
            failures(&spread),
            "3 of 4 requests failed; 2 of them: status 503"
        );
    }
}
