//! `reload`: the configuration is read again.

use super::{
    client::{self, Agent},
    failure::Failure,
    output::Printer,
};
use crate::api::proto::ReloadRequest;

pub(super) async fn execute(agent: Agent<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let mut client = agent.connect().await?;
    let reply = client::reply(client.reload(ReloadRequest {})).await?;
    printer.print(&reply, |_| "the configuration is reloaded".into())?;
    Ok(())
}
