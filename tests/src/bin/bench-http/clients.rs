//! The programs that make load: wrk for HTTP/1.1, h2load for HTTP/2 and gRPC.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{bench::Samples, namespace::run_tool};

use crate::{
    case::{Case, Over},
    stand::Stand,
};

/// What came of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Microseconds that 500, 990 and 999 of 1000 took at most.
    pub(crate) latency: [f64; 3],
}

/// Streams of an HTTP/2 connection at a time.
const STREAMS: usize = 4;

/// One run of the fitting program from the stand's client.
pub(crate) fn run(
    stand: &Stand,
    case: &Case,
    connections: usize,
    seconds: u64,
) -> Result<Measured> {
    match case.over {
        Over::KeptConnection | Over::NewConnection => wrk(stand, case, connections, seconds),
        Over::Http2 | Over::Grpc => h2load(stand, case, connections, seconds),
    }
}

/// What wrk is to print in the end, for nobody but us.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  print("measured", summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
    summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9))
end
"#;

fn wrk(stand: &Stand, case: &Case, connections: usize, seconds: u64) -> Result<Measured> {
    let script = stand.topology.directory().join("wrk.lua");
    fs::write(&script, SCRIPT).context("cannot write the script of wrk")?;
    let mut command = stand.topology.client().command("wrk")?;
    command
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg("-s")
        .arg(&script);
    if case.over == Over::NewConnection {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!(
        "http://{}/size/{}",
        stand.target(case.over),
        case.size
    ));
    let printed = run_tool(&mut command)?;
    of_wrk(&printed).with_context(|| format!("wrk printed:\n{printed}"))
}

fn of_wrk(printed: &str) -> Result<Measured> {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix("measured"));
    let fields: Vec<f64> = line
        .context("no figures")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [requests, failed, microseconds, p50, p99, p999] = fields[..] else {
        anyhow::bail!("{} figures", fields.len());
    };
    ensure!(requests > 0.0, "no request was answered");
    Ok(Measured {
        requests: requests as u64,
        failed: failed as u64,
        rate: requests / (microseconds / 1e6),
        latency: [p50, p99, p999],
    })
}

fn h2load(stand: &Stand, case: &Case, connections: usize, seconds: u64) -> Result<Measured> {
    let directory = stand.topology.directory();
    let log = directory.join("h2load.log");
    // It appends.
    let _ = fs::remove_file(&log);
    let mut command = stand.topology.client().command("h2load")?;
    command
        .args(["-t1", "-D", &seconds.to_string()])
        .args(["-c", &(connections / STREAMS).to_string()])
        .args(["-m", &STREAMS.to_string()])
        .arg(format!("--log-file={}", log.display()));
    let target = stand.target(case.over);
    if case.over == Over::Grpc {
        let message = directory.join("message");
        fs::write(&message, grpc_message(case.size)?).context("cannot write the message")?;
        command
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .arg("-d")
            .arg(&message)
            .arg(format!("http://{target}/grpc.Echo/Unary"));
    } else {
        command.arg(format!("http://{target}/size/{}", case.size));
    }
    let printed = run_tool(&mut command)?;
    of_h2load(&read(&log)?, seconds).with_context(|| format!("h2load printed:\n{printed}"))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Its log: a line a request, with the time it began, its status and its microseconds. Requests
/// that the end of the time cut off are not in it.
fn of_h2load(log: &str, seconds: u64) -> Result<Measured> {
    let mut failed = 0;
    let mut latency = Vec::new();
    for line in log.lines() {
        let mut fields = line.split_whitespace().skip(1);
        let status = fields.next().context("a line without a status")?;
        let took = fields.next().context("a line without a time")?;
        failed += u64::from(status != "200");
        latency.push(took.parse::<f64>()?);
    }
    ensure!(!latency.is_empty(), "no request was answered");
    let requests = latency.len();
    let latency: Samples = latency.into_iter().collect();
    Ok(Measured {
        requests: requests as u64,
        failed,
        rate: requests as f64 / seconds as f64,
        latency: [0.5, 0.99, 0.999].map(|share| latency.quantile(share)),
    })
}

/// A message as it is on the wire: not compressed, its length, its bytes.
fn grpc_message(length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(length)?.to_be_bytes());
    bytes.resize(5 + length, b'x');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_print_is_understood() {
        let wrk = of_wrk("Running 1s test\nmeasured\t200\t3\t500000\t10\t20\t30.5\n").unwrap();
        let expected = Measured {
            requests: 200,
            failed: 3,
            rate: 400.0,
            latency: [10.0, 20.0, 30.5],
        };
        assert_eq!(wrk, expected);
        assert!(of_wrk("Running 1s test\n").is_err());
        let h2load = of_h2load("1 200 10\n2 503 30\n3 200 20\n", 1).unwrap();
        assert_eq!((h2load.requests, h2load.failed), (3, 1));
        assert_eq!((h2load.rate, h2load.latency[0]), (3.0, 20.0));
        assert!(of_h2load("", 1).is_err());
        assert_eq!(grpc_message(2).unwrap(), [0, 0, 0, 0, 2, b'x', b'x']);
    }
}
