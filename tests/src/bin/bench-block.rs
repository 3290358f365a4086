//! What the block list costs a packet, by test run, with ten, ten thousand and a million rules:
//! every case beside a program that parses and drops, interleaved in one run. Prints a table and
//! writes `target/bench/block.json`.

use std::{fs, net::Ipv4Addr, net::Ipv6Addr, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, ProgramArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use clap::Parser;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lb_agent::domain::kernel::Kernel as _;
use lb_tests::{
    packet::{Packet, SYN},
    world::{World, action},
};

/// Nanoseconds a packet, above a program that parses and drops.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every case once
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Packets a case and round
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// The driver, built by `cargo xtask build-ebpf`
    #[arg(long, default_value = "target/ebpf/lb-bench.o")]
    driver: PathBuf,
}

const WORDS: usize = 12;
/// Sources of a list: each in a /24 (or a /64) of its own, in random order.
const SOURCES: u32 = 1 << 20;

/// As in lb-ebpf/src/bench.rs.
#[repr(C)]
#[derive(Clone, Copy)]
struct Template {
    words: [u64; WORDS],
    mask: u32,
    at: u32,
}

// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl Pod for Template {}

/// One row of the table.
struct Case {
    name: String,
    floor: bool,
    frame: Vec<u8>,
    sources: u32,
    at: u32,
    expected: u32,
    samples: Vec<f64>,
}

/// The rules that the first `count` sources fall under: mostly hosts, some prefixes around them.
fn rules(count: u32) -> Vec<IpNet> {
    let v4 = (0..count).map(|number| {
        let source = Ipv4Addr::from(0x1000_0009 + (number << 8));
        let length = [32, 32, 32, 32, 32, 32, 32, 30, 28, 26][number as usize % 10];
        IpNet::V4(Ipv4Net::new_assert(source, length).trunc())
    });
    let v6 = (0..count).map(|number| {
        let source =
            Ipv6Addr::from(0x2001_0db8_0000_0000_0000_0000_0000_0009 + (u128::from(number) << 64));
        let length = [64, 128][number as usize % 2];
        IpNet::V6(Ipv6Net::new_assert(source, length).trunc())
    });
    v4.chain(v6).collect()
}

fn main() -> Result<()> {
    let args = Args::parse();
    let driver = fs::read(&args.driver).with_context(|| {
        format!(
            "reading {}: run `cargo xtask build-ebpf`",
            args.driver.display()
        )
    })?;
    World::with(|world| bench(world, &args, &driver))?
}

fn case(name: String, source: &str, at: u32, sources: u32, expected: u32) -> Case {
    let v6 = source.contains(':');
    let destination = if v6 {
        "2001:db8:100::10"
    } else {
        "198.51.100.10"
    };
    let mut frame = Packet::tcp(source, 40_000, destination, 80, SYN).build();
    frame.resize(WORDS * 8, 0);
    Case {
        floor: name.starts_with("parse"),
        name,
        frame,
        sources,
        at,
        expected,
        samples: Vec::new(),
    }
}

