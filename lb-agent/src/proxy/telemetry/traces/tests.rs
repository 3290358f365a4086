//! The exporter against receivers that answer from a script.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{Router, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response};

use super::*;
use crate::{
    config::proxy::OtlpTransport,
    domain::http::exchange::Exchange,
    proxy::telemetry::{
        queue::{Sender, queue},
        sample::exchange,
    },
};

/// Spans of the sample.
const EACH: u64 = 3;

/// What the receiver says to one request.
#[derive(Clone, Copy, Debug)]
enum Say {
    Yes,
    /// So many it does not want.
    Partly(i64),
    Busy,
    Never,
}

/// Answers in turn; the last one for ever.
#[derive(Debug)]
struct Script {
    says: Vec<Say>,
    asked: AtomicUsize,
    taken: Mutex<Vec<ExportTraceServiceRequest>>,
}

impl Script {
    fn new(says: &[Say]) -> Arc<Self> {
        Arc::new(Self {
            says: says.to_vec(),
            asked: AtomicUsize::new(0),
            taken: Mutex::default(),
        })
    }

    fn ask(&self, request: ExportTraceServiceRequest) -> Result<ExportTraceServiceResponse, Say> {
        let place = self.asked.fetch_add(1, SeqCst).min(self.says.len() - 1);
        let rejected_spans = match self.says[place] {
            Say::Yes => None,
            Say::Partly(rejected) => Some(rejected),
            other => return Err(other),
        };
        self.taken.lock().unwrap().push(request);
        Ok(ExportTraceServiceResponse {
            partial_success: rejected_spans.map(|rejected_spans| ExportTracePartialSuccess {
                rejected_spans,
                error_message: String::new(),
            }),
        })
    }

    /// The receiver, at an address of its own.
    async fn serve(self: Arc<Self>, transport: OtlpTransport) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match transport {
            OtlpTransport::Http => {
                let answer = async move |body: axum::body::Bytes| {
                    let request = ExportTraceServiceRequest::decode(body).unwrap();
                    match self.ask(request) {
                        Ok(answer) => (StatusCode::OK, answer.encode_to_vec()),
                        Err(Say::Busy) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
                        Err(_) => (StatusCode::BAD_REQUEST, Vec::new()),
                    }
                };
                let router = Router::new().route("/v1/traces", post(answer));
                tokio::spawn(axum::serve(listener, router).into_future());
            }
            OtlpTransport::Grpc => {
                let service = TraceServiceServer::from_arc(self);
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                let server = tonic::transport::Server::builder().add_service(service);
                tokio::spawn(server.serve_with_incoming(incoming));
            }
        }
        address
    }
}

#[tonic::async_trait]
impl TraceService for Script {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
        self.ask(request.into_inner())
            .map(Response::new)
            .map_err(|say| match say {
                Say::Busy => tonic::Status::new(Code::Unavailable, "busy"),
                _ => tonic::Status::new(Code::InvalidArgument, "no"),
            })
    }
}

/// What is sent to `address`, by count of exchanges; ended when `ready` says so.
struct Rig {
    records: Sender,
    counts: Arc<SpanCounts>,
    traces: Traces,
}

fn rig(address: SocketAddr, transport: OtlpTransport) -> Rig {
    let (records, queue) = queue(2000);
    let counts = Arc::<SpanCounts>::default();
    let config = TracesConfig {
        endpoint: format!("http://{address}"),
        transport,
        sample: 1.0,
    };
    let traces = start(&config, queue, Arc::clone(&counts)).unwrap();
    Rig {
        records,
        counts,
        traces,
    }
}

