//! Large bodies in both directions, every byte checked.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hyper::{Method, body::Body};

use crate::{
    client::{Client, RequestError, Response},
    exchange::Exchange,
    paced::PacedBody,
    pattern::{self, PatternBody},
};

impl Client {
    /// Downloads `bytes` bytes from an echo service and compares each with the pattern.
    /// `progress` is the number received so far. With a `rate`, in bytes a second, it reads no
    /// faster, to make the transfer last. Returns the answer's head (its body is empty).
    pub fn download(
        &self,
        to: SocketAddr,
        bytes: u64,
        rate: Option<u32>,
        progress: &AtomicU64,
    ) -> Result<Response, RequestError> {
        let options = &self.options;
        self.inside(async || {
            let path = format!("/bytes/{bytes}");
            let body = PatternBody::new(0);
            let mut exchange = Exchange::begin(options, to, Method::GET, &path, body).await?;
            let start = tokio::time::Instant::now();
            let mut offset = 0;
            while let Some(data) = exchange.next(options).await? {
                pattern::verify(offset, &data).map_err(RequestError::Corrupt)?;
                offset += data.len() as u64;
                progress.store(offset, Ordering::Relaxed);
                if let Some(rate) = rate {
                    let due = Duration::from_secs_f64(offset as f64 / f64::from(rate));
                    tokio::time::sleep_until(start + due).await;
                }
            }
            let response = exchange.collect(options).await?;
            match (response.status, offset == bytes) {
                (200, true) => Ok(response),
                (200, false) => Err(RequestError::Corrupt(offset)),
                (status, _) => Err(RequestError::Status(status)),
            }
        })
    }

    /// Uploads `bytes` bytes of the pattern to an echo service, which must report their number
    /// and digest. Returns the answer.
    pub fn upload(&self, to: SocketAddr, bytes: u64) -> Result<Response, RequestError> {
        self.upload_body(to, bytes, PatternBody::new(bytes))
    }

    /// The same no faster than `rate` bytes a second; `progress` is the number handed over so far.
    pub fn upload_slowly(
        &self,
        to: SocketAddr,
        bytes: u64,
        rate: u32,
        progress: &Arc<AtomicU64>,
    ) -> Result<Response, RequestError> {
        let body = PacedBody::new(bytes, rate, Arc::clone(progress));
        self.upload_body(to, bytes, body)
    }

    fn upload_body<B>(&self, to: SocketAddr, bytes: u64, body: B) -> Result<Response, RequestError>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let options = &self.options;
        let response = self.inside(async || {
            let exchange = Exchange::begin(options, to, Method::PUT, "/upload", body).await?;
            exchange.collect(options).await
        })?;
        if response.status != 200 {
            return Err(RequestError::Status(response.status));
        }
        let report: serde_json::Value = serde_json::from_slice(&response.body)
            .map_err(|error| RequestError::Broken(error.to_string()))?;
        let received = report["bytes"].as_u64().unwrap_or(0);
        if received != bytes || report["sha256"] != pattern::sha256(bytes) {
            return Err(RequestError::Corrupt(received.min(bytes)));
        }
        Ok(response)
    }
}
