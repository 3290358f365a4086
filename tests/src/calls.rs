//! A client of gRPC whose messages are bytes: the four shapes of calls over one connection.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use bytes::{Buf, BufMut, Bytes};
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::namespace::Namespace;

/// The client. To be used within [`run`].
#[derive(Clone, Debug)]
pub struct Calls(Grpc<Channel>);

/// Runs `story` to its end, inside the namespace.
pub fn run<T: Send>(namespace: &Namespace, story: impl AsyncFnOnce() -> T + Send) -> T {
    namespace.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(story())
    })
}

impl Calls {
    /// Connects; `web` is whom the calls are for.
    ///
    /// # Errors
    ///
    /// There is no connection.
    pub async fn connect(to: SocketAddr) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{to}"))?
            .origin("http://web".parse()?)
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .connect()
            .await
            .with_context(|| format!("cannot connect to {to}"))?;
        Ok(Self(Grpc::new(channel)))
    }

    /// One message there, one back.
    ///
    /// # Errors
    ///
    /// The call's status.
    pub async fn unary(
        &mut self,
        path: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.0.unary(request, at(path), Raw).await
    }

    /// Many there, one back.
    ///
    /// # Errors
    ///
    /// The call's status.
    pub async fn up(
        &mut self,
        path: &str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.0
            .client_streaming(Request::new(messages), at(path), Raw)
            .await
    }

    /// One there, many back.
    ///
    /// # Errors
    ///
    /// The call's status, if it comes before any message.
    pub async fn down(
        &mut self,
        path: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        self.0.server_streaming(request, at(path), Raw).await
    }

    /// Many both ways.
    ///
    /// # Errors
    ///
    /// The call's status, if it comes before any message.
    pub async fn both(
        &mut self,
        path: &str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        self.0
            .streaming(Request::new(messages), at(path), Raw)
            .await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unknown(format!("the connection is gone: {error}")))
    }
}

fn at(path: &str) -> PathAndQuery {
    PathAndQuery::try_from(path).expect("a valid path")
}

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
