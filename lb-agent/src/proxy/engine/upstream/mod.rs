//! Connections to backends.

mod connect;
mod header;
mod http1;
mod http2;
mod pool;
mod stream;
mod tls;
mod warmth;

pub(super) use self::{
    connect::{ConnectError, Ends},
    http1::Broken,
    pool::{Lacking, Lease, Pool, Unavailable, Wish},
    tls::TlsConfigs,
};
