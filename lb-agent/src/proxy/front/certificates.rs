//! Certificates of a listener: chosen by the name that the client asks for, read again when their
//! files change.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tracing::{info, warn};

/// Files of a certificate's chain and of its key.
type Files = (PathBuf, PathBuf);
/// When the files were written last.
type Written = Vec<Option<SystemTime>>;

/// What a listener presents.
#[derive(Debug)]
pub(super) struct Certificates {
    files: Vec<Files>,
    written: Written,
    presented: Arc<Presented>,
    /// Why the files as they are now are of no use.
    problem: Option<String>,
}

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or does not hold what it should; it is named.
    pub(super) fn read(files: &[Files]) -> anyhow::Result<Self> {
        let written = written(files);
        let presented = Presented(ArcSwap::from_pointee(Chosen::read(files)?));
        Ok(Self {
            files: files.to_vec(),
            written,
            presented: Arc::new(presented),
            problem: None,
        })
    }

    /// How connections are answered: HTTP/2 or HTTP/1.1, as the client likes.
    ///
    /// # Errors
    ///
    /// The TLS library supports no protocol version.
    pub(super) fn config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS")?
            .with_no_client_auth()
            .with_cert_resolver(self.presented.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Looks whether the files have changed, and reads them if so. What cannot be used leaves the
    /// former in use. Answers whether [`Self::problem`] may be another.
    pub(super) fn refresh(&mut self) -> bool {
        let written = written(&self.files);
        if written == self.written {
            return false;
        }
        self.written = written;
        match Chosen::read(&self.files) {
            Ok(chosen) => {
                self.presented.0.store(Arc::new(chosen));
                self.problem = None;
                info!(file = %self.files[0].0.display(), "certificates read again");
            }
            Err(error) => {
                let problem = format!("new certificates are not used, the former are: {error:#}");
                warn!("{problem}");
                self.problem = Some(problem);
            }
        }
        true
    }

    /// Names in them, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let chosen = self.presented.0.load();
        let names = chosen
            .by_name
            .keys()
            .map(|name| match name.starts_with('.') {
                true => format!("*{name}"),
                false => name.clone(),
            });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

fn written(files: &[Files]) -> Written {
    let all = files.iter().flat_map(|(chain, key)| [chain, key]);
    all.map(|path| path.metadata().and_then(|facts| facts.modified()).ok())
        .collect()
}

#[derive(Debug)]
struct Presented(ArcSwap<Chosen>);

impl ResolvesServerCert for Presented {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().find(hello.server_name())
    }
}

/// Certificates by the names in them.
#[derive(Debug, Default)]
struct Chosen {
    /// Names in small letters; wildcards as `.example`, the part behind the star.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// For everybody else, and for clients that ask for no name.
    first: Option<Arc<CertifiedKey>>,
}

impl Chosen {
    fn read(files: &[Files]) -> anyhow::Result<Self> {
        let mut chosen = Self::default();
        for (chain, key) in files {
            let certified = Arc::new(certified(chain, key)?);
            let end = certified.end_entity_cert().context("an empty chain")?;
            let parsed = webpki::EndEntityCert::try_from(end)
                .with_context(|| format!("the certificate in {}", chain.display()))?;
            for name in parsed.valid_dns_names() {
                let name = name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase();
                // The first that has a name keeps it.
                let entry = chosen.by_name.entry(name);
                entry.or_insert_with(|| certified.clone());
            }
            chosen.first.get_or_insert(certified);
        }
        Ok(chosen)
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let exact = |name: &str| {
            let name = name.to_ascii_lowercase();
            let wildcard = || self.by_name.get(&name[name.find('.')?..]);
            self.by_name.get(&name).or_else(wildcard).cloned()
        };
        name.and_then(exact).or_else(|| self.first.clone())
    }
}

fn certified(chain: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let shown = chain.display();
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading certificates of {shown}"))?;
    anyhow::ensure!(!certificates.is_empty(), "{shown} holds no certificate");
    let secret = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("reading the key of {}", key.display()))?;
    CertifiedKey::from_der(certificates, secret, &ring::default_provider())
        .with_context(|| format!("{shown} with the key of {}", key.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(directory: &Path, name: &str, hosts: &[&str]) -> Files {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let files = (
            directory.join(format!("{name}.crt")),
            directory.join(format!("{name}.key")),
        );
        fs::write(&files.0, made.cert.pem()).unwrap();
        fs::write(&files.1, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_name_finds_its_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            write(directory.path(), "first", &["first.example"]),
            write(directory.path(), "wild", &["*.wild.example"]),
            write(directory.path(), "exact", &["a.wild.example"]),
        ];
        let chosen = Chosen::read(&files).unwrap();
        let rows = [
            (None, 0),
            (Some("first.example"), 0),
            (Some("FIRST.example"), 0),
            (Some("a.wild.example"), 2),
            (Some("b.wild.example"), 1),
            (Some("b.c.wild.example"), 0),
            (Some("wild.example"), 0),
            (Some("localhost"), 0),
        ];
        for (name, expected) in rows {
            let found = chosen.find(name).unwrap();
            let wanted = certified(&files[expected].0, &files[expected].1).unwrap();
            assert_eq!(found.cert, wanted.cert, "{name:?}");
        }
    }

    #[test]
    fn changed_files_are_read_and_broken_ones_are_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let files = [write(directory.path(), "one", &["one.example"])];
        let mut certificates = Certificates::read(&files).unwrap();
        assert!(!certificates.refresh());
        let shown = |certificates: &Certificates| {
            let chosen = certificates.presented.0.load();
            chosen.find(None).unwrap().cert.clone()
        };
        let later = |seconds| {
            let file = fs::File::options().write(true).open(&files[0].0).unwrap();
            let time = SystemTime::now() + std::time::Duration::from_secs(seconds);
            file.set_modified(time).unwrap();
        };
        let before = shown(&certificates);
        fs::write(&files[0].0, "broken").unwrap();
        later(10);
        assert!(certificates.refresh());
        let problem = certificates.problem().unwrap();
        assert!(problem.contains("one.crt"), "{problem}");
        assert_eq!(shown(&certificates), before);

        write(directory.path(), "one", &["one.example"]);
        later(20);
        assert!(certificates.refresh());
        assert_eq!(certificates.problem(), None);
        assert_ne!(shown(&certificates), before);
    }
}
