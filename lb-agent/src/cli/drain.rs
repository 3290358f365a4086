//! `drain` and `undrain`: a backend is taken out without cutting its connections, and put back.

use super::{
    client::{self, Agent},
    failure::Failure,
    output::Printer,
};
use crate::api::proto::{DrainRequest, UndrainRequest};

/// Arguments of both commands.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the service
    service: String,
    /// Id or address of the backend, as `lb-agent backend list` shows them
    backend: String,
}

pub(super) async fn drain(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let Args { service, backend } = args;
    let mut client = agent.connect().await?;
    let reply = client::reply(client.drain(DrainRequest { service, backend })).await?;
    printer.print(&reply, |reply| {
        format!(
            "backend {} of {} takes no new connections; the existing ones go on",
            reply.backend_id, reply.service
        )
    })?;
    Ok(())
}

pub(super) async fn undrain(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let Args { service, backend } = args;
    let mut client = agent.connect().await?;
    let reply = client::reply(client.undrain(UndrainRequest { service, backend })).await?;
    printer.print(&reply, |reply| {
        format!(
            "backend {} of {} is no longer drained",
            reply.backend_id, reply.service
        )
    })?;
    Ok(())
}
