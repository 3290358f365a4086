//! How a connection to a backend comes about: TCP, the PROXY protocol header, TLS.

use std::{io, net::SocketAddr, rc::Rc, time::Instant};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    header,
    stream::{Stream, Transport},
    tls::TlsConfigs,
};
use crate::proxy::engine::{
    clock::{Clock, Deadline},
    view::Backend,
};

/// Why none came about. Nothing of a request has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy::engine) enum ConnectError {
    Refused,
    TimedOut,
    Tls(Rc<str>),
    Other(Rc<str>),
}

impl ConnectError {
    /// In one of few words.
    pub(in crate::proxy::engine) fn kind(&self) -> &'static str {
        match self {
            Self::Refused => "connection_refused",
            Self::TimedOut => "connect_timeout",
            Self::Tls(_) => "tls",
            Self::Other(_) => "no_connection",
        }
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("not connected in time"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Other(error) => write!(f, "no connection: {error}"),
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Other(error.to_string().into()),
        }
    }
}

/// The two ends that the PROXY protocol tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::engine) struct Ends {
    pub(in crate::proxy::engine) client: SocketAddr,
    pub(in crate::proxy::engine) listener: SocketAddr,
}

/// Connects until `until` at the latest.
pub(super) async fn connect(
    backend: &Backend,
    ends: Ends,
    tls: &TlsConfigs,
    clock: &Rc<Clock>,
    until: Instant,
) -> Result<Stream, ConnectError> {
    let mut deadline = Deadline::new(clock, until);
    tokio::select! {
        biased;
        stream = reach(backend, ends, tls) => stream,
        () = deadline.met() => Err(ConnectError::TimedOut),
    }
}

async fn reach(backend: &Backend, ends: Ends, tls: &TlsConfigs) -> Result<Stream, ConnectError> {
    let mut stream = TcpStream::connect(backend.address).await?;
    stream.set_nodelay(true)?;
    if let Some(version) = backend.upstream.proxy_protocol {
        let header = header::write(version, ends.client, ends.listener);
        stream.write_all(&header).await?;
    }
    let transport = match &backend.upstream.tls {
        None => Transport::Plain(stream),
        Some(spec) => {
            let host = backend.upstream.host.as_deref();
            let stream = tls
                .handshake(spec, host, backend.address.ip(), backend.http2, stream)
                .await
                .map_err(|error| ConnectError::Tls(error.into()))?;
            Transport::Tls(Box::new(stream))
        }
    };
    Ok(Stream::new(transport))
}
