//! One connection of a client, from its first byte to its last.

use std::{
    cell::Cell,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use http::StatusCode;
use hyper::{Version, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    Place,
    ending::Farewell,
    guard::{Guarded, Tunnel},
    header,
    worker::Facts,
};
use crate::proxy::{
    engine::{Arrival, Engine},
    telemetry::counts::OfListener,
};

/// Streams that a client may have reset before they were taken up, beyond which its connection
/// ends (CVE-2023-44487).
const RESETS: usize = 20;

/// Between two looks at a header that comes in pieces.
const PIECE: std::time::Duration = std::time::Duration::from_millis(5);

/// Headers that the HTTP library reads unless it is told otherwise.
const HEADERS: usize = 100;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection to its end, or to the end of its requests under way at a stop.
pub(super) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    facts: &Facts,
    counts: &OfListener,
    engine: Rc<Engine>,
    place: &Place,
    mut farewell: Farewell,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let listener = stream.local_addr()?;
    let listener = SocketAddr::new(listener.ip().to_canonical(), listener.port());
    // Who connects has something to say.
    let patience = facts.bounds.head_timeout;
    tokio::select! {
        first = timeout(patience, stream.readable()) => first??,
        () = farewell.has_lingered() => return Ok(()),
    }
    let mut client = peer;
    if place.proxy_protocol && facts.trusts(peer.ip()) {
        let told = timeout(patience, read_header(&mut stream)).await??;
        client = told.unwrap_or(peer);
    }
    let arrival = Arc::new(Arrival {
        client,
        peer,
        listener: engine.connected_to(place.service.as_deref(), listener),
        tls: place.tls.is_some(),
        // One that speaks for others is trusted for what it says of them, not for what they say.
        trusted: facts.trusts(client.ip()),
        service: place.service.clone(),
    });
    let Some(tls) = &place.tls else {
        return speak(stream, facts, engine, arrival, farewell).await;
    };
    let shaken = async { Ok::<_, Failure>(timeout(patience, tls.accept(stream)).await??) };
    let stream = shaken.await.inspect_err(|_| {
        counts.handshakes_failed.fetch_add(1, Relaxed);
    })?;
    speak(stream, facts, engine, arrival, farewell).await
}

/// Reads the header of the PROXY protocol, and nothing beyond it.
async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Failure> {
    let mut buffer = vec![0; header::LONGEST];
    loop {
        let seen = stream.peek(&mut buffer).await?;
        if seen == 0 {
            return Err("the connection ended before its PROXY protocol header did".into());
        }
        if let Some(header) = header::parse(&buffer[..seen])? {
            stream.read_exact(&mut buffer[..header.length]).await?;
            return Ok(header.client);
        }
        // Who sends it sends it in one piece, with rare exceptions.
        sleep(PIECE).await;
    }
}

/// Serves HTTP on a connection that needs nothing more. Its first bytes tell the version.
async fn speak<S>(
    stream: S,
    facts: &Facts,
    engine: Rc<Engine>,
    arrival: Arc<Arrival>,
    mut farewell: Farewell,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tunnel = Tunnel::default();
    let stream = TokioIo::new(Guarded::new(stream, tunnel.clone()));
    let is_http2 = Rc::new(Cell::new(false));
    let (ending, told) = (Arc::clone(&facts.ending), Rc::clone(&is_http2));
    let service = service_fn(move |request| {
        let (engine, arrival, tunnel) = (Rc::clone(&engine), Arc::clone(&arrival), tunnel.clone());
        let (ending, version) = (Arc::clone(&ending), request.version());
        told.set(version == Version::HTTP_2);
        async move {
            let mut response = engine.handle(request, &arrival).await;
            ending.tell(version, &mut response);
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                tunnel.begin();
            }
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder(facts);
    let serving = builder.serve_connection_with_upgrades(stream, service);
    tokio::pin!(serving);
    tokio::select! {
        biased;
        ended = &mut serving => return ended,
        () = farewell.is_due(&is_http2) => {}
    }
    serving.as_mut().graceful_shutdown();
    serving.await
}

fn builder(facts: &Facts) -> Builder<LocalTasks> {
    let bounds = &facts.bounds;
    let mut builder = Builder::new(LocalTasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.keep_alive)
        .max_buf_size(bounds.head.max(8192))
        .half_close(true);
    // As many as the library has room for without being told need no memory of their own.
    if bounds.headers != HEADERS {
        builder.http1().max_headers(bounds.headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(u32::try_from(bounds.head).unwrap_or(u32::MAX))
        .keep_alive_interval(bounds.keep_alive);
    builder
}

/// Tasks of a connection stay on its thread.
#[derive(Clone, Copy, Debug)]
struct LocalTasks;

impl<F> hyper::rt::Executor<F> for LocalTasks
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
