//! `top`: what the agent is doing, as it happens.
//!
//! `look` asks the agent; `picture` makes rows and rates of two looks (`rate`); `sheet` makes cells
//! of rows, in an `order`. `model` is the state of the screen and what a `press` of a key does to
//! it; `draw` shows it. All of that but `look` is pure. `live` runs it on a terminal, which `screen`
//! takes and gives back; `batch` prints pictures instead.

mod batch;
mod draw;
mod live;
mod look;
mod model;
mod order;
mod picture;
mod press;
mod rate;
mod screen;
mod sheet;

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use self::{
    batch::Batch,
    model::Model,
    order::{Key, Order},
};
use super::{client::Agent, failure::Failure, output::Printer};

/// Looks closer to each other would tell nothing new.
const SHORTEST: Duration = Duration::from_millis(100);

/// How to look.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Service whose backends are shown; on a terminal the first one if left out
    service: Option<String>,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1s")]
    interval: Duration,
    /// Print so many looks and end; 0: until interrupted
    #[arg(short = 'n', long, value_name = "NUMBER")]
    looks: Option<u64>,
    /// Print one look and end, as without a terminal and with -o json
    #[arg(long, conflicts_with = "looks")]
    once: bool,
    /// What services are sorted by
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t)]
    sort: Key,
    /// Sort the other way round
    #[arg(long)]
    reverse: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < SHORTEST {
        return Err(format!("at least {}", humantime::format_duration(SHORTEST)));
    }
    Ok(interval)
}

pub(super) async fn execute(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let order = Order {
        key: args.sort,
        reversed: args.reverse,
    };
    let looks = if args.once { Some(1) } else { args.looks };
    if looks.is_none() && printer.is_for_people() && is_a_screen() {
        let model = Model::new(args.interval, args.service, order);
        return live::run(agent, model, args.interval).await;
    }
    let batch = Batch {
        looks: looks.unwrap_or(1),
        interval: args.interval,
        service: args.service,
        order,
    };
    batch.print(agent, printer).await
}

/// Whether pictures can be drawn and keys be read.
fn is_a_screen() -> bool {
    io::stdin().is_terminal()
        && io::stdout().is_terminal()
        && std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// There is no such service: said before anything is shown.
fn check(service: Option<&str>, look: &look::Look) -> Result<(), Failure> {
    match service {
        Some(name) if look.services.iter().all(|service| service.name != name) => {
            Err(Failure::Refused(format!(
                "there is no service `{name}`; `lb-agent service list` shows them"
            )))
        }
        _ => Ok(()),
    }
}
