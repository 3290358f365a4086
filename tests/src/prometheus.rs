//! A real Prometheus that scrapes something in a namespace, and its word on metrics as text.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{
    client::Client,
    namespace::{Entry, Namespace, run_tool},
    pace::at_this_pace,
    process::{Process, installed, wait_for},
};

/// Where its HTTP API listens, inside the namespace.
const ADDRESS: &str = "127.0.0.1:9090";

/// How long an answer may take; a query over long ranges takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Prometheus server. Dropping it ends it.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    namespace: Entry,
}

impl Prometheus {
    /// Starts one that scrapes `http://<target>/metrics` every second as job `lb-agent`, and
    /// waits until it takes questions. Its files lie in `directory`.
    pub fn start(namespace: &Namespace, target: SocketAddr, directory: &Path) -> Result<Self> {
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n\
             - job_name: lb-agent\n  \
               static_configs: [{{targets: ['{target}']}}]\n"
        );
        Self::configured(namespace, &config, directory)
    }

    /// The same with this configuration.
    pub fn configured(namespace: &Namespace, text: &str, directory: &Path) -> Result<Self> {
        if !installed("prometheus") {
            bail!("prometheus is not installed; `cargo xtask setup` installs it");
        }
        let directory = directory.join("prometheus");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let config = directory.join("prometheus.yml");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = namespace.command("prometheus")?;
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .arg("--log.level=warn");
        let process = Process::start("prometheus", command, &directory.join("log"))?;
        let prometheus = Self {
            process,
            namespace: namespace.entry(),
        };
        wait_for("Prometheus to be ready", Duration::from_secs(30), || {
            prometheus.process.ensure_running()?;
            let ready = prometheus.get("/-/ready").is_ok();
            Ok(ready.then_some(()))
        })?;
        Ok(prometheus)
    }

    /// The result of an instant query: a list of `{"metric": {…}, "value": [time, "number"]}`.
    pub fn query(&self, promql: &str) -> Result<Value> {
        let path = format!("/api/v1/query?query={}", encode(promql));
        let mut data = self
            .data(&path)
            .with_context(|| format!("cannot query `{promql}`"))?;
        Ok(data["result"].take())
    }

    /// The result of a query for each `step` seconds between two times, in seconds since 1970: a
    /// list of `{"metric": {…}, "values": [[time, "number"], …]}`.
    pub fn query_range(&self, promql: &str, (from, to): (u64, u64), step: u64) -> Result<Value> {
        let query = encode(promql);
        let path = format!("/api/v1/query_range?query={query}&start={from}&end={to}&step={step}");
        let mut data = self
            .data(&path)
            .with_context(|| format!("cannot query `{promql}`"))?;
        Ok(data["result"].take())
    }

    /// Alerts that are pending or firing: `{"labels": {…}, "annotations": {…}, "state": …}`.
    pub fn alerts(&self) -> Result<Value> {
        Ok(self.data("/api/v1/alerts")?["alerts"].take())
    }

    /// The value of the query's only series; `None` as long as there is none.
    pub fn value(&self, promql: &str) -> Result<Option<f64>> {
        let result = self.query(promql)?;
        let series = result
            .as_array()
            .ok_or_else(|| anyhow!("`{promql}` does not yield series"))?;
        ensure!(
            series.len() <= 1,
            "`{promql}` yields {} series",
            series.len()
        );
        let Some(only) = series.first() else {
            return Ok(None);
        };
        let value = only["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(value)
    }

    fn data(&self, path: &str) -> Result<Value> {
        let body = self.get(path)?;
        let mut answer: Value =
            serde_json::from_str(&body).context("Prometheus' answer is not JSON")?;
        Ok(answer["data"].take())
    }

    fn get(&self, path: &str) -> Result<String> {
        let address = ADDRESS.parse().expect("a valid address");
        let client = Client::at(self.namespace.clone()).patience(at_this_pace(PATIENCE));
        let response = client.get(address, path)?;
        ensure!(
            response.status == 200,
            "Prometheus answered with status {}: {}",
            response.status,
            response.text().trim()
        );
        Ok(response.text())
    }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, section 2.3.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Has `promtool check metrics` judge a scrape. The error quotes its complaints.
pub fn check_metrics(text: &str) -> Result<()> {
    if !installed("promtool") {
        bail!("promtool is not installed; `cargo xtask setup` installs it");
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run promtool")?;
    // Dropped at once: the end of the input starts the check.
    child
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(text.as_bytes())
        .context("cannot write to promtool")?;
    let output = child.wait_with_output().context("promtool was lost")?;
    ensure!(
        output.status.success(),
        "promtool finds fault with the metrics:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Runs `promtool` with these arguments in a directory. The error quotes its complaints.
pub fn promtool(directory: &Path, args: &[&str]) -> Result<()> {
    if !installed("promtool") {
        bail!("promtool is not installed; `cargo xtask setup` installs it");
    }
    let mut command = Command::new("promtool");
    run_tool(command.current_dir(directory).args(args)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("sum(a_b{c=\"d\"})"), "sum%28a_b%7Bc%3D%22d%22%7D%29");
    }
}
