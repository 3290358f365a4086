//! A million rules through the command line: imported, swapped under traffic, restarted, freed.

use std::{
    fmt::Write as _,
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use lb_tests::{
    client::Client,
    load::{Load, Pace},
};

use crate::scene::{Scene, VIP, address, reply, sample};

/// A list of about a million prefixes, IPv4 and IPv6, of the usual lengths, and these too.
fn list(seed: u32, with: &[&str]) -> String {
    let mut text = String::with_capacity(20 << 20);
    for prefix in with {
        writeln!(text, "{prefix}").unwrap();
    }
    for number in 0..1_000_000_u32 {
        let spread = (number ^ seed).wrapping_mul(0x9e37_79b1);
        let [a, b, c, d] = spread.to_be_bytes();
        // Not where the hosts of the test live.
        let a = if a == 10 || a == 198 { 11 } else { a };
        let (high, low) = (spread >> 16, spread & 0xffff);
        match number % 8 {
            0 | 1 => writeln!(text, "2a00:{high:x}:{low:x}::/64"),
            2 => writeln!(text, "{a}.{b}.{c}.0/24"),
            3 => writeln!(text, "{a}.{b}.{c}.{d}/29"),
            _ => writeln!(text, "{a}.{b}.{c}.{d}"),
        }
        .unwrap();
    }
    text
}

/// What the agent's process has in memory, in MiB.
fn resident(scene: &Scene) -> u64 {
    let status = format!("/proc/{}/status", scene.agent.process().pid());
    let text = fs::read_to_string(status).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes / 1024
}

/// The lists change as a whole, under traffic; who is on both is blocked all the time, who is on
/// neither never. It is all there after `kill -9`.
#[test]
fn a_million_are_imported_and_swapped_under_traffic() {
    let mut scene = Scene::listed(&["v1"], "", "");
    let [good, bad] = scene.topology.client_addresses();
    let bad_too = bad.to_string();
    let client = |source| {
        let client = Client::new(scene.topology.client()).from(source);
        client.patience(Duration::from_millis(150))
    };
    let (good, bad) = (client(good), client(bad));
    let is_served = |client: &Client| client.get(address(VIP), "/").is_ok();
    assert!(is_served(&good) && is_served(&bad));
    let file = |name: &str, seed| {
        let path = scene.topology.directory().join(name);
        fs::write(&path, list(seed, &[&bad_too])).unwrap();
        path.display().to_string()
    };
    let lists = [file("one", 0), file("two", 0x5555_5555)];
    let import = |agent: &lb_tests::agent::Agent, list: &str| {
        let begun = Instant::now();
        let told = reply(
            agent,
            &["block", "import", "--replace", list, "--reason", "weekly"],
        );
        eprintln!(
            "{} rules imported in {:?}",
            told["imported"],
            begun.elapsed()
        );
        told["total"].as_u64().unwrap()
    };
    let total = import(&scene.agent, &lists[0]);
    assert!(total > 900_000, "{total}");
    eprintln!("the agent has {} MiB in memory", resident(&scene));
    assert!(is_served(&good) && !is_served(&bad));

    // Both are asked all the time while the lists take each other's place.
    let over = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    let load = Load::start(
        &good,
        address(VIP),
        Pace {
            threads: 1,
            rate: Some(50.0),
        },
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(!is_served(&bad), "a blocked client got through");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        for list in [&lists[1], &lists[0]] {
            import(&scene.agent, list);
        }
        over.store(true, Ordering::Relaxed);
    });
    let record = load.stop();
    assert_eq!(record.failures().count(), 0);
    let asked = asked.load(Ordering::Relaxed);
    eprintln!(
        "asked {asked} times in vain, {} times not",
        record.samples().len()
    );
    assert!(asked > 5 && record.samples().len() > 50);

    // One rule more or less, and the counters, at this size.
    let begun = Instant::now();
    scene
        .agent
        .command(&["block", "add", "203.0.113.77"])
        .unwrap();
    eprintln!("one more rule after {:?}", begun.elapsed());
    let scrape = scene.scrape();
    assert_eq!(
        sample(&scrape, "lb_block_rules", &[]),
        Some(total as f64 + 1.0)
    );
    let label = format!("prefix=\"{bad_too}/32\"");
    let dropped = sample(&scrape, "lb_block_packets_total", &[&label]);
    assert!(dropped > Some(5.0), "{dropped:?}");

    // An exception counts at once.
    let told = reply(&scene.agent, &["block", "allow", "add", &bad_too]);
    assert!(
        told["notes"][0]
            .as_str()
            .unwrap()
            .contains("is allowed all the same")
    );
    assert!(is_served(&bad));
    scene
        .agent
        .command(&["block", "allow", "del", &bad_too])
        .unwrap();
    assert!(!is_served(&bad));

    drop((good, bad));
    scene.agent.kill9().unwrap();
    let begun = Instant::now();
    scene.agent.restart().unwrap();
    eprintln!("the agent was back with them after {:?}", begun.elapsed());
    let scrape = scene.scrape();
    assert_eq!(
        sample(&scrape, "lb_block_rules", &[]),
        Some(total as f64 + 1.0)
    );
    assert!(sample(&scrape, "lb_block_packets_total", &[&label]) >= dropped);
}
