//! Who may ask a Consul server for what.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Consul;

impl Consul {
    /// Writes an ACL policy by its name; the id to change it by.
    pub fn put_policy(&self, id: Option<&str>, name: &str, rules: &str) -> Result<String> {
        let body = json!({"Name": name, "Rules": rules}).to_string();
        let path = match id {
            Some(id) => format!("/v1/acl/policy/{id}"),
            None => "/v1/acl/policy".to_owned(),
        };
        let answer: Value = serde_json::from_slice(&self.put(&path, body)?)?;
        let id = answer["ID"].as_str().context("a policy without an id")?;
        Ok(id.to_owned())
    }

    /// Makes an ACL token (a UUID) with a policy; the id to delete it by.
    pub fn put_token(&self, secret: &str, policy: &str) -> Result<String> {
        let body = json!({"SecretID": secret, "Policies": [{"Name": policy}]}).to_string();
        let answer: Value = serde_json::from_slice(&self.put("/v1/acl/token", body)?)?;
        let id = answer["AccessorID"]
            .as_str()
            .context("a token without an id")?;
        Ok(id.to_owned())
    }

    /// Deletes an ACL token by its id.
    pub fn delete_token(&self, id: &str) -> Result<()> {
        self.delete(&format!("/v1/acl/token/{id}"))
    }
}
