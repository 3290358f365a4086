//! Lays out the hosts of the tests and holds them until interrupted, to try things by hand:
//! `ip netns exec NAME …` runs a command on one of them.

use anyhow::Result;
use clap::Parser;
use lb_tests::topology::Topology;

/// Lays out client, node and backends with an echo service each, and holds them until Ctrl-C.
#[derive(Parser)]
#[command(name = "topology")]
struct Args {
    /// Number of backends.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=250))]
    backends: u8,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let topology = Topology::new(usize::from(args.backends))?;
    let _running = (1..=args.backends)
        .map(|number| topology.start_echo(number))
        .collect::<Result<Vec<_>>>()?;
    println!("client {}", topology.client().name());
    println!("node {}", topology.node().name());
    for (number, backend) in (1..).zip(topology.backends()) {
        println!(
            "backend {} listens on {} and {}",
            backend.name(),
            topology.backend_address(number),
            topology.backend_address6(number)
        );
    }
    println!("ready; Ctrl-C removes everything");
    loop {
        // The signal ends the process, once everything is undone.
        std::thread::park();
    }
}
