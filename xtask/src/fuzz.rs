//! `cargo xtask fuzz`: the tests that make their input by chance, again and again with other seeds.
//!
//! In every other run of the tests they take the same seed, so that a failure is one of the change
//! at hand.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::{build_ebpf, run, setup};

/// Part of the names of tests that take `LB_FUZZ_SEED`, by what they feed.
const UNITS: [(&str, &str); 14] = [
    ("config::tests::mutated::", "configuration files"),
    (
        "domain::http::mutated::",
        "heads of requests, traces (b3 in one header and in several), forwarded headers",
    ),
    ("domain::http::framing::tests::", "the framing of HTTP/1"),
    (
        "proxy::front::guard::tests::",
        "requests, the guard beside the library",
    ),
    ("proxy::front::header::tests::", "PROXY protocol headers"),
    ("domain::dtab::tests::", "delegation tables"),
    ("domain::tag_route::tests::", "tags of fabio and Traefik"),
    ("domain::filter::mutated::", "Consul's filter expressions"),
    (
        "source::consul_entries::mutated::",
        "Consul's entries, keys and names",
    ),
    (
        "source::consul_wire::mutated::",
        "Consul's answers on instances",
    ),
    (
        "domain::http::grpc::tests::",
        "calls of gRPC and their times",
    ),
    (
        "domain::http::routing::hosts::tests::",
        "names of hosts, and the index of them",
    ),
    ("proxy::engine::affinity::tests::", "cookies"),
    (
        "proxy::front::connection::tests::",
        "the first bytes of a connection",
    ),
];

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long; a round that has begun is finished
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed, to repeat a run; by default that of the clock
    #[arg(long)]
    seed: Option<u64>,
    /// Packets as well: the programs against a model (as root)
    #[arg(long)]
    packets: bool,
}

/// Runs rounds until the time is over.
///
/// # Errors
/// Set-up or a build fails, or a test does: its output names the seed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let purpose = if args.packets {
        run::require_root("`cargo xtask fuzz --packets`")?;
        setup::Purpose::Test
    } else {
        setup::Purpose::Build
    };
    setup::ensure(purpose)?;
    build_ebpf::build()?;
    for (filter, subject) in UNITS {
        println!("fuzz: {subject} ({filter})");
    }
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut seed = args.seed.unwrap_or(clock.as_secs());
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        println!("fuzz: LB_FUZZ_SEED={seed}");
        let said = round(seed)?;
        let ran = passed(&said);
        // A filter that fits nothing any more would pass everything.
        ensure!(
            ran >= UNITS.len(),
            "only {ran} tests ran of {} areas:\n{said}",
            UNITS.len()
        );
        if args.packets {
            let mut packets = run::cargo();
            packets
                .args([
                    "test",
                    "--package",
                    "lb-tests",
                    "--test",
                    "datapath",
                    "--",
                    "fuzz",
                ])
                .env("LB_FUZZ_SEED", seed.to_string())
                .env("LB_FUZZ_FRAMES", "100000");
            run::run("find the programs and their model agree", &mut packets)?;
        }
        rounds += 1;
        seed = seed.wrapping_add(1);
    }
    println!("fuzz: {rounds} rounds without a finding");
    Ok(())
}

/// One run of the tests; what they said.
fn round(seed: u64) -> Result<String> {
    let mut command = run::cargo();
    command
        .args(["test", "--quiet", "--package", "lb-agent", "--lib", "--"])
        .args(UNITS.map(|(filter, _)| filter))
        .env("LB_FUZZ_SEED", seed.to_string());
    let output = command.output().context("could not start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "a test fails with LB_FUZZ_SEED={seed}:\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// How many tests the runner says have passed.
fn passed(said: &str) -> usize {
    let words = said.split_once("test result: ok. ").map(|(_, rest)| rest);
    let count = words.and_then(|rest| rest.split_once(" passed"));
    count.and_then(|(count, _)| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read() {
        let said = "\nrunning 2 tests\n..\ntest result: ok. 2 passed; 0 failed; 0 ignored\n";
        assert_eq!(passed(said), 2);
        assert_eq!(passed(""), 0);
    }
}
