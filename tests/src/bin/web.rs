//! The backend of the proxy's tests and benchmarks as a program.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Answers HTTP/1.1, HTTP/2 and gRPC as the path of each request says
#[derive(Parser)]
#[command(name = "web")]
struct Args {
    /// Address and port; may be given several times
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Name in the answers
    #[arg(long)]
    name: String,
    /// Print the `x-id` of every request
    #[arg(long)]
    tell: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        terminate.recv().await;
    };
    lb_tests::web::serve(args.name, args.tell, args.listen, shutdown).await
}
