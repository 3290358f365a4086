//! A first visit to Consul, for whoever wants to know whether it can be used: asks, and keeps nothing.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::{
    consul_client::{Client, SLACK},
    consul_options::ConsulOptions,
};
use crate::domain::fleet;

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    /// Whether the servers have a leader.
    pub leader: bool,
    /// Its version; absent: the token may not ask for it, which the agent does not need.
    pub version: Option<String>,
    /// How far this node's clock is from Consul's, and whether it is ahead; absent: not told.
    pub skew: Option<(Duration, bool)>,
    /// What the agent asks for and the token does not allow, as in `service:read`.
    pub denied: Vec<&'static str>,
    /// The token is none that Consul knows.
    pub unknown_token: bool,
}

#[derive(Deserialize)]
struct Myself {
    #[serde(rename = "Config")]
    config: MyConfig,
}

#[derive(Deserialize)]
struct MyConfig {
    #[serde(rename = "Version")]
    version: String,
}

/// Asks what the agent would, and what it is.
///
/// # Errors
///
/// It cannot be reached or used; a sentence that says what can be done.
pub async fn visit(options: &ConsulOptions) -> Result<Visit, String> {
    let client = Client::new(options, SLACK).map_err(|error| error.to_string())?;
    let get = async |path: &[&str], query: &[(&str, &str)]| {
        let answer = client
            .request(Method::GET, path, query, String::new())
            .await;
        answer.map_err(|error| error.to_string())
    };
    let (status, leader) = get(&["v1", "status", "leader"], &[]).await?;
    let mut visit = Visit {
        leader: status == StatusCode::OK && leader.trim().len() > 2,
        skew: client.skew().await,
        ..Visit::default()
    };
    let (status, myself) = get(&["v1", "agent", "self"], &[]).await?;
    if status == StatusCode::OK {
        let myself: Option<Myself> = serde_json::from_str(&myself).ok();
        visit.version = myself.map(|myself| myself.config.version);
    }
    visit.unknown_token |= names_no_token(status, &myself);
    let keys: Vec<&str> = ["v1", "kv"]
        .into_iter()
        .chain(fleet::PREFIX.split('/'))
        .collect();
    // Without a right, keys are refused, and lists come empty.
    let (status, text) = get(&keys, &[("keys", "true")]).await?;
    visit.unknown_token |= names_no_token(status, &text);
    if status == StatusCode::FORBIDDEN {
        visit.denied.push("key_prefix read");
    }
    let (status, services) = get(&["v1", "catalog", "services"], &[]).await?;
    // Consul itself is always listed to whoever may read anything.
    if status == StatusCode::FORBIDDEN || status == StatusCode::OK && services.trim() == "{}" {
        visit.denied.push("service_prefix read");
    }
    let (status, nodes) = get(&["v1", "catalog", "nodes"], &[]).await?;
    if status == StatusCode::FORBIDDEN || status == StatusCode::OK && nodes.trim() == "[]" {
        visit.denied.push("node_prefix read");
    }
    Ok(visit)
}

/// Consul knows the token not at all, in contrast to one that lacks a right.
fn names_no_token(status: StatusCode, text: &str) -> bool {
    status == StatusCode::FORBIDDEN && text.contains("ACL not found")
}
