//! The section `[dtab]`.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::{locate::Report, scalar, table::Table};

/// Section `[dtab]`: splits over HTTP, in the manner of namerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtabConfig {
    /// Where it is served; a loopback address, for whoever gets there may shift traffic.
    pub listen: SocketAddr,
    /// Name of the one namespace.
    pub namespace: String,
}

/// Reads `[dtab]`.
pub(super) fn dtab(mut table: Table, report: &mut Report) -> DtabConfig {
    let config = DtabConfig {
        listen: table
            .get("listen", report, listen)
            .unwrap_or_else(|| ([127, 0, 0, 1], 4180).into()),
        namespace: table
            .get("namespace", report, scalar::name)
            .unwrap_or_else(|| "default".into()),
    };
    table.close(report);
    config
}

fn listen(value: &DeValue) -> Result<SocketAddr, String> {
    let address = scalar::listen(value)?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err(format!(
            "{} can be reached from elsewhere, and whoever gets there may shift traffic; use a \
             loopback address, such as 127.0.0.1:4180",
            address.ip()
        )),
    }
}
