//! What Consul's own agent holds: services and checks, asked for and changed (`/v1/agent/…`).

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use super::{
    consul_client::{Client, RequestError, SLACK},
    consul_options::{ConsulOptions, InvalidOptions},
};

/// A service that the agent holds, as far as a registrar compares it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct AgentService {
    /// Its name.
    #[serde(rename = "Service")]
    pub name: String,
    /// Where it listens; empty: at the node's address.
    #[serde(default)]
    pub address: String,
    /// Where it listens, as Consul has it: 0 for none.
    #[serde(default)]
    pub port: i64,
    /// Tags, in their order.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub tags: Vec<String>,
    /// Meta entries.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// A check that the agent holds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct AgentCheck {
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// What whoever made it says of it; of maintenance, the reason.
    #[serde(default)]
    pub notes: String,
    /// What it found last.
    #[serde(default)]
    pub output: String,
}

/// Go writes an empty map or list as `null`, too.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Why Consul's agent was not asked, or did not obey.
#[derive(Debug, Error)]
pub enum AgentError {
    /// There was no answer. Others would have none, either.
    #[error("{0}")]
    Unanswered(String),
    /// The answer was no.
    #[error("Consul refuses {method} {path}{}: status {status} ({text})", hint(*.status))]
    Refused {
        /// What was tried.
        method: Method,
        /// With what.
        path: String,
        /// How it was answered.
        status: StatusCode,
        /// In its words.
        text: String,
    },
    /// The answer is not the JSON that Consul documents.
    #[error("Consul's answer to GET {path} is not the JSON that it documents ({source})")]
    Body {
        /// What was asked.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => ", for the token lacks service:write or node:read",
        _ => "",
    }
}

impl From<RequestError> for AgentError {
    fn from(error: RequestError) -> Self {
        Self::Unanswered(error.to_string())
    }
}

/// Asks and commands one Consul agent. Cheap to clone.
#[derive(Clone)]
pub struct AgentRegistry(Client);

impl AgentRegistry {
    /// Connects to nothing.
    ///
    /// # Errors
    ///
    /// The options are unusable.
    pub fn new(options: &ConsulOptions) -> Result<Self, InvalidOptions> {
        Client::new(options, SLACK).map(Self)
    }

    /// The services that it holds, by id.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn services(&self) -> Result<BTreeMap<String, AgentService>, AgentError> {
        self.get(&["v1", "agent", "services"]).await
    }

    /// The checks that it holds, by id.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn checks(&self) -> Result<BTreeMap<String, AgentCheck>, AgentError> {
        self.get(&["v1", "agent", "checks"]).await
    }

    /// Registers a service, or what it is from now on.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn register(&self, definition: &Value) -> Result<(), AgentError> {
        let path = ["v1", "agent", "service", "register"];
        self.put(&path, &[], definition.to_string()).await
    }

    /// Removes a service with its checks.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn deregister(&self, id: &str) -> Result<(), AgentError> {
        let path = ["v1", "agent", "service", "deregister", id];
        self.put(&path, &[], String::new()).await
    }

    /// Removes a check.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn deregister_check(&self, id: &str) -> Result<(), AgentError> {
        let path = ["v1", "agent", "check", "deregister", id];
        self.put(&path, &[], String::new()).await
    }

    /// Says how a check is that waits to be told.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn update_check(
        &self,
        id: &str,
        status: &str,
        output: &str,
    ) -> Result<(), AgentError> {
        let path = ["v1", "agent", "check", "update", id];
        let body = serde_json::json!({"Status": status, "Output": output});
        self.put(&path, &[], body.to_string()).await
    }

    /// Puts a service into maintenance for a reason, or takes it out.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn set_maintenance(&self, id: &str, reason: Option<&str>) -> Result<(), AgentError> {
        let path = ["v1", "agent", "service", "maintenance", id];
        let enable = if reason.is_some() { "true" } else { "false" };
        let query: Vec<(&str, &str)> = [("enable", enable)]
            .into_iter()
            .chain(reason.map(|reason| ("reason", reason)))
            .collect();
        self.put(&path, &query, String::new()).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, AgentError> {
        let (status, text) = self
            .0
            .request(Method::GET, path, &[], String::new())
            .await?;
        let shown = format!("/{}", path.join("/"));
        if status != StatusCode::OK {
            return Err(refusal(Method::GET, shown, status, &text));
        }
        serde_json::from_str(&text).map_err(|source| AgentError::Body {
            path: shown,
            source,
        })
    }

    async fn put(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: String,
    ) -> Result<(), AgentError> {
        let (status, text) = self.0.request(Method::PUT, path, query, body).await?;
        if status == StatusCode::OK {
            return Ok(());
        }
        let shown = format!("/{}", path.join("/"));
        Err(refusal(Method::PUT, shown, status, &text))
    }
}

fn refusal(method: Method, path: String, status: StatusCode, text: &str) -> AgentError {
    AgentError::Refused {
        method,
        path,
        status,
        text: text.trim().lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_answers() {
        let text = r#"{"a": {"ID": "a", "Service": "echo", "Tags": null, "Meta": null, "Port": 80,
                       "Address": "10.0.0.1", "Weights": {"Passing": 1, "Warning": 1}},
                       "b": {"Service": "x", "Tags": ["t"], "Meta": {"k": "v"}}}"#;
        let services: BTreeMap<String, AgentService> = serde_json::from_str(text).unwrap();
        assert_eq!(services["a"].address, "10.0.0.1");
        assert_eq!(services["a"].tags, Vec::<String>::new());
        assert_eq!(services["b"].meta["k"], "v");
        assert_eq!(services["b"].port, 0);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let path = "/v1/agent/service/register".to_owned();
        let status = StatusCode::FORBIDDEN;
        let error = refusal(Method::PUT, path, status, "Permission denied\nmore");
        assert_eq!(
            error.to_string(),
            "Consul refuses PUT /v1/agent/service/register, for the token lacks service:write or \
             node:read: status 403 Forbidden (Permission denied)"
        );
    }
}
