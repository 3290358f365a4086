//! What the programs cost a packet, by test run: every case over the floor, interleaved in one
//! run. Prints a table and writes `target/bench/datapath.json`.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, ProgramArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use clap::Parser;
use lb_agent::domain::{block::parse_prefix, kernel::Kernel as _};
use lb_common::maps::DEFAULT_FLOW_SLOTS;
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{CLIENT, CLIENT6, World, answer_to},
};

/// Nanoseconds a packet, above a program that only transmits.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every case once
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets a case and round
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
    /// The driver, built by `cargo xtask build-ebpf`
    #[arg(long, default_value = "target/ebpf/lb-bench.o")]
    driver: PathBuf,
}

const WORDS: usize = 12;

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
    name: &'static str,
    side: &'static str,
    frame: Vec<u8>,
    flows: u32,
    at: u32,
    /// Interface it comes in on.
    ingress: u32,
    /// Ends all flows before each round, so that each packet makes a new one.
    fresh: bool,
    samples: Vec<f64>,
}

/// Lower half of the source address of an IPv4 and of an IPv6 packet.
const SADDR4: u32 = 26;
const SADDR6: u32 = 34;

const VIP: &str = "198.51.100.10";
const VIP6: &str = "2001:db8:100::10";

fn main() -> Result<()> {
    let args = Args::parse();
    let driver = fs::read(&args.driver).with_context(|| {
        format!(
            "reading {}: run `cargo xtask build-ebpf`",
            args.driver.display()
        )
    })?;
    World::with_options(
        |options| {
            options.flow_slots = DEFAULT_FLOW_SLOTS * 4;
            // Room for a new flow each packet, all of them to one backend address and port.
            options.ports = (1024, 65_535);
        },
        |world| bench(world, &args, &driver),
    )?
}

