//! One probe of one backend, from connection to result.

use std::{sync::Arc, time::Duration};

use super::{
    Target,
    failure::ProbeFailure,
    grpc, http, tcp,
    tls::{self, TlsConfigs},
};
use crate::domain::service::ProbeKind;

/// Probes once. The timeout of the spec bounds all of it together.
pub(super) async fn probe(
    target: Arc<Target>,
    configs: Arc<TlsConfigs>,
) -> Result<(), ProbeFailure> {
    let timeout = target.spec.timeout;
    tokio::time::timeout(timeout, ask(&target, &configs, timeout))
        .await
        .unwrap_or(Err(ProbeFailure::Timeout(timeout)))
}

async fn ask(target: &Target, configs: &TlsConfigs, timeout: Duration) -> Result<(), ProbeFailure> {
    let address = target.probe_address();
    match &target.spec.kind {
        ProbeKind::Tcp => tcp::connect(address, timeout).await.map(drop),
        ProbeKind::Http {
            path,
            host,
            status: ranges,
            body,
            tls,
        } => {
            let shown = host.clone().unwrap_or_else(|| address.to_string());
            let request = http::request(path, &shown)?;
            let stream = tcp::connect(address, timeout).await?;
            let body = body.as_deref();
            let (status, found) = match tls {
                None => http::ask(stream, request, body, timeout).await?,
                Some(spec) => {
                    let peer = (host.as_deref(), address.ip());
                    let stream =
                        tls::handshake(configs, spec, peer, false, stream, timeout).await?;
                    http::ask(stream, request, body, timeout).await?
                }
            };
            let fits = |(first, last): &(u16, u16)| (*first..=*last).contains(&status);
            match body {
                _ if !ranges.iter().any(fits) => Err(ProbeFailure::Status(status)),
                Some(wanted) if !found => Err(ProbeFailure::Body(wanted.to_owned())),
                _ => Ok(()),
            }
        }
        ProbeKind::Grpc { service, host, tls } => {
            let authority = host.clone().unwrap_or_else(|| address.to_string());
            let stream = tcp::connect(address, timeout).await?;
            match tls {
                None => grpc::check(stream, &authority, service, timeout).await,
                Some(spec) => {
                    let peer = (host.as_deref(), address.ip());
                    let stream = tls::handshake(configs, spec, peer, true, stream, timeout).await?;
                    grpc::check(stream, &authority, service, timeout).await
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
