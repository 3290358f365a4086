//! The echo service as a program: what stands behind the load balancer in tests and in the demo.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::Parser;
use lb_tests::echo::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Answers HTTP and UDP with its own name, so that one sees who was asked.
#[derive(Parser)]
#[command(name = "echo")]
struct Args {
    /// Address and port for HTTP and UDP; may be given several times.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Name in the answers.
    #[arg(long)]
    name: String,
    /// Text in the answer to `GET /`.
    #[arg(long, default_value = "hello")]
    text: String,
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
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let options = Options {
        name: args.name,
        text: args.text,
        listen: args.listen,
        tcp_echo: args.tcp_echo,
        https: args.https.zip(args.authority),
        grpc: args.grpc,
    };
    echo::serve(options, shutdown).await
}
