//! A receiver of spans, in the place of an OpenTelemetry Collector: OTLP over gRPC and over HTTP. It
//! prints each span as a JSON line with the keys `trace`, `span`, `parent`, `state`, `name`, `kind`
//! (2 server, 3 client), `status` (2 error) and the attributes of the span and of who sent it.

use std::{
    convert::Infallible,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value as Held},
};
use prost::Message as _;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::{
    backend::program,
    namespace::Namespace,
    process::{Process, wait_for},
};

/// A running receiver.
#[derive(Debug)]
pub struct Receiver {
    process: Process,
    log: PathBuf,
}

impl Receiver {
    /// Starts it in `namespace` and waits until it takes spans. `log` must be a file of its own.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(
        namespace: &Namespace,
        grpc: SocketAddr,
        http: SocketAddr,
        log: &Path,
    ) -> Result<Self> {
        let mut command = namespace.command(program("otlp")?)?;
        command.args(["--grpc", &grpc.to_string(), "--http", &http.to_string()]);
        let process = Process::start("the receiver of spans", command, log)?;
        let receiver = Self {
            process,
            log: log.to_owned(),
        };
        let patience = std::time::Duration::from_secs(10);
        wait_for("the receiver of spans", patience, || {
            receiver.process.ensure_running()?;
            Ok(receiver.process.output().contains("ready").then_some(()))
        })?;
        Ok(receiver)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn stop(&self) -> Result<()> {
        self.process.stop().map(drop)
    }
}

/// Serves for ever.
///
/// # Errors
///
/// An address cannot be listened on.
pub async fn serve(grpc: SocketAddr, http: SocketAddr) -> Result<()> {
    let listen = async |address: SocketAddr| {
        let listener = TcpListener::bind(address).await;
        listener.with_context(|| format!("cannot listen on {address}"))
    };
    let (grpc, http) = (listen(grpc).await?, listen(http).await?);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(grpc);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Printer));
    tokio::spawn(server.serve_with_incoming(incoming));
    println!("ready");
    loop {
        let (stream, _) = http.accept().await?;
        tokio::spawn(async move {
            let service = service_fn(async |request| Ok::<_, Infallible>(by_http(request).await));
            // How a connection ends is the client's affair.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn by_http(request: Request<Incoming>) -> Response<Full<hyper::body::Bytes>> {
    let taken = async {
        ensure!(request.uri().path() == "/v1/traces", "no such path");
        let kind = request.headers().get("content-type");
        ensure!(
            kind.is_some_and(|kind| kind == "application/x-protobuf"),
            "no such format"
        );
        let body = request.into_body().collect().await?.to_bytes();
        print(ExportTraceServiceRequest::decode(body)?);
        Ok(())
    };
    let mut response = Response::default();
    match taken.await {
        Ok(()) => {
            let answer = ExportTraceServiceResponse::default().encode_to_vec();
            *response.body_mut() = Full::from(answer);
        }
        Err(error) => {
            eprintln!("{error:#}");
            *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
        }
    }
    response
}

#[derive(Debug)]
struct Printer;

#[tonic::async_trait]
impl TraceService for Printer {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        print(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn print(request: ExportTraceServiceRequest) {
    let mut out = std::io::stdout().lock();
    for of_all in request.resource_spans {
        let resource = of_all.resource.unwrap_or_default();
        for span in of_all.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let mut attributes = words(&resource.attributes);
            attributes.append(&mut words(&span.attributes));
            let line = json!({
                "trace": hex(&span.trace_id),
                "span": hex(&span.span_id),
                "parent": hex(&span.parent_span_id),
                "state": span.trace_state,
                "name": span.name,
                "kind": span.kind,
                "status": span.status.map_or(0, |status| status.code),
                "attributes": attributes,
            });
            // Nobody reads it any more: the test is over.
            let _ = writeln!(out, "{line}");
        }
    }
}

fn words(attributes: &[KeyValue]) -> Map<String, Value> {
    let all = attributes.iter();
    all.map(|one| (one.key.clone(), value(one.value.as_ref())))
        .collect()
}

fn value(any: Option<&AnyValue>) -> Value {
    match any.and_then(|any| any.value.as_ref()) {
        Some(Held::StringValue(text)) => text.as_str().into(),
        Some(Held::IntValue(number)) => (*number).into(),
        Some(Held::BoolValue(yes)) => (*yes).into(),
        Some(Held::ArrayValue(list)) => list.values.iter().map(|one| value(Some(one))).collect(),
        _ => Value::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
