//! As many HTTP requests as go, for a fixed time: each on a connection of its own, or many on a
//! few connections. One thread, so that half of a small machine is left to the others.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::Samples;
use crate::namespace::Namespace;

/// How long a request under way may go on after the time is over.
const LATEST: Duration = Duration::from_secs(5);

/// What each request goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A connection of its own, which the server closes.
    NewConnection,
    /// A connection that has carried others before.
    KeptConnection,
}

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Requests under way at any time.
    pub at_once: usize,
    /// How long.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests answered a second.
    pub rate: f64,
    /// Microseconds from the connection's beginning, or the request's on one that was kept, to
    /// the end of the answer.
    pub latency: Samples,
    /// Requests without an answer of status 200, and the reason of the last.
    pub failed: (usize, String),
}

/// Sends requests from a namespace, to the addresses in turn.
///
/// # Errors
///
/// No runtime in the namespace, or not a single answer.
pub fn request(
    from: &Namespace,
    to: &[SocketAddr],
    over: Over,
    effort: Effort,
) -> Result<Measured> {
    ensure!(!to.is_empty(), "requests to nobody");
    from.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot build the runtime of the requests")?;
        runtime.block_on(all(to, over, effort))
    })
}

async fn all(to: &[SocketAddr], over: Over, effort: Effort) -> Result<Measured> {
    let began = Instant::now();
    let until = began + effort.time;
    let mut tasks = JoinSet::new();
    for number in 0..effort.at_once {
        // Everybody begins with another one.
        let mut to = to.to_vec();
        let turn = number % to.len();
        to.rotate_left(turn);
        tasks.spawn(async move {
            let mut own = Own::default();
            while Instant::now() < until {
                let done = match over {
                    Over::NewConnection => own.new_connections(&to, until).await,
                    Over::KeptConnection => own.kept_connection(to[0], until).await,
                };
                if let Err(error) = done {
                    own.failed += 1;
                    own.reason = format!("{error:#}");
                    // Who is refused must not keep the processor busy.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            own
        });
    }
    let mut latency = Vec::new();
    let mut failed = (0, String::new());
    while let Some(own) = tasks.join_next().await {
        let own = own.context("a task of the requests")?;
        latency.extend(own.latency);
        if own.failed > 0 {
            failed = (failed.0 + own.failed, own.reason);
        }
    }
    ensure!(!latency.is_empty(), "no answer at all: {}", failed.1);
    Ok(Measured {
        rate: latency.len() as f64 / began.elapsed().as_secs_f64(),
        latency: latency.into_iter().collect(),
        failed,
    })
}

/// What one task has seen.
#[derive(Default)]
struct Own {
    latency: Vec<f64>,
    failed: usize,
    reason: String,
}

impl Own {
    async fn new_connections(&mut self, to: &[SocketAddr], until: Instant) -> Result<()> {
        for address in to.iter().cycle() {
            let began = Instant::now();
            if began >= until {
                break;
            }
            let exchange = async {
                let mut stream = TcpStream::connect(address).await?;
                ask(&mut stream, *address, "close").await?;
                let mut answer = Vec::with_capacity(512);
                stream.read_to_end(&mut answer).await?;
                check(&answer).map(drop)
            };
            timeout(LATEST, exchange)
                .await
                .context("no answer in time")??;
            self.latency.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    }

    async fn kept_connection(&mut self, to: SocketAddr, until: Instant) -> Result<()> {
        let mut stream = timeout(LATEST, TcpStream::connect(to)).await??;
        stream.set_nodelay(true)?;
        let mut answer = Vec::with_capacity(1024);
        loop {
            let began = Instant::now();
            if began >= until {
                return Ok(());
            }
            answer.clear();
            let exchange = async {
                ask(&mut stream, to, "keep-alive").await?;
                loop {
                    let read = stream.read_buf(&mut answer).await?;
                    ensure!(read > 0, "the connection was closed");
                    if check(&answer)? {
                        return Ok(());
                    }
                }
            };
            timeout(LATEST, exchange)
                .await
                .context("no answer in time")??;
            self.latency.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
}

async fn ask(stream: &mut TcpStream, to: SocketAddr, connection: &str) -> Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: {connection}\r\n\r\n");
    Ok(stream.write_all(request.as_bytes()).await?)
}

/// Whether an answer is complete.
///
/// # Errors
///
/// It is no answer of status 200 with a stated length.
fn check(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&answer[..end])?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered with {head:?}");
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            let length: usize = value.trim().parse()?;
            return Ok(answer.len() >= end + 4 + length);
        }
    }
    bail!("an answer without a length: {head:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_all_of_it_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for length in 0..answer.len() {
            assert!(!check(&answer[..length]).unwrap(), "{length} bytes");
        }
        assert!(check(answer).unwrap());
        for wrong in [
            &b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(check(wrong).is_err());
        }
    }
}
