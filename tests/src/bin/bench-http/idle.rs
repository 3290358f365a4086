//! The memory that connections without a request cost: before the first one, and after it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::bench::Samples;

use crate::{
    case::Over,
    stand::{Side, Stand},
};

/// Bytes a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Before any request.
    pub(crate) fresh: Samples,
    /// After one request.
    pub(crate) used: Samples,
}

/// How long the proxy has to settle before its memory is looked at.
const SETTLE: Duration = Duration::from_millis(500);

const REQUEST: &[u8] = b"GET /size/1000 HTTP/1.1\r\nHost: web\r\n\r\n";

/// Opens so many connections to new processes.
pub(crate) fn measure(side: Side, bare: bool, count: usize, memory: &mut Memory) -> Result<()> {
    let stand = Stand::new(side, bare)?;
    let target = stand.target(Over::KeptConnection);
    let nothing = stand.usage.memory()?;
    let per_connection = || -> Result<f64> {
        thread::sleep(SETTLE);
        let grown = stand.usage.memory()?.saturating_sub(nothing);
        Ok(grown as f64 / count as f64)
    };
    let client = stand.topology.client();
    let mut connections: Vec<TcpStream> = client.run(|| {
        (0..count)
            .map(|number| {
                let stream = TcpStream::connect(target)
                    .with_context(|| format!("cannot open connection {number}"))?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
            .collect::<Result<_>>()
    })?;
    memory.fresh.push(per_connection()?);
    let mut answer = Vec::new();
    for (number, stream) in connections.iter_mut().enumerate() {
        one_request(stream, &mut answer)
            .with_context(|| format!("the first request on connection {number}"))?;
    }
    memory.used.push(per_connection()?);
    Ok(())
}

fn one_request(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<()> {
    stream.write_all(REQUEST)?;
    answer.clear();
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes)?;
        ensure!(length > 0, "closed after {} bytes", answer.len());
        answer.extend_from_slice(&bytes[..length]);
        if let Some(head) = answer.windows(4).position(|part| part == b"\r\n\r\n") {
            ensure!(
                answer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&answer[..head])
            );
            if answer.len() >= head + 4 + 1000 {
                return Ok(());
            }
        }
    }
}
