//! Whether the Docker engine can be asked, where its containers are to be registered.

use std::path::PathBuf;

use super::Finding;
use crate::registrar::{EngineVersion, Unreachable, engine_version};

/// What is looked at.
const SUBJECT: &str = "docker";

/// The oldest version of the engine's API that has all that is read, as major and minor number.
const OLDEST_API: (u32, u32) = (1, 24);

/// Asks the engine behind a socket which it is.
pub async fn examine(socket: PathBuf) -> Finding {
    finding(engine_version(socket).await)
}

fn finding(answer: Result<EngineVersion, Unreachable>) -> Finding {
    let version = match answer {
        Ok(version) => version,
        // The agent starts without the engine, and waits for it.
        Err(Unreachable(text)) => {
            return Finding::advice(
                SUBJECT,
                text,
                "until the engine answers, no container is registered; see `endpoint` under [docker]",
            );
        }
    };
    let EngineVersion { engine, api } = &version;
    let found = format!("engine {engine}, API {api}");
    match numbers(api) {
        Some(numbers) if numbers >= OLDEST_API => Finding::fine(SUBJECT, found),
        _ => {
            let (major, minor) = OLDEST_API;
            let mend = format!("use an engine with API {major}.{minor} (Docker 1.12) or newer");
            Finding::advice(SUBJECT, found, mend)
        }
    }
}

fn numbers(api: &str) -> Option<(u32, u32)> {
    let (major, minor) = api.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn each_answer_is_a_finding_of_its_kind() {
        let version = |api: &str| EngineVersion {
            engine: "20.10.5".into(),
            api: api.into(),
        };
        let rows = [
            (Ok(version("1.41")), State::Fine, "engine 20.10.5, API 1.41"),
            (Ok(version("1.24")), State::Fine, "API 1.24"),
            (Ok(version("1.9")), State::Advice, "API 1.9"),
            (Ok(version("odd")), State::Advice, "API odd"),
            (Err(Unreachable("denied".into())), State::Advice, "denied"),
        ];
        for (answer, state, part) in rows {
            let finding = finding(answer);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(part), "{finding:?}");
        }
    }

    /// A socket that is there and one that is not.
    #[tokio::test]
    async fn a_socket_without_an_engine_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let absent = examine(socket.clone()).await;
        assert!(
            absent.found.contains("there is no such socket"),
            "{absent:?}"
        );
        drop(tokio::net::UnixListener::bind(&socket).unwrap());
        let silent = examine(socket).await;
        assert!(silent.found.contains("nobody listens there"), "{silent:?}");
    }
}
