//! Asks Consul over HTTP, and says of each failure what a person can do about it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};

use super::{
    consul_answer::{Answer, Body, read},
    consul_failure::{Cause, excerpt, explain},
    consul_options::{ConsulOptions, Endpoint, InvalidOptions},
    consul_token::Token,
};
use crate::domain::{fleet, sync::Topic};

pub(super) use super::consul_failure::RequestError;

/// How long an answer may take that Consul does not hold back. Above the seconds for which a
/// server without leader hopes for one, since its answer says more than a timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is added to the longest time that Consul may hold a question.
pub(super) const SLACK: Duration = Duration::from_secs(5);

/// Answers older than this are not believed.
const STALEST: Duration = Duration::from_secs(10);

/// Bounds of [`ConsulOptions::wait`].
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// See [`SHORTEST_WAIT`].
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Asks one Consul agent or server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    server: Arc<str>,
    datacenter: Option<String>,
    token: Token,
    wait: Duration,
    slack: Duration,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Memory of answers that is kept for the next ones: a thousand polls would otherwise have the
/// kernel fill as many pages with zeros as their answers are long, and take them back.
const SPARE: usize = 4;
/// No more of each than this.
const SPARE_SIZE: usize = 256 * 1024;

impl Client {
    /// Builds a client; connects to nothing. `slack` is what a held answer may be late by,
    /// [`SLACK`] outside of tests.
    pub(super) fn new(options: &ConsulOptions, slack: Duration) -> Result<Self, InvalidOptions> {
        let endpoint = options.endpoint()?;
        let token = Token::new(options.token.as_deref(), options.token_file.clone())
            .map_err(|error| InvalidOptions::Token(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            server: endpoint.server.as_str().into(),
            endpoint,
            datacenter: options.datacenter.clone(),
            token,
            wait: options.wait.clamp(SHORTEST_WAIT, LONGEST_WAIT),
            slack,
            spare: Mutex::default(),
        })))
    }

    /// Asks for what there is of a topic. With an `index` above 0 Consul holds the answer until
    /// something newer than that index happens, or the wait is over. `known` is the digest of the
    /// last answer.
    pub(super) async fn ask(
        &self,
        topic: &Topic,
        index: u64,
        known: Option<u64>,
    ) -> Result<Answer, RequestError> {
        let answer = self.try_ask(topic, index, known).await;
        answer.map_err(|cause| self.failed(path(topic), cause))
    }

    /// Asks at a path, in the same way; answers with index and body.
    pub(super) async fn ask_raw(
        &self,
        path: &[&str],
        index: u64,
    ) -> Result<(u64, Vec<u8>), RequestError> {
        let datacenter = self.0.datacenter.as_ref();
        let answer = async {
            let answer = self.fetch(path, &[], datacenter, index).await?;
            let (status, headers, body) = answer;
            accept(status, &body)?;
            Ok((trusted_index(&headers)?, body))
        };
        let answer: Result<_, Cause> = answer.await;
        answer.map_err(|cause| self.failed(format!("/{}", path.join("/")), cause))
    }

    fn failed(&self, path: String, cause: Cause) -> RequestError {
        if matches!(cause, Cause::Denied(_)) {
            self.0.token.refused();
        }
        RequestError {
            method: Method::GET,
            path,
            server: self.0.server.clone(),
            cause,
        }
    }

    /// Sends any other question or order; answers with status and body, whatever the status.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: String,
    ) -> Result<(StatusCode, String), RequestError> {
        let inner = &*self.0;
        let mut url = inner.endpoint.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let datacenter = inner.datacenter.iter().map(|name| ("dc", name.as_str()));
        for (key, value) in query.iter().copied().chain(datacenter) {
            url.query_pairs_mut().append_pair(key, value);
        }
        let sent = async {
            let request = inner.endpoint.http.request(method.clone(), url);
            let mut request = request.timeout(ANSWER_TIMEOUT).body(body);
            if let Some(token) = inner.token.current()? {
                request = request.header("X-Consul-Token", token);
            }
            let failed = |error| explain(&error, ANSWER_TIMEOUT);
            let response = request.send().await.map_err(failed)?;
            let status = response.status();
            let body = response.bytes().await.map_err(failed)?;
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        let answer: Result<_, Cause> = sent.await;
        if matches!(answer, Ok((StatusCode::FORBIDDEN, _))) {
            inner.token.refused();
        }
        answer.map_err(|cause| RequestError {
            method: method.clone(),
            path: format!("/{}", path.join("/")),
            server: inner.server.clone(),
            cause,
        })
    }

    /// How far this node's clock is from the server's, by the header `Date` of an answer, and whether
    /// it is ahead; `None`: it does not tell.
    pub(super) async fn skew(&self) -> Option<(Duration, bool)> {
        let (_, headers, _) = self
            .fetch(&["v1", "status", "leader"], &[], None, 0)
            .await
            .ok()?;
        let date = headers.get("date")?.to_str().ok()?;
        let theirs = httpdate::parse_http_date(date).ok()?;
        Some(match SystemTime::now().duration_since(theirs) {
            Ok(ahead) => (ahead, true),
            Err(behind) => (behind.duration(), false),
        })
    }

    async fn try_ask(
        &self,
        topic: &Topic,
        index: u64,
        known: Option<u64>,
    ) -> Result<Answer, Cause> {
        let query: &[_] = match topic {
            Topic::Keys => &[("recurse", "true")],
            _ => &[],
        };
        let datacenter = match topic {
            Topic::Instances {
                datacenter: Some(datacenter),
                ..
            } => Some(datacenter),
            _ => self.0.datacenter.as_ref(),
        };
        let segments = segments_of(topic);
        let (status, headers, body) = self.fetch(&segments, query, datacenter, index).await?;
        // No key has the prefix; everything else is as with a list.
        if status == StatusCode::NOT_FOUND && *topic == Topic::Keys && body.is_empty() {
            return Ok(Answer {
                index: trusted_index(&headers)?,
                body: Body::Keys(BTreeMap::new()),
                digest: 0,
            });
        }
        accept(status, &body)?;
        let index = trusted_index(&headers)?;
        let (listed, digest) = read(topic, &body, known)?;
        self.keep_spare(body);
        Ok(Answer {
            index,
            body: listed,
            digest,
        })
    }

    /// Asks at a path; answers with whatever comes.
    async fn fetch(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
        datacenter: Option<&String>,
        index: u64,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), Cause> {
        let inner = &*self.0;
        let mut url = inner.endpoint.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        for (key, value) in query {
            url.query_pairs_mut().append_pair(key, value);
        }
        if let Some(datacenter) = datacenter {
            url.query_pairs_mut().append_pair("dc", datacenter);
        }
        let mut timeout = ANSWER_TIMEOUT;
        if index > 0 {
            timeout = held_timeout(inner.wait, inner.slack);
            url.query_pairs_mut()
                .append_pair("index", &index.to_string())
                .append_pair("wait", &format!("{}ms", inner.wait.as_millis()));
        }
        let mut request = inner.endpoint.http.get(url).timeout(timeout);
        if let Some(token) = inner.token.current()? {
            request = request.header("X-Consul-Token", token);
        }
        let failed = |error| explain(&error, timeout);
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut body = self.spare();
        // Piece by piece, so that the connection's own memory serves for each as well.
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&piece);
        }
        Ok((status, headers, body))
    }

    fn spare(&self) -> Vec<u8> {
        let mut spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    /// Keeps the memory of an answer that has been read.
    fn keep_spare(&self, mut body: Vec<u8>) {
        let mut spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE && body.capacity() <= SPARE_SIZE {
            body.clear();
            spare.push(body);
        }
    }
}

