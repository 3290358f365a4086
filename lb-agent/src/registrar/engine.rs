//! Asks the Docker engine over its Unix socket.
//!
//! Four questions of the engine's HTTP API are all that is needed, so they go over hyper, which the
//! agent has anyway, instead of a client crate with the whole API in it. The paths carry no version:
//! the oldest and the newest engines share none that both accept, and what is read here is in all.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use serde::Deserialize;
use thiserror::Error;
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

use super::{
    container::{self, Container},
    event::{self, Event},
};

/// How long an answer may take: an engine that is busy starting containers is slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// No answer is longer; a thousand containers are about 5 MB.
const LONGEST: usize = 64 << 20;
/// No event is longer.
const LONGEST_EVENT: usize = 1 << 20;

/// What may change a registration. The engine takes these for beginnings of its events' names.
const FILTERS: &str = r#"{"type":["container","network"],"event":["start","kill","die","pause","unpause","rename","health_status","destroy","connect","disconnect"]}"#;

/// The engine; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    socket: Arc<PathBuf>,
}

/// A question without a usable answer.
#[derive(Debug, Error)]
#[error("GET {path} from the Docker engine at {}: {cause}", socket.display())]
pub(super) struct EngineError {
    path: String,
    socket: Arc<PathBuf>,
    #[source]
    cause: Cause,
}

/// Why. Each text says what to do, where there is something to do.
#[derive(Debug, Error)]
enum Cause {
    #[error("there is no such socket; check that the engine runs, and `endpoint` under [docker]")]
    NoSocket,
    #[error("nobody listens there; check that the engine runs")]
    Refused,
    #[error("permission denied; the agent must be root, or in the socket's group")]
    Denied,
    #[error("no connection ({0})")]
    Unreachable(io::Error),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    #[error("the connection broke ({0})")]
    Broken(String),
    #[error("the engine ended the stream of events; it stops or restarts")]
    Ended,
    #[error("status {status} ({text})")]
    Status { status: StatusCode, text: String },
    #[error("the answer is not the JSON that the engine documents ({0})")]
    Body(#[from] serde_json::Error),
}

impl Engine {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket: Arc::new(socket),
        }
    }

    /// Ids of the containers that run, paused and restarting ones included.
    pub(super) async fn running(&self) -> Result<Vec<String>, EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        const PATH: &str = "/containers/json";
        let (status, body) = self.get(PATH).await?;
        let list: Result<Vec<Listed>, Cause> =
            accept(status, &body).and_then(|()| serde_json::from_slice(&body).map_err(Cause::from));
        let list = list.map_err(|cause| self.error(PATH, cause))?;
        Ok(list.into_iter().map(|listed| listed.id).collect())
    }

    /// Which engine it is, and the newest version of its API.
    pub(super) async fn version(&self) -> Result<(String, String), EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Version {
            version: String,
            api_version: String,
        }
        const PATH: &str = "/version";
        let (status, body) = self.get(PATH).await?;
        let version: Result<Version, Cause> =
            accept(status, &body).and_then(|()| serde_json::from_slice(&body).map_err(Cause::from));
        let version = version.map_err(|cause| self.error(PATH, cause))?;
        Ok((version.version, version.api_version))
    }

    /// What there is to know of one; `None`: it is gone.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let path = format!("/containers/{id}/json");
        let (status, body) = self.get(&path).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        accept(status, &body)
            .and_then(|()| container::parse(&body).map_err(Cause::from))
            .map(Some)
            .map_err(|cause| self.error(&path, cause))
    }

    /// Everything that happens from now on.
    pub(super) async fn events(&self) -> Result<Events, EngineError> {
        const PATH: &str = "/events";
        let mut url = Url::parse("http://docker/events").expect("a valid URL");
        url.query_pairs_mut().append_pair("filters", FILTERS);
        let query = format!("{PATH}?{}", url.query().unwrap_or_default());
        let asked = timeout(ANSWER_TIMEOUT, self.ask(&query)).await;
        let (response, connection) = asked
            .unwrap_or(Err(Cause::Timeout))
            .map_err(|cause| self.error(PATH, cause))?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let text = String::new();
            return Err(self.error(PATH, Cause::Status { status, text }));
        }
        Ok(Events {
            engine: self.clone(),
            body: response.into_body(),
            unread: Vec::new(),
            _connection: connection,
        })
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), EngineError> {
        let answer = async {
            let (response, _connection) = self.ask(path).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| Cause::Broken(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        let answer = timeout(ANSWER_TIMEOUT, answer).await;
        answer
            .unwrap_or(Err(Cause::Timeout))
            .map_err(|cause| self.error(path, cause))
    }

    /// Asks over a connection of its own, which ends with what is returned: connecting to a Unix
    /// socket costs next to nothing, and there is never a stale one.
    async fn ask(&self, path: &str) -> Result<(Response<Incoming>, Connection), Cause> {
        let stream =
            UnixStream::connect(&*self.socket)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => Cause::NoSocket,
                    io::ErrorKind::ConnectionRefused => Cause::Refused,
                    io::ErrorKind::PermissionDenied => Cause::Denied,
                    _ => Cause::Unreachable(error),
                })?;
        let broken = |error: hyper::Error| Cause::Broken(error.to_string());
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(broken)?;
        let task = tokio::spawn(async move {
            // Whoever waits for the answer hears of it.
            drop(connection.await);
        });
        let request = Request::get(path)
            .header("host", "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Cause::Broken(error.to_string()))?;
        let mut connection = Connection { task, sender };
        let response = connection.sender.send_request(request).await;
        Ok((response.map_err(broken)?, connection))
    }

    fn error(&self, path: &str, cause: Cause) -> EngineError {
        EngineError {
            path: path.to_owned(),
            socket: self.socket.clone(),
            cause,
        }
    }
}

