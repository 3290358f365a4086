//! The receiver of spans, by OTLP 1.x over gRPC or HTTP (`opentelemetry.io/docs/specs/otlp`): which
//! of its answers are for ever, and which ask for patience.

use std::{error::Error, time::Duration};

use http::{HeaderMap, StatusCode, Uri, header::RETRY_AFTER, uri};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_client::TraceServiceClient,
};
use prost::Message as _;
use tonic::{
    Code, Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use crate::config::proxy::{OtlpTransport, TracesConfig};

/// How long it may take to be connected.
const CONNECT: Duration = Duration::from_secs(5);
/// Who sends.
const AGENT: &str = concat!("lb-agent/", env!("CARGO_PKG_VERSION"));
/// Where receivers take spans over HTTP if nothing else is said.
const PATH: &str = "/v1/traces";

/// Where spans go.
#[derive(Debug)]
pub(super) enum Receiver {
    Grpc(TraceServiceClient<Channel>),
    Http(reqwest::Client, String),
}

/// Why the receiver cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("[proxy] traces: {endpoint} cannot be used: {source}")]
pub struct ReceiverError {
    endpoint: String,
    source: Box<dyn Error + Send + Sync>,
}

/// Why spans were not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: String,
    /// The same spans may be taken later.
    pub(super) may_repeat: bool,
    /// The receiver says when.
    pub(super) after: Option<Duration>,
}

impl Refused {
    pub(super) fn for_now(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_repeat: true,
            after: None,
        }
    }
}

impl Receiver {
    /// Connects when there is something to send. To be called within a Tokio runtime.
    pub(super) fn new(config: &TracesConfig) -> Result<Self, ReceiverError> {
        let failed = |source| ReceiverError {
            endpoint: config.endpoint.clone(),
            source,
        };
        Self::reaching(config).map_err(failed)
    }

    fn reaching(config: &TracesConfig) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let url = url(&config.endpoint, config.transport)?;
        if config.transport == OtlpTransport::Http {
            let client = reqwest::Client::builder()
                .connect_timeout(CONNECT)
                .user_agent(AGENT)
                .no_proxy();
            // Parsing the system's certificates is for those who need them.
            let client = match url.scheme_str() {
                Some("https") => client.use_preconfigured_tls(crate::tls::client_config(
                    &Default::default(),
                    &[b"http/1.1"],
                )?),
                _ => client,
            };
            return Ok(Self::Http(client.build()?, url.to_string()));
        }
        let secure = url.scheme_str() == Some("https");
        let mut endpoint = Endpoint::from(url)
            .connect_timeout(CONNECT)
            .user_agent(AGENT)?;
        if secure {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
        }
        Ok(Self::Grpc(TraceServiceClient::new(endpoint.connect_lazy())))
    }

    /// Sends spans; answers how many of them the receiver did not want.
    pub(super) async fn send(
        &mut self,
        request: &ExportTraceServiceRequest,
    ) -> Result<u64, Refused> {
        let answer = match self {
            Self::Grpc(client) => match client.export(request.clone()).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => return Err(refused_by_grpc(&status)),
            },
            Self::Http(client, url) => {
                let sending = client
                    .post(&*url)
                    .header(http::header::CONTENT_TYPE, "application/x-protobuf")
                    .body(request.encode_to_vec())
                    .send();
                let answer = sending.await.map_err(unreachable)?;
                let (status, headers) = (answer.status(), answer.headers().clone());
                let body = answer.bytes().await.map_err(unreachable)?;
                if !status.is_success() {
                    return Err(refused_by_http(status, &headers));
                }
                // Some answer nothing at all, or not in the format: the status says that they took it.
                ExportTraceServiceResponse::decode(body).unwrap_or_default()
            }
        };
        let rejected = |part: ExportTracePartialSuccess| part.rejected_spans;
        let rejected = answer.partial_success.map_or(0, rejected);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

/// Where exactly spans go: with the port and path of the protocol, unless others are given.
fn url(endpoint: &str, transport: OtlpTransport) -> Result<Uri, Box<dyn Error + Send + Sync>> {
    let mut parts = endpoint.parse::<Uri>()?.into_parts();
    let (port, path) = match transport {
        OtlpTransport::Grpc => (4317, "/"),
        OtlpTransport::Http => (4318, PATH),
    };
    let given = parts.authority.ok_or("it has no host")?;
    let authority = match given.port() {
        Some(_) => given,
        None => format!("{given}:{port}").parse()?,
    };
    parts.authority = Some(authority);
    let said = parts.path_and_query.filter(|path| path.as_str() != "/");
    parts.path_and_query = Some(said.unwrap_or(uri::PathAndQuery::from_static(path)));
    Ok(Uri::from_parts(parts)?)
}

fn unreachable(error: reqwest::Error) -> Refused {
    Refused::for_now(chain(&error))
}

/// Statuses that ask to send the same again, by the specification; none of the receiver's own: it
/// was not reached.
fn refused_by_grpc(status: &Status) -> Refused {
    let repeatable = matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    );
    let reason = match status.source() {
        Some(error) => chain(error),
        None => format!("{:?}: {}", status.code(), status.message()),
    };
    Refused {
        reason,
        may_repeat: repeatable || status.source().is_some(),
        after: None,
    }
}

fn refused_by_http(status: StatusCode, headers: &HeaderMap) -> Refused {
    let after = headers.get(RETRY_AFTER);
    let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
    Refused {
        reason: status.to_string(),
        may_repeat: [429, 502, 503, 504].contains(&status.as_u16()),
        after: after.map(Duration::from_secs),
    }
}

/// An error with those that it came from.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_paths() {
        use OtlpTransport::{Grpc, Http};
        for (endpoint, transport, expected) in [
            ("http://a", Grpc, "http://a:4317/"),
            ("http://a:1", Grpc, "http://a:1/"),
            ("https://[::1]", Grpc, "https://[::1]:4317/"),
            ("http://a", Http, "http://a:4318/v1/traces"),
            ("http://a:1/", Http, "http://a:1/v1/traces"),
            ("https://a/in?k=1", Http, "https://a:4318/in?k=1"),
        ] {
            let found = url(endpoint, transport).unwrap().to_string();
            assert_eq!(found, expected, "{endpoint} {transport:?}");
        }
    }

    #[test]
    fn what_may_be_sent_again() {
        for (status, expected) in [
            (400, false),
            (401, false),
            (404, false),
            (429, true),
            (500, false),
            (502, true),
            (503, true),
            (504, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let headers = [(RETRY_AFTER, "7".parse().unwrap())].into_iter().collect();
            let refused = refused_by_http(status, &headers);
            assert_eq!(refused.may_repeat, expected, "{status}");
            assert_eq!(refused.after, Some(Duration::from_secs(7)));
        }
        for (code, expected) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::DataLoss, true),
            (Code::ResourceExhausted, false),
            (Code::InvalidArgument, false),
            (Code::Unimplemented, false),
            (Code::Unauthenticated, false),
            (Code::Unknown, false),
        ] {
            let refused = refused_by_grpc(&Status::new(code, "no"));
            assert_eq!(refused.may_repeat, expected, "{code:?}");
        }
        let broken = Status::from_error("the connection broke".into());
        assert!(refused_by_grpc(&broken).may_repeat);
    }
}
