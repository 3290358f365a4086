//! What is given to reach Consul, and the HTTP client made from it.

use std::{
    error::Error,
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Certificate, Identity, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use thiserror::Error;
use tokio::net::lookup_host;

/// Where Consul is and how to be let in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConsulOptions {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub address: String,
    /// ACL token; absent: Consul's anonymous token.
    pub token: Option<String>,
    /// A file with the ACL token; goes before `token` and is read again when it changes.
    pub token_file: Option<PathBuf>,
    /// PEM bundle of the authorities to trust; absent: the system's.
    pub ca_cert: Option<PathBuf>,
    /// PEM certificate (chain) to show to Consul; together with `client_key`.
    pub client_cert: Option<PathBuf>,
    /// PEM key of `client_cert`.
    pub client_key: Option<PathBuf>,
    /// DNS name that Consul's certificate must carry; absent: the host in `address`.
    pub tls_server_name: Option<String>,
    /// Data centre to ask for; absent: that of the agent asked.
    pub datacenter: Option<String>,
    /// How long Consul may hold a question that has no new answer. Held between 1 s and 30 s: on
    /// an index that a restored server no longer knows, it sleeps the whole time.
    pub wait: Duration,
}

/// Everything but the token, which must not get into a log.
impl fmt::Debug for ConsulOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            token,
            token_file,
            ca_cert,
            client_cert,
            client_key,
            tls_server_name,
            datacenter,
            wait,
        } = self;
        f.debug_struct("ConsulOptions")
            .field("address", address)
            .field("token", &token.as_ref().map(|_| "hidden"))
            .field("token_file", token_file)
            .field("ca_cert", ca_cert)
            .field("client_cert", client_cert)
            .field("client_key", client_key)
            .field("tls_server_name", tls_server_name)
            .field("datacenter", datacenter)
            .field("wait", wait)
            .finish()
    }
}

/// Options that no client can be built from.
#[derive(Debug, Error)]
pub enum InvalidOptions {
    /// The address is no URL of the expected form.
    #[error("the Consul address `{0}` is not of the form http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// The given token cannot be sent.
    #[error("{0}")]
    Token(String),
    /// A file is missing or not readable.
    #[error("the Consul {what} {} cannot be read ({source}); correct its path", path.display())]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("the Consul {what} {} holds no usable PEM ({reason})", path.display())]
    Pem {
        /// Which file.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate without key, or the reverse.
    #[error("a Consul client certificate needs its key and the reverse; give both or neither")]
    HalfIdentity,
    /// There is no authority to trust.
    #[error(
        "{SYSTEM_CERTIFICATES} cannot be read ({0}); install ca-certificates or give the CA \
         certificate that signed Consul's"
    )]
    NoSystemCertificates(io::Error),
    /// An address cannot be sent as a server name.
    #[error("the TLS server name `{0}` is not a DNS name")]
    ServerName(String),
    /// The TLS library refused what it was given.
    #[error("the TLS settings for Consul do not work together ({0})")]
    Tls(String),
}

/// Where Debian, Ubuntu, Alpine and Arch keep what the system trusts.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How long a connection may take to come about.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP client and where to send its questions.
pub(super) struct Endpoint {
    pub(super) http: reqwest::Client,
    /// Scheme, host and port to ask, perhaps a path before the API's.
    pub(super) base: Url,
    /// Scheme, host and port for people, without what credentials an address may hold.
    pub(super) server: String,
}

impl ConsulOptions {
    /// Builds the HTTP client; connects to nothing.
    pub(super) fn endpoint(&self) -> Result<Endpoint, InvalidOptions> {
        let invalid = || InvalidOptions::Address(self.address.clone());
        let mut base = Url::parse(&self.address).map_err(|_| invalid())?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(invalid());
        }
        let host = base.host_str().ok_or_else(invalid)?.to_owned();
        let port = base.port_or_known_default().ok_or_else(invalid)?;
        let server = format!("{}://{host}:{port}", base.scheme());

        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(15))
            // A redirect would carry the token to someone else; Consul's API sends none.
            .redirect(redirect::Policy::none())
            // Consul is reached directly, whatever the environment says for the rest.
            .no_proxy();
        let mut real_host = None;
        if base.scheme() == "https" {
            for certificate in authorities(self.ca_cert.as_deref())? {
                builder = builder.add_root_certificate(certificate);
            }
            if let Some(identity) = self.identity()? {
                builder = builder.identity(identity);
            }
            if let Some(name) = &self.tls_server_name {
                // The URL carries the name to verify; the resolver leads it to the address.
                let is_name = name.parse::<IpAddr>().is_err() && base.set_host(Some(name)).is_ok();
                if !is_name {
                    return Err(InvalidOptions::ServerName(name.clone()));
                }
                real_host = Some(host.trim_matches(['[', ']']).to_owned());
            }
        }
        let http = builder
            .dns_resolver(Arc::new(Resolver { real_host }))
            .build()
            .map_err(|error| InvalidOptions::Tls(innermost(&error)))?;
        Ok(Endpoint { http, base, server })
    }

    fn identity(&self) -> Result<Option<Identity>, InvalidOptions> {
        let (certificate, key) = match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return Ok(None),
            _ => return Err(InvalidOptions::HalfIdentity),
        };
        let mut pem = read("client certificate", certificate)?;
        pem.push(b'\n');
        pem.extend(read("client key", key)?);
        let identity = Identity::from_pem(&pem).map_err(|error| InvalidOptions::Pem {
            what: "client certificate and key",
            path: certificate.clone(),
            reason: innermost(&error),
        })?;
        Ok(Some(identity))
    }
}

