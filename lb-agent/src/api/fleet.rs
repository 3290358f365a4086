//! Commands for the whole fleet: keys in Consul, which every node follows, this one included.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tonic::Status;

use crate::{
    controller::{BlockOrder, Handle, OperatorError},
    domain::{
        block::{BlockRule, Origin},
        fleet::{FleetBlock, KeyChange, WriteError},
        split::Shares,
    },
    source::consul_keys::KeyWriter,
};

/// How long this node may take to follow what it has written itself, before it says so.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Writes for the fleet.
pub(super) struct Fleet {
    pub(super) handle: Handle,
    /// Absent: there is no Consul.
    pub(super) writer: Option<KeyWriter>,
}

impl Fleet {
    /// Blocks on every node; the rules, and what a person should know.
    pub(super) async fn block(
        &self,
        prefixes: Vec<IpNet>,
        order: BlockOrder,
    ) -> Result<(Vec<BlockRule>, Vec<String>), Status> {
        let mut notes = self
            .handle
            .fleet_check(prefixes.clone(), order.clone())
            .await?;
        let now = SystemTime::now();
        let expires = order.ttl.and_then(|ttl| now.checked_add(ttl));
        let block = FleetBlock {
            reason: order.reason.clone(),
            added_unix_ms: unix_ms(now),
            expires_unix_ms: expires.and_then(unix_ms),
            force: order.force,
        };
        let changes: Vec<KeyChange> = prefixes
            .iter()
            .map(|prefix| KeyChange::block(prefix, &block))
            .collect();
        notes.extend(self.write(changes).await?);
        let rules = prefixes.into_iter().map(|prefix| BlockRule {
            prefix,
            reason: order.reason.clone(),
            added: block.added().unwrap_or(now),
            expires: block.expires(),
            origin: Origin::Fleet,
        });
        Ok((rules.collect(), notes))
    }

    /// Ends rules on every node; how many.
    pub(super) async fn unblock(&self, prefixes: &[IpNet]) -> Result<usize, Status> {
        let changes = prefixes.iter().map(KeyChange::unblock).collect();
        self.write(changes).await?;
        Ok(prefixes.len())
    }

    /// Sets a split on every node.
    pub(super) async fn set_split(&self, service: &str, shares: Shares) -> Result<(), Status> {
        self.handle.split_check(service, shares.clone()).await?;
        self.write(vec![KeyChange::split(service, &shares)]).await?;
        Ok(())
    }

    /// Takes it back.
    pub(super) async fn reset_split(&self, service: &str) -> Result<(), Status> {
        let key = crate::domain::fleet::split_key(service);
        self.write(vec![KeyChange::Delete(vec![key])]).await?;
        Ok(())
    }

    /// Writes, and waits until this node follows; says so if that takes long.
    async fn write(&self, changes: Vec<KeyChange>) -> Result<Option<String>, Status> {
        let writer = self.writer.as_ref().ok_or(WriteError::NoConsul)?;
        writer.write(&changes).await?;
        let begun = Instant::now();
        while !self.handle.fleet_follows(changes.clone()).await? {
            if begun.elapsed() > PATIENCE {
                let text = "it is written in Consul, but this node does not see it yet; `lb-agent status` may say why";
                return Ok(Some(text.into()));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(None)
    }
}

fn unix_ms(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

impl From<WriteError> for Status {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::NoConsul | WriteError::Conflict => OperatorError::Refused(text).into(),
            WriteError::Missing(_) => Status::not_found(text),
            WriteError::TooMany(_) => Status::invalid_argument(text),
            WriteError::Failed(_) => OperatorError::Failed(text).into(),
        }
    }
}