/// Whether a status says that an answer is one.
fn accept(status: StatusCode, body: &[u8]) -> Result<(), Cause> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::FORBIDDEN => Err(Cause::Denied(excerpt(body))),
        StatusCode::NOT_FOUND => Err(Cause::NotFound),
        status => Err(Cause::Status {
            status,
            text: excerpt(body),
        }),
    }
}

/// The path that is asked, as shown to people.
pub(super) fn path(topic: &Topic) -> String {
    format!("/{}", segments_of(topic).join("/"))
}

fn segments_of(topic: &Topic) -> Vec<&str> {
    match topic {
        Topic::Instances { service, .. } | Topic::Glance(service) => {
            vec!["v1", "health", "service", service]
        }
        Topic::Entries(kind) => vec!["v1", "config", kind.name()],
        Topic::Keys => {
            let prefix = fleet::PREFIX.split('/');
            ["v1", "kv"].into_iter().chain(prefix).collect()
        }
        Topic::Names => vec!["v1", "catalog", "services"],
    }
}

/// How long an answer may take that Consul may hold for `wait`: it adds up to a sixteenth, so that
/// not all watches wake at once.
fn held_timeout(wait: Duration, slack: Duration) -> Duration {
    wait + wait / 16 + slack
}

/// The index of an answer that may be believed. An answer without a leader, or from a server long
/// cut off from it, may list anything, above all nothing.
fn trusted_index(headers: &HeaderMap) -> Result<u64, Cause> {
    let text = |name| headers.get(name).map(HeaderValue::to_str);
    if text("X-Consul-KnownLeader").is_some_and(|known| known.is_ok_and(|known| known == "false")) {
        return Err(Cause::NoLeader);
    }
    let number = |name| text(name)?.ok()?.parse::<u64>().ok();
    if let Some(age) = number("X-Consul-LastContact").map(Duration::from_millis)
        && age > STALEST
    {
        return Err(Cause::Stale(age));
    }
    number("X-Consul-Index").ok_or(Cause::NoIndex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_answer_has_a_seventeenth_sixteenth_and_the_slack() {
        assert_eq!(
            held_timeout(Duration::from_secs(16), SLACK),
            Duration::from_secs(22)
        );
    }

    #[test]
    fn which_headers_are_trusted() {
        let row = |leader: &str, contact: &str, index: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("X-Consul-KnownLeader", leader),
                ("X-Consul-LastContact", contact),
                ("X-Consul-Index", index),
            ] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            trusted_index(&headers).map_err(|cause| cause.to_string())
        };
        assert_eq!(row("true", "0", "7"), Ok(7));
        assert_eq!(row("", "", "0"), Ok(0));
        assert_eq!(row("true", "10000", "7"), Ok(7));
        let refused = [
            (row("false", "0", "7"), "have no leader"),
            (row("true", "10001", "7"), "for 10001 ms"),
            (row("true", "0", ""), "no X-Consul-Index"),
            (row("true", "0", "seven"), "no X-Consul-Index"),
        ];
        for (got, part) in refused {
            let text = got.unwrap_err();
            assert!(text.contains(part), "{text}");
        }
    }
}
