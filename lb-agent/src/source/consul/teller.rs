//! Tells which of the polled services may have something new, so that they are asked at once and
//! not when their turn comes: four questions that Consul holds, for any number of services.
//!
//! What changes of a service is its registrations, the state of its checks, or the node that it is
//! on. Consul answers `/v1/catalog/services` when any registration changes, `/v1/catalog/nodes` when
//! any node does, and `/v1/health/state/critical` and `…/warning` when a check comes into that state
//! or leaves it. The former two do not say of which service; the latter do, for each check names its
//! service.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::sync::mpsc;

use super::follow::next_index;
use crate::{
    domain::backoff::full_jitter,
    source::consul_client::{Client, RequestError},
};

/// A question that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// Whether any registration has changed.
    Registrations,
    /// Whether any node has changed, above all its address.
    Nodes,
    /// Which checks are in this state.
    Checks(&'static str),
}

impl Question {
    pub(super) const ALL: [Self; 4] = [
        Self::Registrations,
        Self::Nodes,
        Self::Checks("critical"),
        Self::Checks("warning"),
    ];
}

/// What an answer tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing, but that the question is answered.
    Nothing,
    /// These services have changed.
    Services(BTreeSet<String>),
    /// Any may have changed.
    Anything,
    /// There is no answer at present, and nothing will be told.
    Silence,
}

/// Asks one of the questions for ever.
pub(super) struct Teller {
    pub(super) client: Client,
    pub(super) question: Question,
    pub(super) out: mpsc::Sender<(Question, Told)>,
}

/// At least this long from one answer to the next question: all of what many changes tell is told
/// together. A single change does not wait for it.
const GAP: Duration = Duration::from_millis(100);
/// The same where an answer has everybody asked.
const GAP_OF_ALL: Duration = Duration::from_secs(1);

/// What an answer said.
struct Before {
    index: u64,
    /// Those in the state that was asked for; `None`: it was another question.
    checks: Option<BTreeSet<Check>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    node: String,
    #[serde(rename = "CheckID")]
    id: String,
    /// Empty for a check of the node itself.
    #[serde(default)]
    service_name: String,
    /// Another one if it has been in another state meanwhile, and come back.
    #[serde(default)]
    modify_index: u64,
}

impl Teller {
    pub(super) async fn run(self) {
        let mut before: Option<Before> = None;
        let mut failures = 0;
        loop {
            let asked = Instant::now();
            let index = before.as_ref().map_or(0, |before| before.index);
            let (told, pause) = match self.ask(index).await {
                Ok(now) => {
                    failures = 0;
                    let told = compare(before.as_ref(), &now);
                    let gap = match told {
                        Told::Anything => GAP_OF_ALL,
                        _ => GAP,
                    };
                    before = Some(Before {
                        index: next_index(index, Some(now.index)),
                        ..now
                    });
                    // Who has waited for the answer has paused enough.
                    (told, gap.saturating_sub(asked.elapsed()))
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(question = ?self.question, %error, "nothing is told");
                    before = None;
                    (Told::Silence, full_jitter(failures, &mut rand::rng()))
                }
            };
            if self.out.send((self.question, told)).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(&self, index: u64) -> Result<Before, RequestError> {
        match self.question {
            Question::Registrations => self.ask_index("services", index).await,
            Question::Nodes => self.ask_index("nodes", index).await,
            Question::Checks(state) => {
                let path = ["v1", "health", "state", state];
                let (index, body) = self.client.ask_raw(&path, index).await?;
                // One that cannot be read tells nothing; who is polled finds out all the same.
                let checks = serde_json::from_slice(&body).unwrap_or_default();
                Ok(Before {
                    index,
                    checks: Some(checks),
                })
            }
        }
    }

    /// Asks for a list of the catalog of which no more counts than that it is another one.
    async fn ask_index(&self, list: &str, index: u64) -> Result<Before, RequestError> {
        let path = ["v1", "catalog", list];
        let (index, _) = self.client.ask_raw(&path, index).await?;
        Ok(Before {
            index,
            checks: None,
        })
    }
}

/// What is new since the answer before.
fn compare(before: Option<&Before>, now: &Before) -> Told {
    let Some(before) = before else {
        // Whatever has happened until now.
        return Told::Anything;
    };
    if now.index < before.index {
        return Told::Anything;
    }
    let (Some(then), Some(now_in_it)) = (&before.checks, &now.checks) else {
        return match now.index == before.index {
            true => Told::Nothing,
            false => Told::Anything,
        };
    };
    let differing = then.symmetric_difference(now_in_it);
    let services: BTreeSet<String> = differing.map(|check| check.service_name.clone()).collect();
    if services.contains("") {
        Told::Anything
    } else if services.is_empty() {
        Told::Nothing
    } else {
        Told::Services(services)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(index: u64, checks: Option<&[(&str, &str)]>) -> Before {
        let check = |(id, service): &(&str, &str)| Check {
            node: "n".into(),
            id: (*id).into(),
            service_name: (*service).into(),
            modify_index: 0,
        };
        Before {
            index,
            checks: checks.map(|checks| checks.iter().map(check).collect()),
        }
    }

    fn services(names: &[&str]) -> Told {
        Told::Services(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_answers_tell() {
        let rows = [
            (answer(7, None), answer(7, None), Told::Nothing),
            (answer(7, None), answer(9, None), Told::Anything),
            // The server has another history.
            (answer(7, None), answer(3, None), Told::Anything),
            (answer(7, Some(&[])), answer(3, Some(&[])), Told::Anything),
            // Of other checks.
            (answer(7, Some(&[])), answer(9, Some(&[])), Told::Nothing),
            (
                answer(7, Some(&[("a", "web")])),
                answer(9, Some(&[("a", "web"), ("b", "db")])),
                services(&["db"]),
            ),
            (
                answer(7, Some(&[("a", "web"), ("b", "db")])),
                answer(9, Some(&[("c", "mail")])),
                services(&["db", "mail", "web"]),
            ),
            // A node's own check concerns all that runs there.
            (
                answer(7, Some(&[("a", "web")])),
                answer(9, Some(&[("serfHealth", "")])),
                Told::Anything,
            ),
        ];
        for (number, (before, now, told)) in rows.into_iter().enumerate() {
            assert_eq!(compare(Some(&before), &now), told, "row {number}");
        }
        assert_eq!(compare(None, &answer(7, None)), Told::Anything);
    }

    /// As Consul 1.8.7 writes it.
    #[test]
    fn checks_are_read() {
        let body = r#"[{"Node": "n", "CheckID": "alive", "Name": "alive", "Status": "critical",
            "Notes": "", "Output": "", "ServiceID": "e1", "ServiceName": "echo",
            "ServiceTags": ["v1"], "Type": "ttl", "Definition": {}, "CreateIndex": 1, "ModifyIndex": 9}]"#;
        let checks: BTreeSet<Check> = serde_json::from_str(body).unwrap();
        let first = checks.first().unwrap();
        assert_eq!(
            (
                &*first.node,
                &*first.id,
                &*first.service_name,
                first.modify_index
            ),
            ("n", "alive", "echo", 9)
        );
    }
}
