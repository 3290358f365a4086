//! The gRPC probe: `grpc.health.v1.Health/Check`, answered with SERVING.
//!
//! The protocol is that of <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use std::{error::Error as _, io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
};
use tonic::{
    Code,
    transport::{Endpoint, Uri},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::failure::ProbeFailure;

/// Asks over a new connection for the health of `service`; `authority` is who is asked. The
/// connection ends in any case.
pub(super) async fn check<S>(
    stream: S,
    authority: &str,
    service: &str,
    timeout: Duration,
) -> Result<(), ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let origin = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query("/")
        .build()
        .map_err(ProbeFailure::Request)?;
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let channel = Endpoint::from(origin)
        .user_agent(super::http::USER_AGENT)
        .map_err(|error| ProbeFailure::Grpc(error.to_string()))?
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = Arc::clone(&stream);
            async move {
                let stream = stream.lock().await.take();
                stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset))
            }
        }))
        .await
        .map_err(|error| ProbeFailure::from_cause(&error, timeout))?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    match HealthClient::new(channel).check(request).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(ProbeFailure::NotServing(other.as_str_name().into())),
        },
        // The server does not know the service.
        Err(status) if status.code() == Code::NotFound => {
            Err(ProbeFailure::NotServing("SERVICE_UNKNOWN".into()))
        }
        Err(status) if status.code() == Code::Unimplemented => Err(ProbeFailure::Grpc(
            "the server does not speak grpc.health.v1".into(),
        )),
        // It is the connection that ended, and no answer of the server.
        Err(status) if status.source().is_some() => Err(ProbeFailure::from_cause(&status, timeout)),
        Err(status) => Err(ProbeFailure::Grpc(format!(
            "{:?}: {}",
            status.code(),
            status.message()
        ))),
    }
}
