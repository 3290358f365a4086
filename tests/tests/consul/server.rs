//! A Consul server of a test's own, on ports of its own. Needs no privileges.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The server. Killed when dropped.
pub(super) struct Consul {
    dir: TempDir,
    ports: Ports,
    /// Sent with each request, if not empty.
    token: String,
    child: Option<Child>,
}

struct Ports {
    http: u16,
    https: u16,
    server: u16,
    serf_lan: u16,
    serf_wan: u16,
}

impl Ports {
    /// Free a moment ago, and all different.
    fn pick() -> Self {
        let listeners: [_; 5] =
            std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("bind on loopback"));
        let [http, https, server, serf_lan, serf_wan] =
            listeners.map(|listener| listener.local_addr().expect("bound").port());
        Self {
            http,
            https,
            server,
            serf_lan,
            serf_wan,
        }
    }
}

impl Consul {
    /// A server that has elected itself.
    pub(super) fn start() -> Self {
        Self::with(Ports::pick(), "", serde_json::json!({}))
    }

    /// The same where nobody may do anything without this token (a UUID).
    pub(super) fn with_acl(token: &str) -> Self {
        let config = serde_json::json!({
            "acl": { "enabled": true, "default_policy": "deny", "tokens": { "master": token } },
        });
        Self::with(Ports::pick(), token, config)
    }

    /// The same with TLS on a second port, where clients need a certificate.
    pub(super) fn with_tls(tls: &Tls) -> Self {
        let ports = Ports::pick();
        let config = serde_json::json!({
            "ports": { "https": ports.https },
            "ca_file": tls.file("consul-agent-ca.pem"),
            "cert_file": tls.file("dc1-server-consul-0.pem"),
            "key_file": tls.file("dc1-server-consul-0-key.pem"),
            "verify_incoming_https": true,
        });
        Self::with(ports, "", config)
    }

    fn with(ports: Ports, token: &str, config: serde_json::Value) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("config.json"), config.to_string()).expect("write configuration");
        let mut consul = Self {
            dir,
            ports,
            token: token.into(),
            child: None,
        };
        consul.run();
        consul
    }

    /// Starts it (again: without anything it knew) and waits until it leads itself.
    pub(super) fn run(&mut self) {
        let config = self.dir.path().join("config.json");
        let log = fs::File::create(self.log()).expect("create log");
        let child = Command::new("consul")
            .args(["agent", "-dev", "-node=n1"])
            .args(["-bind=127.0.0.1", "-client=127.0.0.1"])
            .args(["-dns-port=-1", "-grpc-port=-1"])
            .arg(format!("-http-port={}", self.ports.http))
            .arg(format!("-server-port={}", self.ports.server))
            .arg(format!("-serf-lan-port={}", self.ports.serf_lan))
            .arg(format!("-serf-wan-port={}", self.ports.serf_wan))
            .arg("-config-file")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("start `consul`; install Debian's package consul (1.8.7) or newer");
        self.child = Some(child);
        let start = Instant::now();
        // Its own catalog entry comes last, a moment after the election.
        while !self
            .request("GET", "/v1/health/node/n1", "")
            .is_ok_and(|body| body.contains("serfHealth"))
        {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "no leader after 30 s:\n{}",
                fs::read_to_string(self.log()).unwrap_or_default()
            );
            sleep(Duration::from_millis(20));
        }
    }

    /// Kills it without notice.
    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill consul");
            child.wait().expect("wait for consul");
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("consul.log")
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// `https://127.0.0.1:PORT`.
    pub(super) fn tls_address(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.https)
    }

    /// A PUT that must succeed.
    pub(super) fn put(&self, path: &str, body: &str) {
        if let Err(error) = self.request("PUT", path, body) {
            panic!("PUT {path}: {error}");
        }
    }

    /// What a GET is answered with, which must succeed.
    pub(super) fn get(&self, path: &str) -> String {
        let answer = self.request("GET", path, "");
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// The body of an answer of status 200; else what came instead.
    fn request(&self, method: &str, path: &str, body: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.http))
            .map_err(|error| error.to_string())?;
        let mut headers = format!("Host: localhost\r\nContent-Length: {}\r\n", body.len());
        if !self.token.is_empty() {
            headers += &format!("X-Consul-Token: {}\r\n", self.token);
        }
        let mut answer = String::new();
        write!(stream, "{method} {path} HTTP/1.0\r\n{headers}\r\n{body}")
            .and_then(|()| stream.read_to_string(&mut answer))
            .map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if head.starts_with("HTTP/1.0 200") {
            Ok(body.to_owned())
        } else {
            Err(answer)
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An authority and certificates of a server and a client in `dc1`, made by Consul's own tool.
pub(super) struct Tls(TempDir);

impl Tls {
    pub(super) fn create() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for arguments in [
            &["ca", "create"][..],
            &["cert", "create", "-server", "-dc=dc1"],
            &["cert", "create", "-client", "-dc=dc1"],
        ] {
            let output = Command::new("consul")
                .arg("tls")
                .args(arguments)
                .current_dir(dir.path())
                .output()
                .expect("start `consul`; install Debian's package consul (1.8.7) or newer");
            assert!(
                output.status.success(),
                "consul tls {arguments:?}: {output:?}"
            );
        }
        Self(dir)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