fn bench(world: &mut World, args: &Args, driver: &[u8]) -> Result<()> {
    let mut ebpf = EbpfLoader::new()
        .load(driver)
        .context("loading the driver")?;
    for program in ["lb_bench", "lb_parse_drop"] {
        xdp(&mut ebpf, program)?
            .load()
            .context("verifying the driver")?;
    }
    // The number of a source is added where the bytes of its /24 (or its /64) lie.
    let (at4, at6) = (25, 26);
    let blocked = ["16.0.0.9", "2001:db8::9"];
    let mut cases = Vec::new();
    for count in [10, 10_000, 1_000_000_u32] {
        let sources = if count == 1_000_000 {
            SOURCES / 2
        } else {
            count.next_power_of_two() / 2
        };
        for (family, source, at) in [("v4", blocked[0], at4), ("v6", blocked[1], at6)] {
            for what in ["parse and drop", "blocked, dropped"] {
                let name = format!("{what}, {family}, {count} rules");
                cases.push((count, case(name, source, at, sources, action::DROP)));
            }
        }
        let name = format!("neighbours of blocked ones, passed, v4, {count} rules");
        cases.push((count, case(name, "16.0.0.200", at4, sources, action::PASS)));
        let name = format!("strangers, passed, v4, {count} rules");
        cases.push((count, case(name, "48.0.0.9", at4, sources, action::PASS)));
        let name = format!("strangers, passed, v6, {count} rules");
        cases.push((count, case(name, "2001:db9::9", at6, sources, action::PASS)));
    }
    let name = "strangers, passed, v4, no rules".to_owned();
    cases.push((0, case(name, "48.0.0.9", at4, SOURCES / 2, action::PASS)));
    let mut loaded = u32::MAX;
    for _ in 0..args.rounds {
        for (count, case) in &mut cases {
            if *count != loaded {
                let rules = rules(*count);
                let begun = Instant::now();
                world.datapath.replace_blocked(&rules)?;
                eprintln!(
                    "{} rules in force after {:?}, {} MiB",
                    rules.len(),
                    begun.elapsed(),
                    world.datapath.block_mebibytes()
                );
                loaded = *count;
            }
            let packets = args.packets.max(case.sources);
            case.samples.push(measure(world, &mut ebpf, case, packets)?);
        }
    }
    let cases: Vec<Case> = cases.into_iter().map(|(_, case)| case).collect();
    report(&cases)
}
fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the driver has no {name}"))?;
    Ok(program.try_into()?)
}

/// Mean nanoseconds of a packet, driver included.
fn measure(world: &mut World, ebpf: &mut Ebpf, case: &Case, packets: u32) -> Result<f64> {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(case.frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into()?);
    }
    let template = Template {
        words,
        mask: case.sources - 1,
        at: case.at,
    };
    let map = ebpf
        .map_mut("TEMPLATE")
        .context("the driver has no TEMPLATE")?;
    Array::try_from(map)?.set(0, template, 0)?;
    let under_test = if case.floor {
        xdp(ebpf, "lb_parse_drop")?.fd()?.try_clone()?
    } else {
        world.datapath.program_fd()?.try_clone()?
    };
    let map = ebpf
        .map_mut("PROGRAM")
        .context("the driver has no PROGRAM")?;
    ProgramArray::try_from(map)?.set(0, &under_test, 0)?;
    let context: Vec<u8> = [0, case.frame.len() as u32, 0, world.front, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let run = xdp(ebpf, "lb_bench")?.test_run(TestRunOptions {
        data_in: Some(&case.frame),
        ctx_in: Some(&context),
        repeat: packets,
        ..TestRunOptions::new()
    })?;
    if run.return_value != case.expected {
        bail!(
            "{}: the program answered with {}",
            case.name,
            run.return_value
        );
    }
    Ok(run.duration.as_nanos() as f64)
}

fn report(cases: &[Case]) -> Result<()> {
    println!(
        "{:<52} {:>7} {:>7} {:>7}   above parse and drop",
        "case (ns a packet)", "median", "min", "max"
    );
    let (mut floor, mut rows) = (0.0, Vec::new());
    for case in cases {
        let (median, min, max) = (
            median(&case.samples),
            case.samples.iter().copied().fold(f64::INFINITY, f64::min),
            case.samples.iter().copied().fold(0.0, f64::max),
        );
        if case.floor {
            floor = median;
        }
        println!(
            "{:<52} {median:>7.0} {min:>7.0} {max:>7.0}   {:>6.0}",
            case.name,
            median - floor
        );
        rows.push(serde_json::json!({
            "case": case.name, "side": if case.floor { "floor" } else { "lb-agent" },
            "unit": "ns", "median": median, "min": min, "max": max, "runs": case.samples.len(),
        }));
    }
    fs::create_dir_all("target/bench")?;
    let path = "target/bench/block.json";
    fs::write(path, serde_json::to_string_pretty(&rows)?)
        .with_context(|| format!("writing {path}"))?;
    println!("\nwritten to {path}");
    Ok(())
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
