//! Instances in the catalog that no agent of Consul's looks after.

use anyhow::Result;
use serde_json::json;

use super::{Consul, Registration};

impl Consul {
    /// Registers an instance in the catalog alone, on a node without an agent that would register it
    /// again after it has vanished.
    pub fn register_in_catalog(&self, instance: Registration<'_>) -> Result<()> {
        let body = json!({
            "Node": "elsewhere",
            "Address": instance.address.ip(),
            "Service": {
                "Service": instance.service,
                "ID": instance.id,
                "Address": instance.address.ip(),
                "Port": instance.address.port(),
            },
        });
        self.put("/v1/catalog/register", body.to_string()).map(drop)
    }

    /// Removes an instance registered by [`Consul::register_in_catalog`].
    pub fn deregister_in_catalog(&self, id: &str) -> Result<()> {
        let body = json!({"Node": "elsewhere", "ServiceID": id});
        self.put("/v1/catalog/deregister", body.to_string())
            .map(drop)
    }
}