async fn settled(counts: &SpanCounts, spans: u64) -> [u64; 2] {
    let all = async {
        loop {
            let [(_, exported), (_, failed), _] = counts.all();
            if exported + failed >= spans {
                return [exported, failed];
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), all)
        .await
        .expect("spans neither sent nor given up")
}

#[tokio::test]
async fn answers_of_the_receiver() {
    use Say::{Busy, Never, Partly, Yes};
    for transport in [OtlpTransport::Grpc, OtlpTransport::Http] {
        let rows: [(&[Say], [u64; 2], usize); 4] = [
            (&[Yes], [3, 0], 1),
            (&[Busy, Busy, Yes], [3, 0], 3),
            (&[Never, Yes], [0, 3], 1),
            (&[Partly(1)], [2, 1], 1),
        ];
        for (says, expected, asked) in rows {
            let script = Script::new(says);
            let rig = rig(Arc::clone(&script).serve(transport).await, transport);
            assert!(rig.records.offer(exchange()));
            let found = settled(&rig.counts, EACH).await;
            assert_eq!(found, expected, "{transport:?} {says:?}");
            assert_eq!(script.asked.load(SeqCst), asked, "{transport:?} {says:?}");
            rig.traces.finish().await;
        }
    }
}

/// What comes within a moment goes at once, up to a bound, with who tells it.
#[tokio::test]
async fn many_at_a_time() {
    let script = Script::new(&[Say::Yes]);
    let transport = OtlpTransport::Grpc;
    let rig = rig(Arc::clone(&script).serve(transport).await, transport);
    for _ in 0..200 {
        assert!(rig.records.offer(exchange()));
    }
    assert_eq!(settled(&rig.counts, 200 * EACH).await, [600, 0]);
    let taken = script.taken.lock().unwrap();
    let sizes = taken.iter().map(|request| {
        let [of_all] = &request.resource_spans[..] else {
            panic!("one resource");
        };
        let attributes = &of_all.resource.as_ref().unwrap().attributes;
        let keys: Vec<&str> = attributes.iter().map(|one| &*one.key).collect();
        assert_eq!(keys, ["service.name", "service.version", "host.name"]);
        of_all.scope_spans[0].spans.len()
    });
    let sizes: Vec<usize> = sizes.collect();
    assert_eq!(sizes, [513, 87]);
}

/// Receivers of gRPC refuse more than 4 MiB at a time: they get everything, in pieces.
#[tokio::test]
async fn long_texts_come_in_pieces() {
    let script = Script::new(&[Say::Yes]);
    let transport = OtlpTransport::Grpc;
    let rig = rig(Arc::clone(&script).serve(transport).await, transport);
    let text = |bytes: usize| "é".repeat(bytes / 2);
    let long = Exchange {
        target: format!("/a{}?{}", text(30 << 10), text(30 << 10)),
        user_agent: Some(text(3 << 10)),
        ..exchange()
    };
    for _ in 0..150 {
        assert!(rig.records.offer(long.clone()));
    }
    assert_eq!(settled(&rig.counts, 150 * EACH).await, [150 * EACH, 0]);
    let taken = script.taken.lock().unwrap();
    let sizes: Vec<usize> = taken.iter().map(|request| request.encoded_len()).collect();
    assert!(sizes.len() > 1, "{sizes:?}");
    let most = sizes.into_iter().max().unwrap();
    assert!(most < BATCH_BYTES + (1 << 18), "{most}");
}

/// The receiver comes later than the spans, and what waits at the end is still sent.
#[tokio::test]
async fn a_receiver_that_is_away() {
    for transport in [OtlpTransport::Grpc, OtlpTransport::Http] {
        // Nobody listens there for now.
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = holder.local_addr().unwrap();
        drop(holder);
        let away = rig(address, transport);
        assert!(away.records.offer(exchange()));
        sleep(Duration::from_millis(1200)).await;
        assert_eq!(away.counts.all().map(|(_, count)| count), [0, 0, 0]);
        // At the end nobody waits for one that is away.
        let began = std::time::Instant::now();
        away.traces.finish().await;
        assert!(began.elapsed() < LAST_SPANS, "{transport:?}");
        assert_eq!(away.counts.all().map(|(_, count)| count), [0, EACH, 0]);

        let script = Script::new(&[Say::Yes]);
        let rig = rig(Arc::clone(&script).serve(transport).await, transport);
        assert!(rig.records.offer(exchange()));
        rig.traces.finish().await;
        assert_eq!(rig.counts.all().map(|(_, count)| count), [EACH, 0, 0]);
    }
}
