//! The echo service as a program: what stands behind the load balancer in tests and in the demo.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lb_tests::echo::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Answers HTTP and UDP with its own name, so that one sees who was asked.
#[derive(Parser)]
#[command(name = "echo")]
struct Args {
    /// Address and port for HTTP and UDP; may be given several times.
    #[arg(long, required_unless_present = "probe")]
    listen: Vec<SocketAddr>,
    /// Name in the answers; default: the host's.
    #[arg(long)]
    name: Option<String>,
    /// Text in the answer to `GET /`.
    #[arg(long, default_value = "hello")]
    text: String,
    /// Version in the answer to `GET /`.
    #[arg(long)]
    version: Option<String>,
    /// Serve so long after SIGTERM, while `GET /health` says no.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    drain: u64,
    /// Do nothing but ask the service at this address for its health; fail if it is not well.
    #[arg(long, value_name = "ADDRESS")]
    probe: Option<SocketAddr>,
    /// Also echo plain TCP on this port of the same addresses.
    #[arg(long, value_name = "PORT")]
    tcp_echo: Option<u16>,
    /// Also HTTPS on this port of the same addresses.
    #[arg(long, value_name = "PORT", requires = "authority")]
    https: Option<u16>,
    /// Directory of the authority that issues the certificate.
    #[arg(long, value_name = "DIRECTORY")]
    authority: Option<PathBuf>,
    /// Also gRPC health on this port of the same addresses.
    #[arg(long, value_name = "PORT")]
    grpc: Option<u16>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(address) = args.probe {
        return probe(address);
    }
    let name = match args.name {
        Some(name) => name,
        None => host_name()?,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let options = Options {
        name,
        text: args.text,
        version: args.version,
        drain: Duration::from_secs(args.drain),
        listen: args.listen,
        tcp_echo: args.tcp_echo,
        https: args.https.zip(args.authority),
        grpc: args.grpc,
    };
    echo::serve(options, shutdown).await
}

fn host_name() -> Result<String> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let name = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    Ok(name.trim().to_owned())
}

/// For the health check of a container that holds no other program.
fn probe(address: SocketAddr) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer = ask().with_context(|| format!("cannot ask {address} for its health"))?;
    let status = answer.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "{address} says `{status}`"
    );
    Ok(())
}
