//! What the engine tells of: the only place that knows the JSON of its events (`GET /events`).

use serde::Deserialize;

/// Something that has happened to a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its id.
    pub(super) container: String,
    /// The signal that it was sent, if that is what has happened.
    pub(super) signal: Option<i32>,
}

/// What an event says; `None`: it is about no container.
pub(super) fn parse(line: &[u8]) -> Result<Option<Event>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        #[serde(rename = "Type", default)]
        kind: String,
        actor: Actor,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Actor {
        #[serde(rename = "ID", default)]
        id: String,
        #[serde(default)]
        attributes: Attributes,
    }
    #[derive(Default, Deserialize)]
    struct Attributes {
        container: Option<String>,
        signal: Option<String>,
    }
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let event: Wire = serde_json::from_slice(line)?;
    let Attributes { container, signal } = event.actor.attributes;
    let container = match event.kind.as_str() {
        "network" => container,
        _ => Some(event.actor.id),
    };
    let signal = signal.and_then(|signal| signal.parse().ok());
    Ok(container.map(|container| Event { container, signal }))
}