/// The authorities to trust: those of the bundle given, else the system's.
fn authorities(given: Option<&Path>) -> Result<Vec<Certificate>, InvalidOptions> {
    const WHAT: &str = "CA certificate";
    let (path, pem) = match given {
        Some(path) => (path, read(WHAT, path)?),
        None => {
            let path = Path::new(SYSTEM_CERTIFICATES);
            (
                path,
                fs::read(path).map_err(InvalidOptions::NoSystemCertificates)?,
            )
        }
    };
    let unusable = |reason| InvalidOptions::Pem {
        what: WHAT,
        path: path.into(),
        reason,
    };
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| unusable(innermost(&error)))?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it".into()));
    }
    Ok(certificates)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, InvalidOptions> {
    fs::read(path).map_err(|source| InvalidOptions::Unreadable {
        what,
        path: path.into(),
        source,
    })
}

/// Looks names up anew for each connection, so that a Consul that moves is found again.
struct Resolver {
    /// The host to look up whatever name is asked for.
    real_host: Option<String>,
}

/// The host name of Consul's address leads nowhere.
#[derive(Debug, Error)]
#[error("the host `{host}` cannot be resolved ({source}); check the address and this node's DNS")]
pub(super) struct Unresolved {
    host: String,
    source: io::Error,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = match &self.real_host {
            Some(host) => host.clone(),
            None => name.as_str().to_owned(),
        };
        Box::pin(async move {
            // The port is that of the URL; this one is not looked at.
            let found = lookup_host((host.as_str(), 0))
                .await
                .map(|found| found.collect::<Vec<_>>());
            match found {
                Ok(found) => Ok(Box::new(found.into_iter()) as Addrs),
                Err(source) => Err(Unresolved { host, source }.into()),
            }
        })
    }
}

/// An error and its sources, outermost first. The error inside an [`io::Error`] counts as its
/// source, which the standard library skips.
pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// What the innermost error says: the fact without the layers that passed it on.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(options: ConsulOptions) -> String {
        match options.endpoint() {
            Ok(_) => panic!("{options:?} is accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn addresses_that_are_refused() {
        for address in [
            "",
            "127.0.0.1:8500",
            "unix:///run/consul.sock",
            "http://",
            "ftp://h:1",
        ] {
            let text = error(ConsulOptions {
                address: address.into(),
                ..Default::default()
            });
            assert!(text.contains(&format!("`{address}`")), "{text}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let options = ConsulOptions {
            address: "http://me:pass@[::1]:8500/consul".into(),
            token: Some("secret".into()),
            ..Default::default()
        };
        assert!(!format!("{options:?}").contains("secret"));
        assert_eq!(options.endpoint().ok().unwrap().server, "http://[::1]:8500");
    }

    #[test]
    fn files_for_tls_that_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let junk = dir.path().join("junk.pem");
        fs::write(&junk, "no certificate").unwrap();
        let missing = dir.path().join("missing.pem");
        let https = || ConsulOptions {
            address: "https://127.0.0.1:8501".into(),
            ..Default::default()
        };
        let rows = [
            (
                ConsulOptions {
                    ca_cert: Some(missing.clone()),
                    ..https()
                },
                "the Consul CA certificate",
            ),
            (
                ConsulOptions {
                    ca_cert: Some(junk.clone()),
                    ..https()
                },
                "there is no certificate in it",
            ),
            (
                ConsulOptions {
                    client_cert: Some(junk.clone()),
                    ..https()
                },
                "give both or neither",
            ),
            (
                ConsulOptions {
                    client_cert: Some(junk.clone()),
                    client_key: Some(missing),
                    ..https()
                },
                "the Consul client key",
            ),
            (
                ConsulOptions {
                    client_cert: Some(junk.clone()),
                    client_key: Some(junk),
                    ..https()
                },
                "holds no usable PEM",
            ),
            (
                ConsulOptions {
                    tls_server_name: Some("127.0.0.1".into()),
                    ..https()
                },
                "`127.0.0.1` is not a DNS name",
            ),
        ];
        for (options, part) in rows {
            let text = error(options);
            assert!(text.contains(part), "{text}");
        }
    }
}
