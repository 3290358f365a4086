//! Writes the fleet's keys: all or none, and none that somebody else has changed meanwhile.

use std::{collections::BTreeMap, time::SystemTime};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tracing::debug;

use super::{
    consul_client::{Client, SLACK},
    consul_entries::{parse_keys, to_base64},
    consul_options::{ConsulOptions, InvalidOptions},
};
use crate::domain::{
    fleet::{KeyChange, MAX_CHANGES, PREFIX, WriteError, leftovers},
    sync::KeyValue,
};

/// Writes to one Consul. Cheap to clone.
#[derive(Clone)]
pub struct KeyWriter(Client);

impl KeyWriter {
    /// A writer; connects to nothing.
    ///
    /// # Errors
    ///
    /// The options are unusable.
    pub fn new(options: &ConsulOptions) -> Result<Self, InvalidOptions> {
        Client::new(options, SLACK).map(Self)
    }

    /// Reads what the keys are, and changes them in one transaction if they still are that. Then
    /// deletes what rules that have ended left behind.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; then nothing was changed, or (after a connection that broke) perhaps all.
    pub async fn write(&self, changes: &[KeyChange]) -> Result<(), WriteError> {
        if changes.len() > MAX_CHANGES {
            return Err(WriteError::TooMany(changes.len()));
        }
        let present = self.read().await?;
        self.commit(changes, &present).await?;
        let over = leftovers(&present, SystemTime::now());
        // Of no consequence, and the next one tries it again.
        if !over.is_empty()
            && let Err(error) = self.commit(&over, &present).await
        {
            debug!(%error, "keys of rules that have ended could not be deleted");
        }
        Ok(())
    }

    async fn commit(
        &self,
        changes: &[KeyChange],
        present: &BTreeMap<String, KeyValue>,
    ) -> Result<(), WriteError> {
        let operations = operations(changes, present)?;
        let body = Value::Array(operations).to_string();
        let path = ["v1", "txn"];
        let (status, text) = self.request(Method::PUT, &path, &[], body).await?;
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::CONFLICT if is_denied(&text) => Err(WriteError::Failed(
                "Consul denies it; the token lacks key:write on lb/".into(),
            )),
            StatusCode::CONFLICT => Err(WriteError::Conflict),
            status => Err(refusal(status, &text)),
        }
    }

    async fn read(&self) -> Result<BTreeMap<String, KeyValue>, WriteError> {
        let path: Vec<&str> = ["v1", "kv"].into_iter().chain(PREFIX.split('/')).collect();
        let query = [("recurse", "true"), ("consistent", "true")];
        let (status, text) = self
            .request(Method::GET, &path, &query, String::new())
            .await?;
        match status {
            StatusCode::OK => parse_keys(text.as_bytes()).map_err(|error| {
                WriteError::Failed(format!("Consul's answer is no JSON ({error})"))
            }),
            StatusCode::NOT_FOUND => Ok(BTreeMap::new()),
            status => Err(refusal(status, &text)),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: String,
    ) -> Result<(StatusCode, String), WriteError> {
        let answer = self.0.request(method, path, query, body).await;
        answer.map_err(|error| WriteError::Failed(error.to_string()))
    }
}

fn refusal(status: StatusCode, text: &str) -> WriteError {
    let line = text.trim().lines().next().unwrap_or_default();
    match status {
        StatusCode::FORBIDDEN => WriteError::Failed(format!(
            "Consul denies it ({line}); the token lacks key:read or key:write on {PREFIX}"
        )),
        status => WriteError::Failed(format!("Consul answered with status {status} ({line})")),
    }
}

/// Whether a failed transaction failed for want of a right.
fn is_denied(text: &str) -> bool {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let errors = answer["Errors"].as_array().map_or(&[][..], Vec::as_slice);
    errors.iter().any(|error| {
        let what = error["What"].as_str().unwrap_or_default();
        what.contains("Permission denied")
    })
}

/// The transaction that changes keys which are `present` (by key without the prefix).
fn operations(
    changes: &[KeyChange],
    present: &BTreeMap<String, KeyValue>,
) -> Result<Vec<Value>, WriteError> {
    let index = |key: &str| {
        let value = present.get(key.strip_prefix(PREFIX).unwrap_or(key));
        value.map(|value| value.index)
    };
    let operation = |change: &KeyChange| match change {
        // An index of 0: only if there is no such key.
        KeyChange::Set(key, text) => Ok(json!({"KV": {
            "Verb": "cas",
            "Key": key,
            "Value": to_base64(text.as_bytes()),
            "Index": index(key).unwrap_or(0),
        }})),
        KeyChange::Delete(keys) => {
            let found = keys.iter().find_map(|key| Some((key, index(key)?)));
            let first = || keys.first().cloned().unwrap_or_default();
            let (key, index) = found.ok_or_else(|| WriteError::Missing(first()))?;
            Ok(json!({"KV": {"Verb": "delete-cas", "Key": key, "Index": index}}))
        }
    };
    changes.iter().map(operation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_carries_the_index_that_was_read() {
        let value = |index| KeyValue {
            text: "x".into(),
            index,
        };
        let present = BTreeMap::from([
            ("split/echo".to_owned(), value(7)),
            ("block/192.0.2.7".to_owned(), value(9)),
        ]);
        let prefix = "192.0.2.7/32".parse().unwrap();
        let changes = [
            KeyChange::Set("lb/split/echo".into(), "foo".into()),
            KeyChange::Set("lb/split/new".into(), "foo".into()),
            KeyChange::unblock(&prefix),
        ];
        let operations = operations(&changes, &present).unwrap();
        assert_eq!(
            Value::Array(operations),
            json!([
                {"KV": {"Verb": "cas", "Key": "lb/split/echo", "Value": "Zm9v", "Index": 7}},
                {"KV": {"Verb": "cas", "Key": "lb/split/new", "Value": "Zm9v", "Index": 0}},
                {"KV": {"Verb": "delete-cas", "Key": "lb/block/192.0.2.7", "Index": 9}},
            ])
        );
        let gone = [KeyChange::unblock(&"192.0.2.8/32".parse().unwrap())];
        let missing = WriteError::Missing("lb/block/192.0.2.8/32".into());
        assert_eq!(super::operations(&gone, &present), Err(missing));
    }
}
