//! The demo from outside of the machine, as from the workstation around a virtual one.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::machine::Ports;

/// The step during which the guest waits for this.
pub(super) const STEP: &str = "outside";

/// Requests to each port.
const REQUESTS: usize = 20;

/// Asks once, when the guest is ready for it.
pub(super) struct Outside {
    ports: Ports,
    seen: Option<Result<String>>,
}

impl Outside {
    pub(super) fn new(ports: Ports) -> Self {
        Self { ports, seen: None }
    }

    /// Asks if the guest has come to the step, as its `transcript` shows.
    pub(super) fn look(&mut self, transcript: &str) {
        if self.seen.is_none() && crate::transcript::begun(transcript).any(|step| step == STEP) {
            self.seen = Some(self.ask());
        }
    }

    /// What was seen.
    pub(super) fn seen(&self) -> Result<String> {
        match &self.seen {
            Some(Ok(seen)) => Ok(seen.clone()),
            Some(Err(error)) => Err(anyhow::anyhow!("{error:#}")),
            None => Err(anyhow::anyhow!("the guest never came to it")),
        }
    }

    fn ask(&self) -> Result<String> {
        let mut told = Vec::new();
        for (what, port, host) in [
            ("the VIP", self.ports.vip, "192.168.56.80"),
            ("the proxy", self.ports.proxy, "echo.consul.localhost"),
        ] {
            let mut backends = BTreeSet::new();
            for _ in 0..REQUESTS {
                let answer =
                    get(port, host, "/").with_context(|| format!("{what} did not answer"))?;
                let backend = super::judge::backend(&answer)
                    .with_context(|| format!("{what} answered {answer:?}"))?;
                backends.insert(backend.to_owned());
            }
            ensure!(
                backends.len() == 3,
                "through {what} only {backends:?} answered {REQUESTS} requests"
            );
            told.push(format!("{what}: {} backends", backends.len()));
        }
        let ready = get(self.ports.prometheus, "localhost", "/-/ready")
            .context("Prometheus did not answer")?;
        ensure!(ready.starts_with("HTTP/1.1 200"), "Prometheus: {ready:?}");
        Ok(told.join(", "))
    }
}

/// An answer with its head.
fn get(port: u16, host: &str, path: &str) -> Result<String> {
    let patience = Duration::from_secs(20);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
