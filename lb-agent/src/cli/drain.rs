//! `drain` and `undrain`: a backend, or the node, is taken out without cutting its connections, and
//! put back.

use std::time::Duration;

use super::{
    client::{self, Agent},
    drain_wait,
    failure::Failure,
    output::{Printer, between, span},
};
use crate::api::proto::{
    DrainNodeRequest, DrainRequest, UndrainNodeRequest, UndrainRequest, WatchDrainRequest,
};

/// For how long a drained node announces its VIPs, unless told otherwise.
const GRACE: Duration = Duration::from_secs(10);

/// What is taken out or put back.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Subject {
    /// Name of the service
    #[arg(required_unless_present = "node")]
    service: Option<String>,
    /// Id or address of the backend, as `lb-agent backend list` shows them
    #[arg(required_unless_present = "node")]
    backend: Option<String>,
    /// The node itself instead: `/readyz` fails at once, and after a grace VIPs are no longer
    /// announced; what comes all the same is forwarded
    #[arg(long, conflicts_with_all = ["service", "backend"])]
    node: bool,
}

/// Arguments of `drain`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("waits").args(["wait", "follow"]))]
pub(super) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// So long from now, from 1s to 7d, cut the connections that the backend has left; of the
    /// node nothing is cut, only the waiting ends
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
    /// Show how many connections are left until there are none (exit code 0), or the deadline or
    /// timeout has passed (5)
    #[arg(long)]
    wait: bool,
    /// The same without taking anything out: for what is drained already, or in maintenance in
    /// Consul
    #[arg(long, conflicts_with_all = ["wait", "deadline", "force", "grace"])]
    follow: bool,
    /// Stop waiting after so long; the drain stays
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "waits")]
    timeout: Option<Duration>,
    /// Drain even the last backend that takes new connections
    #[arg(long, conflicts_with = "node")]
    force: bool,
    /// For how long the node goes on to announce its VIPs, so that whoever sends traffic notices
    /// that it is not ready; at most 1h, 10s if left out
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = humantime::parse_duration,
        conflicts_with_all = ["service", "backend"]
    )]
    grace: Option<Duration>,
}

impl Subject {
    /// As it is named on the command line.
    pub(super) fn words(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("{service} {backend}"),
            _ => "--node".into(),
        }
    }

    /// As it is called in a sentence.
    pub(super) fn name(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("backend {backend} of {service}"),
            _ => "the node".into(),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn drain(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut client = agent.connect().await?;
    let how = drain_wait::Patience {
        timeout: args.timeout,
        follows: args.follow,
    };
    if args.follow {
        let watched = WatchDrainRequest {
            service: args.subject.service.clone(),
            backend: args.subject.backend.clone(),
        };
        let parts = client::reply(client.watch_drain(watched)).await?;
        return drain_wait::wait(parts, &args.subject, how, printer).await;
    }
    let deadline_ms = args.deadline.map(millis);
    let watched = match (&args.subject.service, &args.subject.backend) {
        (Some(service), Some(backend)) => {
            let request = DrainRequest {
                service: service.clone(),
                backend: backend.clone(),
                deadline_ms,
                force: args.force,
            };
            let reply = client::reply(client.drain(request)).await?;
            let watched = WatchDrainRequest {
                service: Some(reply.service.clone()),
                backend: Some(reply.backend_id.clone()),
            };
            let text = || match args.deadline {
                None => format!(
                    "backend {} of {} takes no new connections; the existing ones go on",
                    reply.backend_id, reply.service
                ),
                Some(deadline) => format!(
                    "backend {} of {} takes no new connections; the existing ones go on, and \
                     what is left of them in {} is cut",
                    reply.backend_id,
                    reply.service,
                    span(deadline)
                ),
            };
            announce(printer, args.wait, &reply, text)?;
            watched
        }
        _ => {
            let request = DrainNodeRequest {
                grace_ms: millis(args.grace.unwrap_or(GRACE)),
                deadline_ms,
            };
            let reply = client::reply(client.drain_node(request)).await?;
            let text = || {
                let drain = reply.drain.clone().unwrap_or_default();
                format!(
                    "the node is not ready any more (/readyz), and stops announcing its VIPs {} \
                     after that; what comes all the same is forwarded",
                    span(between(drain.since_unix_ms, drain.leaves_unix_ms))
                )
            };
            announce(printer, args.wait, &reply, text)?;
            WatchDrainRequest::default()
        }
    };
    if args.wait {
        let parts = client::reply(client.watch_drain(watched)).await?;
        drain_wait::wait(parts, &args.subject, how, printer).await?;
    }
    Ok(())
}

/// Says what was done. For programs that wait the first line tells it.
fn announce<T: serde::Serialize>(
    printer: &mut Printer<'_>,
    waits: bool,
    reply: &T,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if waits {
        printer.people(&format!("{}\n", text()))?;
    } else {
        printer.print(reply, |_| text())?;
    }
    Ok(())
}

pub(super) async fn undrain(
    subject: &Subject,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut client = agent.connect().await?;
    let (Some(service), Some(backend)) = (&subject.service, &subject.backend) else {
        let reply = client::reply(client.undrain_node(UndrainNodeRequest {})).await?;
        printer.print(&reply, |_| {
            "the node is ready again, and announces its VIPs where it is to".into()
        })?;
        return Ok(());
    };
    let request = UndrainRequest {
        service: service.clone(),
        backend: backend.clone(),
    };
    let reply = client::reply(client.undrain(request)).await?;
    printer.print(&reply, |reply| {
        format!(
            "backend {} of {} is no longer drained",
            reply.backend_id, reply.service
        )
    })?;
    Ok(())
}