/// A connection that ends with its owner.
struct Connection {
    task: JoinHandle<()>,
    sender: http1::SendRequest<Empty<Bytes>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn accept(status: StatusCode, body: &[u8]) -> Result<(), Cause> {
    #[derive(Default, Deserialize)]
    struct Refusal {
        message: String,
    }
    if status == StatusCode::OK {
        return Ok(());
    }
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let text = refusal.message.trim().to_owned();
    Err(Cause::Status { status, text })
}

/// The engine's events, as they happen.
pub(super) struct Events {
    engine: Engine,
    body: Incoming,
    unread: Vec<u8>,
    _connection: Connection,
}

impl Events {
    /// The container that something has happened to. May be dropped while it waits, and
    /// called again; nothing is lost.
    ///
    /// # Errors
    ///
    /// The stream has ended, and so has this.
    pub(super) async fn next(&mut self) -> Result<Event, EngineError> {
        self.read()
            .await
            .map_err(|cause| self.engine.error("/events", cause))
    }

    async fn read(&mut self) -> Result<Event, Cause> {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                if let Some(event) = event::parse(&line)? {
                    return Ok(event);
                }
            }
            if self.unread.len() > LONGEST_EVENT {
                return Err(Cause::Broken("an event without an end".into()));
            }
            let frame = self.body.frame().await.ok_or(Cause::Ended)?;
            let frame = frame.map_err(|error| Cause::Broken(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                self.unread.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    /// An engine that gives one answer to each connection, in this order.
    fn engine(answers: Vec<String>) -> (tempfile::TempDir, Engine) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (directory, Engine::new(socket))
    }

    fn answer(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn containers_are_listed_and_inspected() {
        let (_directory, engine) = engine(vec![
            answer("200 OK", r#"[{"Id": "a", "Names": ["/x"]}, {"Id": "b"}]"#),
            answer("200 OK", r#"{"Id": "a", "Name": "/x"}"#),
            answer("404 Not Found", r#"{"message": "No such container: a"}"#),
            answer("500 Internal Server Error", r#"{"message": "broken"}"#),
            answer("200 OK", "[{}]"),
        ]);
        assert_eq!(engine.running().await.unwrap(), ["a", "b"]);
        assert_eq!(engine.inspect("a").await.unwrap().unwrap().name, "x");
        assert_eq!(engine.inspect("a").await.unwrap(), None);
        let error = engine.inspect("a").await.unwrap_err().to_string();
        assert!(error.contains("GET /containers/a/json"), "{error}");
        assert!(
            error.contains("status 500 Internal Server Error (broken)"),
            "{error}"
        );
        let error = engine.running().await.unwrap_err().to_string();
        assert!(error.contains("is not the JSON"), "{error}");
    }

    #[tokio::test]
    async fn events_name_containers_until_the_stream_ends() {
        let events = [
            r#"{"Type":"container","Action":"start","Actor":{"ID":"a","Attributes":{"image":"x"}}}"#,
            r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"b"}}}"#,
            r#"{"Type":"network","Action":"destroy","Actor":{"ID":"n","Attributes":{"name":"x"}}}"#,
            r#"{"Type":"container","Action":"kill","Actor":{"ID":"d","Attributes":{"signal":"15"}}}"#,
            r#"{"Type":"container","Action":"die","Actor":{"ID":"c"}}"#,
        ];
        let body = format!("\n{}\n", events.join("\n"));
        let (_directory, engine) = engine(vec![answer("200 OK", &body)]);
        let mut stream = engine.events().await.unwrap();
        for (container, signal) in [("a", None), ("b", None), ("d", Some(15)), ("c", None)] {
            let container = container.to_owned();
            let expected = Event { container, signal };
            assert_eq!(stream.next().await.unwrap(), expected);
        }
        let error = stream.next().await.unwrap_err().to_string();
        assert!(error.contains("the engine ended the stream"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let engine = Engine::new(socket);
        for error in [
            engine.running().await.err(),
            engine.inspect("a").await.err(),
            engine.events().await.err(),
        ] {
            let error = error.unwrap().to_string();
            assert!(error.contains("no answer within 15 s"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let engine = Engine::new(socket.clone());
        let error = engine.running().await.unwrap_err().to_string();
        assert!(error.contains("there is no such socket"), "{error}");
        assert!(error.contains(socket.to_str().unwrap()), "{error}");
        drop(UnixListener::bind(&socket).unwrap());
        let error = engine.running().await.unwrap_err().to_string();
        assert!(error.contains("nobody listens there"), "{error}");
    }
}