fn bench(world: &mut World, args: &Args, driver: &[u8]) -> Result<()> {
    let backends: Vec<String> = (2..=9).map(|n| format!("10.99.1.{n}:8080")).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let backends6: Vec<String> = (2..=9).map(|n| format!("[fd99:1::{n}]:8080")).collect();
    let backends6: Vec<&str> = backends6.iter().map(String::as_str).collect();
    world.service(0, "198.51.100.10:80", 6, &backends)?;
    world.service(1, "[2001:db8:100::10]:80", 6, &backends6)?;
    world.service(2, "198.51.100.10:53", 17, &backends)?;
    world.datapath.block(&[parse_prefix("203.0.113.0/24")?])?;

    let mut ebpf = EbpfLoader::new()
        .load(driver)
        .context("loading the driver")?;
    for program in ["lb_bench", "lb_transmit"] {
        xdp(&mut ebpf, program)?
            .load()
            .context("verifying the driver")?;
    }
    let mut cases = cases(world)?;
    for round in 0..args.rounds {
        for case in &mut cases {
            if case.fresh {
                let everybody = [parse_prefix("0.0.0.0/0")?, parse_prefix("::/0")?];
                world.datapath.cut_clients(&everybody)?;
            } else if case.flows > 1 {
                // Make the flows, and bring them to mind.
                measure(world, &mut ebpf, case, case.flows * 2)?;
            }
            let nanoseconds = measure(world, &mut ebpf, case, args.packets)?;
            case.samples.push(nanoseconds);
        }
        if std::io::stderr().is_terminal() {
            eprint!("\rround {} of {}", round + 1, args.rounds);
            std::io::stderr().flush()?;
        }
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    report(&cases)
}

fn cases(world: &mut World) -> Result<Vec<Case>> {
    let (front, back) = (world.front, world.back);
    let mut cases = Vec::new();
    let mut add = |name, side, packet: &Packet, flows, ingress, fresh| {
        let mut frame = packet.build();
        frame.resize(WORDS * 8, 0);
        let at = if packet.src.is_ipv6() { SADDR6 } else { SADDR4 };
        cases.push(Case {
            name,
            side,
            frame,
            flows,
            at,
            ingress,
            fresh,
            samples: Vec::new(),
        });
    };
    let data = Packet::tcp(CLIENT, 40_000, VIP, 80, ACK);
    let data6 = Packet::tcp(CLIENT6, 40_000, VIP6, 80, ACK);
    let datagram = Packet::udp(CLIENT, 40_000, VIP, 53);
    let reply = establish(world, &data)?;
    let reply6 = establish(world, &data6)?;
    add("bare transmit", "floor", &data, 1, front, false);
    let foreign = Packet::tcp(CLIENT, 40_000, "192.0.2.1", 443, ACK);
    add(
        "foreign, passed",
        "lb-agent",
        &foreign,
        65_536,
        front,
        false,
    );
    let blocked = Packet::tcp("203.0.113.9", 40_000, VIP, 80, SYN);
    add(
        "blocked source, dropped",
        "lb-agent",
        &blocked,
        1,
        front,
        false,
    );
    add("TCP v4, 1 flow", "lb-agent", &data, 1, front, false);
    add("TCP v4 reply, 1 flow", "lb-agent", &reply, 1, back, false);
    add("TCP v6, 1 flow", "lb-agent", &data6, 1, front, false);
    add("TCP v6 reply, 1 flow", "lb-agent", &reply6, 1, back, false);
    add("UDP v4, 1 flow", "lb-agent", &datagram, 1, front, false);
    let many = Packet {
        src: "10.64.0.0".parse()?,
        ..data.clone()
    };
    add("TCP v4, 64k flows", "lb-agent", &many, 65_536, front, false);
    let many6 = Packet {
        src: "2001:db8:77::".parse()?,
        ..data6
    };
    add(
        "TCP v6, 64k flows",
        "lb-agent",
        &many6,
        65_536,
        front,
        false,
    );
    let new = Packet { flags: SYN, ..many };
    add(
        "TCP v4, a new flow each packet",
        "lb-agent",
        &new,
        1 << 30,
        front,
        true,
    );
    Ok(cases)
}

/// Makes an established flow of the packet's kind; answers with a packet of its reply.
fn establish(world: &mut World, packet: &Packet) -> Result<Packet> {
    let sent = world
        .request(&Packet {
            flags: SYN,
            ..packet.clone()
        })
        .packet();
    let reply = answer_to(&sent, SYN | ACK);
    world.reply(&reply);
    world.request(packet);
    Ok(Packet {
        flags: ACK,
        ..reply
    })
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
        mask: case.flows - 1,
        at: case.at,
    };
    let map = ebpf
        .map_mut("TEMPLATE")
        .context("the driver has no TEMPLATE")?;
    Array::try_from(map)?.set(0, template, 0)?;
    let under_test = match case.side {
        "floor" => xdp(ebpf, "lb_transmit")?.fd()?.try_clone()?,
        _ => world.datapath.program_fd()?.try_clone()?,
    };
    let map = ebpf
        .map_mut("PROGRAM")
        .context("the driver has no PROGRAM")?;
    ProgramArray::try_from(map)?.set(0, &under_test, 0)?;
    let context: Vec<u8> = [0, case.frame.len() as u32, 0, case.ingress, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let run = xdp(ebpf, "lb_bench")?.test_run(TestRunOptions {
        data_in: Some(&case.frame),
        ctx_in: Some(&context),
        repeat: packets,
        ..TestRunOptions::new()
    })?;
    if run.return_value == 0 {
        bail!("the driver could not call the program for {}", case.name);
    }
    Ok(run.duration.as_nanos() as f64)
}

fn report(cases: &[Case]) -> Result<()> {
    let floor = median(&cases[0].samples);
    println!(
        "{:<34} {:>8} {:>8} {:>8}   above the floor",
        "case (ns a packet)", "median", "min", "max"
    );
    let mut rows = Vec::new();
    for case in cases {
        let (median, min, max) = (
            median(&case.samples),
            case.samples.iter().copied().fold(f64::INFINITY, f64::min),
            case.samples.iter().copied().fold(0.0, f64::max),
        );
        println!(
            "{:<34} {median:>8.0} {min:>8.0} {max:>8.0}   {:>6.0}",
            case.name,
            median - floor
        );
        rows.push(serde_json::json!({
            "case": case.name, "side": case.side, "unit": "ns",
            "median": median, "min": min, "max": max, "runs": case.samples.len(),
        }));
    }
    fs::create_dir_all("target/bench")?;
    let path = "target/bench/datapath.json";
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
